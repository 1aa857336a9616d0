// Rows of 8-bit integers with a scale each, of given rows or of what a normalization or gated activation makes of them.
//
// What is quantized is the float32 that the operator computes: it is never rounded to a 16-bit type on the way.

#include <omp.h>

#include <limits>

#include "element_wise.h"
#include "kernels.h"
#include "scratch.h"

namespace lapidist {
namespace {

// The largest magnitude, infinity and NaN being the largest of all: as integers, the bits of floats are in that order.
float largest(const float* values, int64_t columns) {
    constexpr int32_t kMagnitude = 0x7fffffff;
    IntVector most{};
    int32_t rest = 0;
    for_each(columns,
             [&](int64_t i) {
                 const IntVector bits = reinterpret_cast<IntVector>(load(values + i)) & kMagnitude;
                 most = bits > most ? bits : most;
             },
             [&](int64_t i) {
                 int32_t bits;
                 std::memcpy(&bits, values + i, 4);
                 rest = std::max(rest, bits & kMagnitude);
             });
    for (int i = 0; i < kLanes; ++i) rest = std::max(rest, most[i]);
    float value;
    std::memcpy(&value, &rest, 4);
    return value;
}

// To nearest, ties to even, of numbers up to a million: adding 1.5 * 2^23 leaves the integer in the low bits.
inline IntVector rounded(FloatVector x) { return reinterpret_cast<IntVector>(x + 12582912.0f) - 0x4b400000; }

inline void store_bytes(int8_t* p, IntVector v) {
#if defined(__AVX512F__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(v)));
#else
    for (int i = 0; i < kLanes; ++i) p[i] = static_cast<int8_t>(v[i]);
#endif
}

class RowQuantizer {
  public:
    RowQuantizer(const QuantizedRowsOut& out, int64_t columns) : out_(out), columns_(columns), groups_((columns + kGroupColumns - 1) / kGroupColumns) {}

    void write(const float* values, int64_t row) const {
        int8_t* codes = out_.codes + row * out_.codes_stride;
        int32_t* sums = out_.sums + row * groups_;
        // A scale that is not subnormal: no quotient overflows, and a row of zeros gives zeros.
        const float scale = std::max(largest(values, columns_) / 127.0f, std::numeric_limits<float>::min());
        out_.scales[row] = scale;
        if (!std::isfinite(scale)) {
            // Every product by such a row is NaN.
            out_.scales[row] = std::numeric_limits<float>::quiet_NaN();
            std::fill_n(codes, out_.codes_stride, int8_t{0});
            std::fill_n(sums, groups_, 0);
            return;
        }
        for (int64_t g = 0; g < groups_; ++g) {
            const int64_t first = g * kGroupColumns;
            sums[g] = write_group(values + first, std::min<int64_t>(kGroupColumns, columns_ - first), scale, codes + first);
        }
        std::fill(codes + columns_, codes + out_.codes_stride, int8_t{0});
    }

  private:
    static int32_t write_group(const float* values, int64_t count, float scale, int8_t* codes) {
        IntVector total{};
        int32_t rest = 0;
        for_each(count,
                 [&](int64_t i) {
                     const IntVector code = rounded(load(values + i) / scale);
                     store_bytes(codes + i, code);
                     total += code;
                 },
                 [&](int64_t i) {
                     const int32_t code = rounded(splat(values[i] / scale))[0];
                     codes[i] = static_cast<int8_t>(code);
                     rest += code;
                 });
        for (int i = 0; i < kLanes; ++i) rest += total[i];
        return rest;
    }

    const QuantizedRowsOut& out_;
    const int64_t columns_, groups_;
};

// compute(row, values) gives a row's numbers.
template <typename Compute>
void quantize_each(const QuantizedRowsOut& out, int64_t rows, int64_t columns, int threads, Compute compute) {
    const RowQuantizer quantizer(out, columns);
#pragma omp parallel num_threads(threads_for(rows * columns, threads))
    {
        static thread_local Scratch scratch;
        float* values = scratch.reserve<float>(columns);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; ++row) {
            compute(row, values);
            quantizer.write(values, row);
        }
    }
}

template <typename T>
void quantize(const QuantizeRowsCall& call) {
    quantize_each(call.out, call.rows, call.columns, call.threads, [&](int64_t row, float* values) {
        const T* x = static_cast<const T*>(call.x) + row * call.x_stride;
        for_each(call.columns, [&](int64_t i) { store(values + i, load(x + i)); }, [&](int64_t i) { values[i] = to_float(x[i]); });
    });
}

template <typename T>
void normalize(const QuantizedNormCall& call) {
    quantize_each(call.out, call.rows, call.columns, call.threads, [&](int64_t row, float* values) {
        const T* x = static_cast<const T*>(call.x) + row * call.x_stride;
        const float factor = norm_factor(x, call.columns, call.eps);
        for_each(call.columns, [&](int64_t i) { store(values + i, load(x + i) * factor * load(call.weight + i)); },
                 [&](int64_t i) { values[i] = to_float(x[i]) * factor * call.weight[i]; });
    });
}

template <typename T>
void activate(const QuantizedSiluCall& call) {
    quantize_each(call.out, call.rows, call.columns, call.threads, [&](int64_t row, float* values) {
        const T* gate = static_cast<const T*>(call.gate_up) + row * 2 * call.columns;
        const T* up = gate + call.columns;
        for_each(call.columns, [&](int64_t i) { store(values + i, silu(load(gate + i)) * load(up + i)); },
                 [&](int64_t i) { values[i] = silu(splat(to_float(gate[i])))[0] * to_float(up[i]); });
    });
}

}  // namespace

void quantize_rows(const QuantizeRowsCall& call) {
    switch (call.type) {
        case Type::kBfloat16: return quantize<bfloat16>(call);
        case Type::kFloat16: return quantize<float16>(call);
        default: return quantize<float>(call);
    }
}

void rms_norm_quantized(const QuantizedNormCall& call) {
    switch (call.type) {
        case Type::kBfloat16: return normalize<bfloat16>(call);
        case Type::kFloat16: return normalize<float16>(call);
        default: return normalize<float>(call);
    }
}

void silu_multiply_quantized(const QuantizedSiluCall& call) {
    switch (call.type) {
        case Type::kBfloat16: return activate<bfloat16>(call);
        case Type::kFloat16: return activate<float16>(call);
        default: return activate<float>(call);
    }
}

}  // namespace lapidist
