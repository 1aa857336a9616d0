// A row of keys or values to codes: bit for bit what lapidist.kernels.kv_quantization.quantize_kv computes.
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

inline float16 to_float16(float x) {
    float16 value;
    from_float(x, &value);
    return value;
}

// The parameters of a row: a channel is (code - zero) * scale.
struct RowScale {
    float16 scale, zero;

    RowScale(const RowRange& range, int levels) {
        constexpr float kMost = 65504.0f;  // of a float16
        // Finer than a float16 can tell the row's largest magnitude from its neighbours, steps are of no use.
        constexpr float kFinest = 0x1p-11f;
        if (!range.is_finite) {
            scale = zero = float16{0x7e00};
        } else if (range.least == range.most) {
            scale = to_float16(std::min(std::max(range.least, -kMost), kMost));
            zero = to_float16(-1.0f);
        } else {
            const float magnitude = std::max(-range.least, range.most);
            const float wanted = std::min(std::max((range.most - range.least) / static_cast<float>(levels), magnitude * kFinest), kMost);
            scale = to_float16(wanted);
            if (to_float(scale) < wanted) ++scale.bits;  // upwards, so that the codes reach from end to end
            zero = to_float16(std::min(std::max((0.0f - range.least) / to_float(scale), -kMost), kMost));
        }
    }
};

// Quantizes a row of numbers of type T into a slot of a page.
template <typename T>
struct QuantizeRow {
    QuantizedPage layout;

    int64_t page_bytes() const { return layout.bytes(); }

    void operator()(const char* row, char* page, int slot) const {
        static thread_local Scratch memory;
        const int width = (layout.head_dim + kLanes - 1) / kLanes * kLanes, levels = (1 << layout.bits) - 1;
        float* x = memory.reserve<float>(2 * width);
        uint32_t* codes = reinterpret_cast<uint32_t*>(x + width);
        for (int c = 0; c < layout.head_dim; ++c) {
            T number;
            std::memcpy(&number, row + c * sizeof(T), sizeof(T));
            x[c] = to_float(number);
        }
        std::fill(x + layout.head_dim, x + width, x[0]);
        const RowScale parameters(range_of(x, width), levels);
        const float scale = to_float(parameters.scale), zero = to_float(parameters.zero);
        for (int c = 0; c < width; c += kLanes) {
            FloatVector code = load(x + c) / scale + zero;
            // NaN where all is NaN or zero: the code does not matter.
            code = code > 0.0f ? code : splat(0);
            code = code < static_cast<float>(levels) ? code : splat(levels);
            // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even; it then stands in the low bits.
            const IntVector bits = reinterpret_cast<IntVector>(code + 12582912.0f) - 0x4b400000;
            std::memcpy(codes + c, &bits, sizeof bits);
        }
        pack(codes, page + layout.code_offset(slot));
        std::memcpy(page + layout.scale_offset(slot), &parameters.scale, sizeof parameters.scale);
        std::memcpy(page + layout.zero_offset(slot), &parameters.zero, sizeof parameters.zero);
    }

  private:
    void pack(const uint32_t* codes, char* target) const {
        const int words = layout.words();
        for (int j = 0; j < words; ++j, target += 2) {
            uint32_t word = 0;
            for (int part = 0; part < 16 / layout.bits; ++part) word |= codes[part * words + j] << part * layout.bits;
            const uint16_t packed = static_cast<uint16_t>(word);
            std::memcpy(target, &packed, sizeof packed);
        }
    }
};

}  // namespace lapidist
