// Attention of a tile: the queries of one KV head's group against sixteen keys at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "kernels.h"
#include "scratch.h"
#include "simd.h"

namespace lapidist {

constexpr int kBlock = 16;                          // keys per step
constexpr int kBlockVectors = kBlock / kLanes;      // vectors that hold one score for each of them
constexpr int kRowTile = kLanes == 16 ? 12 : 4;     // rows whose sums are in registers at once
constexpr int kFewRows = 4;                         // the same, where keys are read as they lie
constexpr int kPackFrom = 2 * kFewRows + 1;         // rows from which packing the keys pays
constexpr float kLog2e = 1.44269504088896341f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLazyThreshold = 8.0f;              // lapidist.kernels.softmax.LAZY_THRESHOLD
constexpr float kLeastDenominator = 0x1p-80f;       // lapidist.kernels.softmax.LEAST_DENOMINATOR
constexpr float kLargestDenominator = 0x1p126f;     // above it the reciprocal is a denormal, which loses bits

inline int padded(int head_dim) { return (head_dim + 31) / 32 * 32; }

// Where the sum of channel c stands in a row of sums. Values are paired by interleaving the halves of 128-bit lanes, which
// leaves each 32 channels as the first fours of eight, then the second ones.
template <typename T>
inline int sum_position(int c) {
    return kInPairs<T> ? c / 32 * 32 + c % 8 / 4 * 16 + c % 32 / 8 * 4 + c % 4 : c;
}

// Scores to exponentials: what all rows of a call share.
struct ScoreMap {
    float scale_log2;    // scores to base-2 exponents
    float inner, outer;  // with a cap: outer * tanh(inner * score)
    bool capped;

    ScoreMap(float scale, float softcap)
        : scale_log2(scale * kLog2e), inner(softcap > 0 ? scale / softcap : 0), outer(softcap * kLog2e), capped(softcap > 0) {}

    FloatVector operator()(FloatVector score) const {
        return capped ? outer * tanh(inner * score) : score * scale_log2;
    }
};

// Sixteen keys and values of one head: where their rows of `width` channels are and, for many query rows, the keys
// transposed to [width][16] (in pairs of channels: [width / 2][16][2]).
template <typename T>
struct KeyBlock {
    const T* keys[kBlock];
    const T* values[kBlock];
    const T* next_keys[kBlock];  // what will be read next, to be fetched meanwhile
    const T* next_values[kBlock];
    Factor<T>* packed_keys;
    T* padded_rows;  // [2][16][width], for head dimensions that are not whole vectors
    bool is_packed;

    // `offsets` of `count` rows from the head's pages; rows past them count as `zeros`. `next` are those of the next block.
    void point(const T* key_page, const T* value_page, const int64_t* offsets, int count, const T* zeros, const int64_t* next) {
        for (int t = 0; t < kBlock; ++t) {
            keys[t] = t < count ? key_page + offsets[t] : zeros;
            values[t] = t < count ? value_page + offsets[t] : zeros;
            next_keys[t] = key_page + next[t];
            next_values[t] = value_page + next[t];
        }
    }

    void pad(int head_dim, int width) {
        T* row = padded_rows;
        for (const T** pointers : {keys, values}) {
            for (int t = 0; t < kBlock; ++t, row += width) {
                std::copy(pointers[t], pointers[t] + head_dim, row);
                std::fill(row + head_dim, row + width, T{});
                pointers[t] = row;
            }
        }
    }

