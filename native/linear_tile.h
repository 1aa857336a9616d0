// Rows times the weights of a panel of 64 outputs: what linear.cpp and weight_only_linear.cpp share.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels.h"
#include "scratch.h"
#include "simd.h"

namespace lapidist {

constexpr int kVectors = 4;                          // vectors of outputs in a tile
constexpr int kTileRows = kLanes == 16 ? 6 : 2;
constexpr int kTileOutputs = kVectors * kLanes;      // a panel has one to four tiles side by side

// bfloat16 is packed in pairs of columns on every processor, so that the format is one.
template <typename T>
constexpr int kPair = std::is_same_v<T, bfloat16> ? 2 : 1;

inline int64_t padded_columns(int64_t columns) { return (columns + 1) / 2 * 2; }

// sums[r] += x[r] . w for a tile: kRows rows of x, kTileOutputs outputs, `columns` columns (an even number).
// While it runs, vectors `ahead_begin` to `ahead_end` of the weights `ahead` elements further on are fetched.
template <typename T, int kRows>
inline void multiply_tile(const Factor<T>* x, int64_t x_stride, const T* w, int64_t columns, float* sums, int64_t ahead,
                          int ahead_begin, int ahead_end) {
    FloatVector acc[kRows][kVectors];
    for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v) acc[r][v] = load(sums + r * kPanelOutputs + v * kLanes);
    for (int64_t c = 0; c < columns; c += kPair<T>, w += kPair<T> * kPanelOutputs) {
        for (int v = ahead_begin; v < ahead_end; ++v) prefetch_once(w + ahead + v * kPair<T> * kLanes);
        if constexpr (kInPairs<T>) {
#if defined(__AVX512BF16__)
            IntVector weight[kVectors];
            for (int v = 0; v < kVectors; ++v) std::memcpy(&weight[v], w + v * 2 * kLanes, sizeof(IntVector));
            for (int r = 0; r < kRows; ++r) {
                int32_t pair;
                std::memcpy(&pair, x + r * x_stride + c, 4);
                const IntVector factor = IntVector{} + pair;
                for (int v = 0; v < kVectors; ++v) acc[r][v] = dot_pairs(acc[r][v], factor, weight[v]);
            }
#endif
        } else if constexpr (kPair<T> == 2) {
            for (int v = 0; v < kVectors; ++v) {
                IntVector both;
                std::memcpy(&both, w + v * 2 * kLanes, sizeof both);
                const FloatVector even = reinterpret_cast<FloatVector>(both << 16);
                const FloatVector odd = reinterpret_cast<FloatVector>(both & static_cast<int32_t>(0xffff0000u));
                for (int r = 0; r < kRows; ++r) {
                    acc[r][v] += x[r * x_stride + c] * even;
                    acc[r][v] += x[r * x_stride + c + 1] * odd;
                }
            }
        } else {
            for (int v = 0; v < kVectors; ++v) {
                const FloatVector weight = load(w + v * kLanes);
                for (int r = 0; r < kRows; ++r) acc[r][v] += x[r * x_stride + c] * weight;
            }
        }
    }
    for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v) store(sums + r * kPanelOutputs + v * kLanes, acc[r][v]);
}

// The same for any number of rows and a whole panel's outputs, in tiles of like size. The fetching of weights is spread
// over the tiles: the memory works also while later tiles are multiplied by weights that are in the cache.
template <typename T>
void multiply_panel(const Factor<T>* x, int64_t x_stride, const T* w, int64_t rows, int64_t columns, float* sums, int64_t ahead) {
    const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
    int64_t r = 0;
    for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t count = rows / tiles + (tile < rows % tiles);
        const int begin = ahead ? kVectors * tile / tiles : 0, end = ahead ? kVectors * (tile + 1) / tiles : 0;
        for (int o = 0; o < kPanelOutputs; o += kTileOutputs) {
            const auto run = [&](auto size) {
                constexpr int kRows = std::min(decltype(size)::value, kTileRows);
                multiply_tile<T, kRows>(x + r * x_stride, x_stride, w + o * kPair<T>, columns, sums + r * kPanelOutputs + o, ahead, begin, end);
            };
            switch (count) {
                case 1: run(std::integral_constant<int, 1>{}); break;
                case 2: run(std::integral_constant<int, 2>{}); break;
                case 3: run(std::integral_constant<int, 3>{}); break;
                case 4: run(std::integral_constant<int, 4>{}); break;
                case 5: run(std::integral_constant<int, 5>{}); break;
                default: run(std::integral_constant<int, 6>{});
            }
        }
        r += count;
    }
}

// x as the kernels multiply it: an even number of columns, a zero in the last one if need be.
template <typename T>
struct FactorRows {
    const Factor<T>* x;
    int64_t stride;
};

// Taken as it is where it can be, else copied to memory that the thread's next call uses again.
template <typename T>
FactorRows<T> factor_rows(const void* x, int64_t x_stride, int64_t rows, int64_t columns) {
    const int64_t padded = padded_columns(columns);
    if (std::is_same_v<T, Factor<T>> && padded == columns) return {static_cast<const Factor<T>*>(x), x_stride};
    static thread_local Scratch scratch;
    Factor<T>* copy = scratch.reserve<Factor<T>>(rows * padded);
    for (int64_t r = 0; r < rows; ++r) {
        const T* from = static_cast<const T*>(x) + r * x_stride;
        Factor<T>* to = copy + r * padded;
        to[padded - 1] = Factor<T>{};
        for (int64_t c = 0; c < columns; ++c) {
            if constexpr (std::is_same_v<T, Factor<T>>) {
                to[c] = from[c];
            } else {
                to[c] = to_float(from[c]);
            }
        }
    }
    return {copy, padded};
}

}  // namespace lapidist
