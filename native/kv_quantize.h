// A row of keys or values to codes: bit for bit what lapidist.kernels.kv_quantization.quantize_kv computes. For that,
// CMakeLists.txt keeps the compiler from contracting products and sums.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "quantized_page.h"
#include "scratch.h"
#include "simd.h"

namespace lapidist {

struct RowRange {
    float least, most;
    bool is_finite;
};

// Of `count` numbers, a multiple of the lanes.
inline RowRange range_of(const float* row, int count) {
    FloatVector least = load(row), most = least, rest{};
    for (int c = 0; c < count; c += kLanes) {
        const FloatVector x = load(row + c);
        least = x < least ? x : least;
        most = x > most ? x : most;
        rest += x - x;  // NaN for what is not finite
    }
    // Adding zero leaves one zero of the two.
    return {-horizontal_max(-least) + 0.0f, horizontal_max(most) + 0.0f, horizontal_sum(rest) == 0};
}

// The parameters of a row, and what a channel is multiplied by and moved by to be a code.
struct RowGrid {
    float16 scale;
    uint8_t zero;
    float factor, offset;

    RowGrid(float16 scale, float zero, float zero_steps)
        : scale(scale), zero(static_cast<uint8_t>(zero)), factor(1.0f / to_float(scale)), offset(zero / zero_steps) {}
};

// Quantizes numbers of type T into a row of a page.
template <typename T>
class QuantizeRow {
  public:
    explicit QuantizeRow(const QuantizedPage& layout) : layout_(layout), levels_(static_cast<float>((1 << layout.bits) - 1)) {}

    int64_t page_bytes() const { return layout_.bytes(); }

    void operator()(const char* numbers, char* page, int row) const {
        static thread_local Scratch memory;
        const int head_dim = layout_.head_dim, width = (head_dim + kSums - 1) / kSums * kSums;
        float* x = memory.reserve<float>(2 * width);
        uint32_t* codes = reinterpret_cast<uint32_t*>(x + width);
        for (int c = 0; c < head_dim; ++c) {
            T number;
            std::memcpy(&number, numbers + c * sizeof(T), sizeof(T));
            x[c] = to_float(number);
        }
        std::fill(x + head_dim, x + width, x[0]);
        const RowGrid grid = choose(x, range_of(x, width));
        for (int c = 0; c < width; c += kLanes) {
            const IntVector bits = reinterpret_cast<IntVector>(rounding(load(x + c), grid)) - 0x4b400000;
            std::memcpy(codes + c, &bits, sizeof bits);
        }
        pack(codes, page + layout_.code_offset(row));
        std::memcpy(page + layout_.scale_offset(row), &grid.scale, sizeof grid.scale);
        std::memcpy(page + layout_.zero_offset(row), &grid.zero, sizeof grid.zero);
    }

  private:
    static constexpr int kSums = 16;           // squares are added up in so many sums, whatever the lanes
    static constexpr float kMost = 65504.0f;   // of a float16
    static constexpr float kLeast = 0x1p-24f;  // the same, above zero

    RowGrid choose(const float* x, const RowRange& range) const {
        if (!range.is_finite) return {float16{0x7e00}, 0, 1};
        // Every code is one.
        if (range.least == range.most) return {to_float16(std::min(std::max(range.least, -kMost), kMost)), 0, 1};
        const float bottom = std::min(range.least, 0.0f), top = std::max(range.most, 0.0f);
        RowGrid best = grid(bottom, top);
        if (layout_.bits == 8) return best;
        // Half a step that an end gives up costs its own channel no more than rounding may, and makes all steps finer.
        const float half_step = 0.5f * std::min((top - bottom) / levels_, kMost);
        const float raised = std::min(bottom + half_step, 0.0f), lowered = std::max(top - half_step, 0.0f);
        float least = error(x, best);
        for (const RowGrid& other : {grid(bottom, lowered), grid(raised, top), grid(raised, lowered)}) {
            const float own = error(x, other);
            if (own < least) least = own, best = other;
        }
        return best;
    }

    // Codes from end to end.
    RowGrid grid(float bottom, float top) const {
        const float wanted = std::min(std::max((top - bottom) / levels_, kLeast), kMost);
        float16 scale = to_float16(wanted);
        if (to_float(scale) < wanted) ++scale.bits;  // upwards, so that they do reach
        const float steps = layout_.zero_steps(), zero = -bottom * (1.0f / to_float(scale)) * steps;
        return {scale, std::nearbyint(std::min(zero, 255.0f)), steps};
    }

    static float16 to_float16(float x) {
        float16 value;
        from_float(x, &value);
        return value;
    }

    // Codes plus 1.5 * 2^23: the addition rounds to the nearest integer, ties to even, which then stands in the low bits.
    FloatVector rounding(FloatVector x, const RowGrid& grid) const {
        FloatVector code = x * grid.factor + grid.offset;
        // NaN where all is NaN or zero: the code does not matter.
        code = code > 0.0f ? code : splat(0);
        code = code < levels_ ? code : splat(levels_);
        return code + 12582912.0f;
    }

    // The sum of squares.
    float error(const float* x, const RowGrid& grid) const {
        FloatVector sums[kSums / kLanes]{};
        for (int c = 0; c < layout_.head_dim; c += kSums) {
#pragma GCC unroll 4
            for (int j = 0; j < kSums / kLanes; ++j) {
                const FloatVector own = load(x + c + j * kLanes);
                const FloatVector off = own * grid.factor + grid.offset - (rounding(own, grid) - 12582912.0f);
                sums[j] += lane_indices() < layout_.head_dim - c - j * kLanes ? off * off : splat(0);
            }
        }
        float parts[kSums];
        std::memcpy(parts, sums, sizeof parts);
        for (int half = kSums / 2; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) parts[i] += parts[i + half];
        return to_float(grid.scale) * to_float(grid.scale) * parts[0];
    }

    void pack(const uint32_t* codes, char* target) const {
        const int words = layout_.words();
        for (int j = 0; j < words; ++j, target += 2) {
            uint32_t word = 0;
            for (int part = 0; part < 16 / layout_.bits; ++part) word |= codes[part * words + j] << part * layout_.bits;
            const uint16_t packed = static_cast<uint16_t>(word);
            std::memcpy(target, &packed, sizeof packed);
        }
    }

    QuantizedPage layout_;
    float levels_;
};

}  // namespace lapidist