    void pack(int width) {
        if constexpr (kInPairs<T>) {
            static_assert(!kInPairs<T> || kLanes == kBlock);
            for (int c = 0; c < width; c += 2 * kLanes) {
                IntVector rows[kLanes];
#pragma GCC unroll 16
                for (int t = 0; t < kLanes; ++t) std::memcpy(&rows[t], keys[t] + c, sizeof(IntVector));
                transpose(rows);
#pragma GCC unroll 16
                for (int i = 0; i < kLanes; ++i) std::memcpy(packed_keys + (c / 2 + i) * 2 * kBlock, &rows[i], sizeof(IntVector));
            }
        } else {
            for (int c = 0; c < width; c += kLanes) {
                for (int first = 0; first < kBlock; first += kLanes) {
                    IntVector rows[kLanes];
                    for (int t = 0; t < kLanes; ++t) rows[t] = reinterpret_cast<IntVector>(load(keys[first + t] + c));
                    transpose(rows);
                    for (int i = 0; i < kLanes; ++i) std::memcpy(packed_keys + (c + i) * kBlock + first, &rows[i], sizeof(IntVector));
                }
            }
        }
    }
};

template <typename T>
inline void fetch_row(const T* row, int width) {
    for (int c = 0; c < width; c += 64 / int{sizeof(T)}) prefetch(row + c);
}

// scores[r][t] = query row r . key t for kRows rows, from packed keys.
template <typename T, int kRows>
inline void multiply_packed_keys(const Factor<T>* query, const Factor<T>* keys, int width, float* scores) {
    FloatVector sums[kRows][kBlockVectors] = {};
    for (int c = 0; c < width; c += kInPairs<T> ? 2 : 1) {
        if constexpr (kInPairs<T>) {
#if defined(__AVX512BF16__)
            IntVector key;
            std::memcpy(&key, keys + c * kBlock, sizeof key);
            for (int r = 0; r < kRows; ++r) sums[r][0] = dot_pairs(sums[r][0], splat_pair(query + r * width + c), key);
#endif
        } else {
            for (int j = 0; j < kBlockVectors; ++j) {
                const FloatVector key = load(keys + c * kBlock + j * kLanes);
                for (int r = 0; r < kRows; ++r) sums[r][j] += query[r * width + c] * key;
            }
        }
    }
    for (int r = 0; r < kRows; ++r)
        for (int j = 0; j < kBlockVectors; ++j) store(scores + r * kBlock + j * kLanes, sums[r][j]);
}

// The same from keys as they lie, for so few rows that packing would cost more than it saves. The rows of a
// later block are fetched meanwhile: in the order of their addresses, which the processor's own prefetching follows, and
// a few at a time, because all at once they would wait for each other.
template <typename T, int kRows>
inline void multiply_keys(const Factor<T>* query, const T* const* keys, const T* const* next, int width, float* scores) {
    for (int t = 0; t < kBlock; t += 4) {
        FloatVector sums[kRows][4] = {};
        if (next)
            for (int i = 0; i < 4; ++i) fetch_row(next[t + i], width);
        for (int c = 0; c < width; c += kInPairs<T> ? 2 * kLanes : kLanes) {
            if constexpr (kInPairs<T>) {
#if defined(__AVX512BF16__)
                IntVector key[4];
                for (int i = 0; i < 4; ++i) std::memcpy(&key[i], keys[t + i] + c, sizeof(IntVector));
                for (int r = 0; r < kRows; ++r) {
                    IntVector row;
                    std::memcpy(&row, query + r * width + c, sizeof row);
                    for (int i = 0; i < 4; ++i) sums[r][i] = dot_pairs(sums[r][i], row, key[i]);
                }
#endif
            } else {
                FloatVector key[4];
                for (int i = 0; i < 4; ++i) key[i] = load(keys[t + i] + c);
                for (int r = 0; r < kRows; ++r)
                    for (int i = 0; i < 4; ++i) sums[r][i] += load(query + r * width + c) * key[i];
            }
        }
        for (int r = 0; r < kRows; ++r) store_horizontal_sums(sums[r][0], sums[r][1], sums[r][2], sums[r][3], scores + r * kBlock + t);
    }
}

// sums[r] += the weighted sum of kVectors vectors of the values from channel c on, for kRows rows. The block is summed by
// itself: terms that would vanish beside the sum of a long context add up first.
template <typename T, int kRows, int kVectors>
inline void add_values(const Factor<T>* weights, const T* const* values, const T* const* next, int c, int width, float* sums) {
    FloatVector acc[kRows][kVectors] = {};
    constexpr int kStep = kInPairs<T> ? 2 : 1;
    for (int t = 0; t < kBlock; t += kStep) {
        if (next && c == 0)
            for (int i = 0; i < kStep; ++i) fetch_row(next[t + i], width);
        if constexpr (kInPairs<T>) {
#if defined(__AVX512BF16__)
            IntVector value[kVectors];
#pragma GCC unroll 4
            for (int j = 0; j < kVectors; j += 2) {
                const int channel = c + j * kLanes;
                pair_up(values[t] + channel, values[t + 1] + channel, &value[j]);
            }
#pragma GCC unroll 16
            for (int r = 0; r < kRows; ++r) {
                const IntVector weight = splat_pair(weights + r * kBlock + t);
#pragma GCC unroll 4
                for (int j = 0; j < kVectors; ++j) acc[r][j] = dot_pairs(acc[r][j], weight, value[j]);
            }
#endif
        } else {
            FloatVector value[kVectors];
#pragma GCC unroll 4
            for (int j = 0; j < kVectors; ++j) value[j] = load(values[t] + c + j * kLanes);
#pragma GCC unroll 16
            for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
                for (int j = 0; j < kVectors; ++j) acc[r][j] += weights[r * kBlock + t] * value[j];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; ++j) store(sums + r * width + c + j * kLanes, load(sums + r * width + c + j * kLanes) + acc[r][j]);
}

template <typename T, int kRows>
inline void add_values(const Factor<T>* weights, const T* const* values, const T* const* next, int width, float* sums) {
    constexpr int kVectors = kLanes == 16 && kRows <= 6 ? 4 : 2;
    int c = 0;
    for (; c + kVectors * kLanes <= width; c += kVectors * kLanes) add_values<T, kRows, kVectors>(weights, values, next, c, width, sums);
    for (; c < width; c += 2 * kLanes) add_values<T, kRows, 2>(weights, values, next, c, width, sums);
}

// The running softmax of the query rows of one KV head: `rows` rows of `width` channels.
template <typename T>
struct HeadTile {
    const Factor<T>* query;  // [rows][width], zero-padded
    float* sums;             // [rows][width], sum of weight * value; see sum_position
    float* denominators;     // [rows][kLanes], to be added up
    float* maxima;           // [rows], base-2 exponents, rounded up to even ones (modes online and lazy)
    const float* shifts;     // [rows], base-2 exponents, rounded to even ones (mode unified)
    int rows, width;

    void clear() {
        std::fill(sums, sums + rows * width, 0.0f);
        std::fill(denominators, denominators + rows * kLanes, 0.0f);
        std::fill(maxima, maxima + rows, -kInfinity);
    }

    // Takes in sixteen keys, of which row r sees those from first[r] up to last[r] (relative to the block).
    void add(const KeyBlock<T>& block, const ScoreMap& map, SoftmaxMode mode, const int* first, const int* last) {
        for (int r = 0; r < rows;) {
            const int count = std::min(rows - r, block.is_packed ? kRowTile : kFewRows);
            // Rows stand in the order of their positions: the last one sees most.
            if (last[r + count - 1] > 0) dispatch<1>(count, block, map, mode, first, last, r);
            r += count;
        }
    }

  private:
    template <int kRows>
    void dispatch(int count, const KeyBlock<T>& block, const ScoreMap& map, SoftmaxMode mode, const int* first, const int* last, int r) {
        if constexpr (kRows < kRowTile) {
            if (count > kRows) return dispatch<kRows + 1>(count, block, map, mode, first, last, r);
        }
        add_rows<kRows>(block, map, mode, first, last, r);
    }

    template <int kRows>
    void add_rows(const KeyBlock<T>& block, const ScoreMap& map, SoftmaxMode mode, const int* first, const int* last, int r) {
        alignas(64) float scores[kRows * kBlock];
        alignas(64) Factor<T> weights[kRows * kBlock];
        // The first rows fetch for all.
        const T* const* next_keys = r == 0 ? block.next_keys : nullptr;
        const T* const* next_values = r == 0 ? block.next_values : nullptr;
        if (kRows > kFewRows || block.is_packed) {
            multiply_packed_keys<T, kRows>(query + r * width, block.packed_keys, width, scores);
        } else {
            multiply_keys<T, std::min(kRows, kFewRows)>(query + r * width, block.keys, next_keys, width, scores);
        }
        for (int i = 0; i < kRows; ++i) exponentiate(scores + i * kBlock, weights + i * kBlock, map, mode, first[r + i], last[r + i], r + i);
        add_values<T, kRows>(weights, block.values, next_values, width, sums + r * width);
    }

    // Scores of one row to weights; the row's denominator grows by the weights as they were rounded.
    __attribute__((always_inline)) void exponentiate(const float* scores, Factor<T>* weights, const ScoreMap& map, SoftmaxMode mode, int first, int last, int r) {
        FloatVector x[kBlockVectors];
        for (int j = 0; j < kBlockVectors; ++j) x[j] = map(load(scores + j * kLanes));
        if (first > 0 || last < kBlock) hide(x, first, last);
        float shift = mode == SoftmaxMode::kUnified ? shifts[r] : running_maximum(x, mode, r);
        // Nothing seen yet: any finite shift makes zeros of minus infinities.
        if (shift == -kInfinity) shift = 0;
        FloatVector sum{};
        for (int j = 0; j < kBlockVectors; ++j) {
            store(weights + j * kLanes, exp2(x[j], shift));
            sum += load(weights + j * kLanes);
        }
        store(denominators + r * kLanes, load(denominators + r * kLanes) + sum);
    }

    static void hide(FloatVector* x, int first, int last) {
        const IntVector index = lane_indices();
        for (int j = 0; j < kBlockVectors; ++j) {
            const IntVector seen = (index >= first - j * kLanes) & (index < last - j * kLanes);
            x[j] = seen ? x[j] : splat(-kInfinity);
        }
    }

    float running_maximum(const FloatVector* x, SoftmaxMode mode, int r) {
        FloatVector largest = x[0];
        for (int j = 1; j < kBlockVectors; ++j) largest = maximum(largest, x[j]);
        // Subtracting an integer is exact, and so is rescaling by a power of two; an even one leaves exp2's ties alone too.
        // Thus the shift changes no bit of the result, and the modes agree.
        const float found = 2 * std::ceil(horizontal_max(largest) / 2);
        const float allowed = mode == SoftmaxMode::kLazy ? kLazyThreshold : 0.0f;
        if (found > maxima[r] + allowed) {
            rescale(r, exp2(splat(maxima[r] - found))[0]);
            maxima[r] = found;
        }
        return maxima[r];
    }

    void rescale(int r, float factor) {
        for (int c = 0; c < width; c += kLanes) store(sums + r * width + c, load(sums + r * width + c) * factor);
        store(denominators + r * kLanes, load(denominators + r * kLanes) * factor);
    }
};

}  // namespace lapidist
