// Vectors of 32-bit lanes as wide as the instruction set that this file is compiled for, by GCC's vector extensions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lapidist {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

#if defined(__AVX512BF16__)
constexpr bool kHasBf16Dot = true;
#else
constexpr bool kHasBf16Dot = false;
#endif

typedef float FloatVector __attribute__((vector_size(4 * kLanes)));
typedef int32_t IntVector __attribute__((vector_size(4 * kLanes)));
typedef uint32_t WordVector __attribute__((vector_size(4 * kLanes)));

struct bfloat16 {
    uint16_t bits;
};
struct float16 {
    uint16_t bits;
};

// What numbers of a type are multiplied as: pairs of bfloat16 where the processor has that product, else floats.
template <typename T>
constexpr bool kInPairs = kHasBf16Dot && std::is_same_v<T, bfloat16>;
template <typename T>
using Factor = std::conditional_t<kInPairs<T>, bfloat16, float>;

inline float to_float(float x) { return x; }
inline float to_float(bfloat16 x) {
    const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline float to_float(float16 x) {
    _Float16 value;
    std::memcpy(&value, &x, 2);
    return static_cast<float>(value);
}

inline void from_float(float x, float* out) { *out = x; }
inline void from_float(float x, bfloat16* out) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    // To nearest, ties to even; the addition would turn some NaNs into infinities.
    out->bits = is_nan ? static_cast<uint16_t>((bits >> 16) | 0x40) : static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
inline void from_float(float x, float16* out) {
    const _Float16 value = static_cast<_Float16>(x);
    std::memcpy(out, &value, 2);
}

inline FloatVector splat(float x) { return FloatVector{} + x; }

inline FloatVector load(const float* p) {
    FloatVector v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

inline FloatVector load(const bfloat16* p) {
#if defined(__AVX512F__)
    return reinterpret_cast<FloatVector>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
#elif defined(__AVX2__)
    return reinterpret_cast<FloatVector>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
#else
    typedef uint16_t Half __attribute__((vector_size(2 * kLanes)));
    typedef uint32_t Word __attribute__((vector_size(4 * kLanes)));
    Half half;
    std::memcpy(&half, p, sizeof half);
    const Word word = __builtin_convertvector(half, Word) << 16;
    return reinterpret_cast<FloatVector>(word);
#endif
}

inline FloatVector load(const float16* p) {
#if defined(__AVX512F__)
    return reinterpret_cast<FloatVector>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__F16C__)
    return reinterpret_cast<FloatVector>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
    FloatVector v;
    for (int i = 0; i < kLanes; ++i) v[i] = to_float(p[i]);
    return v;
#endif
}

inline void store(float* p, FloatVector v) { std::memcpy(p, &v, sizeof v); }

// To nearest, ties to even. Where the processor rounds, denormals become zero.
inline void store(bfloat16* p, FloatVector v) {
#if defined(__AVX512BF16__)
    const __m256bh rounded = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(v));
    std::memcpy(p, &rounded, sizeof rounded);
#else
    typedef uint16_t Half __attribute__((vector_size(2 * kLanes)));
    const IntVector bits = reinterpret_cast<IntVector>(v);
    const IntVector rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    // The addition would turn some NaNs into infinities.
    const Half half = __builtin_convertvector(v == v ? rounded : (bits >> 16) | 0x40, Half);
    std::memcpy(p, &half, sizeof half);
#endif
}

inline void store(float16* p, FloatVector v) {
#if defined(__AVX512F__)
    const __m256i half = _mm512_cvtps_ph(reinterpret_cast<__m512>(v), _MM_FROUND_TO_NEAREST_INT);
    std::memcpy(p, &half, sizeof half);
#elif defined(__F16C__)
    const __m128i half = _mm256_cvtps_ph(reinterpret_cast<__m256>(v), _MM_FROUND_TO_NEAREST_INT);
    std::memcpy(p, &half, sizeof half);
#else
    for (int i = 0; i < kLanes; ++i) from_float(v[i], p + i);
#endif
}

inline IntVector lane_indices() {
    IntVector index;
    for (int i = 0; i < kLanes; ++i) index[i] = i;
    return index;
}

inline FloatVector maximum(FloatVector a, FloatVector b) { return a > b ? a : b; }

inline float horizontal_sum(FloatVector v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(reinterpret_cast<__m512>(v));
#else
    float sum = 0;
    for (int i = 0; i < kLanes; ++i) sum += v[i];
    return sum;
#endif
}

// The sums of four vectors, of which those of a wide vector are still to be added up over its 128-bit lanes.
#if defined(__AVX512F__)
typedef FloatVector FourSums;

inline FourSums sum_four(FloatVector a, FloatVector b, FloatVector c, FloatVector d) {
    const auto zip = [](FloatVector x, FloatVector y) {
        const __m512 first = reinterpret_cast<__m512>(x), second = reinterpret_cast<__m512>(y);
        return _mm512_add_ps(_mm512_unpacklo_ps(first, second), _mm512_unpackhi_ps(first, second));
    };
    const __m512d ab = _mm512_castps_pd(zip(a, b)), cd = _mm512_castps_pd(zip(c, d));
    return reinterpret_cast<FourSums>(_mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd))));
}

inline void store_four(FourSums sums, float* target) {
    const __m512 quads = reinterpret_cast<__m512>(sums);
    const __m256 halves = _mm256_add_ps(_mm512_castps512_ps256(quads), _mm512_extractf32x8_ps(quads, 1));
    _mm_storeu_ps(target, _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1)));
}

// In one store: a load of a whole vector would wait for several.
inline void store_sixteen(const FourSums (&sums)[4], float* target) {
    const auto fold = [](FourSums x, FourSums y) {
        const __m512 first = reinterpret_cast<__m512>(x), second = reinterpret_cast<__m512>(y);
        return _mm512_add_ps(_mm512_shuffle_f32x4(first, second, 0x44), _mm512_shuffle_f32x4(first, second, 0xee));
    };
    const __m512 first = fold(sums[0], sums[1]), second = fold(sums[2], sums[3]);
    _mm512_storeu_ps(target, _mm512_add_ps(_mm512_shuffle_f32x4(first, second, 0x88), _mm512_shuffle_f32x4(first, second, 0xdd)));
}
#else
struct FourSums {
    float sums[4];
};

inline FourSums sum_four(FloatVector a, FloatVector b, FloatVector c, FloatVector d) {
    return {{horizontal_sum(a), horizontal_sum(b), horizontal_sum(c), horizontal_sum(d)}};
}

inline void store_four(const FourSums& sums, float* target) { std::memcpy(target, &sums, sizeof sums); }

inline void store_sixteen(const FourSums (&sums)[4], float* target) { std::memcpy(target, &sums, sizeof sums); }
#endif

inline void store_horizontal_sums(FloatVector a, FloatVector b, FloatVector c, FloatVector d, float* target) {
    store_four(sum_four(a, b, c, d), target);
}

inline float horizontal_max(FloatVector v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps(reinterpret_cast<__m512>(v));
#else
    float best = v[0];
    for (int i = 1; i < kLanes; ++i) best = v[i] > best ? v[i] : best;
    return best;
#endif
}

// 2^(x - shift) to 1.5 units in the last place, for an integral shift up to a million: x - shift itself is never rounded.
// Infinity where it exceeds 128, zero below -150, NaN for NaN.
__attribute__((always_inline)) inline FloatVector exp2(FloatVector x, float shift = 0) {
#if defined(__AVX512F__)
    x = reinterpret_cast<FloatVector>(_mm512_min_ps(_mm512_set1_ps(shift + 252.0f), reinterpret_cast<__m512>(x)));
    x = reinterpret_cast<FloatVector>(_mm512_max_ps(_mm512_set1_ps(shift - 252.0f), reinterpret_cast<__m512>(x)));
#else
    x = x > shift + 252.0f ? splat(shift + 252.0f) : x;
    x = x < shift - 252.0f ? splat(shift - 252.0f) : x;
#endif
    // Adding 1.5 * 2^23 rounds to the nearest integer, which then stands in the low bits.
    const float magic = 12582912.0f - shift;
    const FloatVector rounded = x + magic;
    const FloatVector f = x - (rounded - magic);
    // (2^f - 1) / f on [-0.5, 0.5], fitted for the least largest relative error of 2^f.
    FloatVector p = splat(1.5353414e-4f);
    p = p * f + 1.3398881e-3f;
    p = p * f + 9.6184369e-3f;
    p = p * f + 5.5503324e-2f;
    p = p * f + 2.4022648e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
#if defined(__AVX512F__)
    return reinterpret_cast<FloatVector>(_mm512_scalef_ps(reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(rounded - 12582912.0f)));
#else
    // In two steps, because 2^n alone overflows at n = 128 where the product need not.
    const IntVector n = reinterpret_cast<IntVector>(rounded) - 0x4b400000;
    const IntVector half = n >> 1;
    const FloatVector first = reinterpret_cast<FloatVector>((half + 127) << 23);
    const FloatVector second = reinterpret_cast<FloatVector>((n - half + 127) << 23);
    return p * first * second;
#endif
}

// tanh(x) with an absolute error of some 1e-7.
inline FloatVector tanh(FloatVector x) { return 1.0f - 2.0f / (exp2(x * 2.885390082f) + 1.0f); }

// Interleaves the lanes of two vectors: their first halves, or their second halves.
template <bool kSecond>
inline IntVector interleave(IntVector a, IntVector b) {
#if defined(__AVX512F__)
    return kSecond ? __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
                   : __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif defined(__AVX2__)
    return kSecond ? __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
                   : __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
    return kSecond ? __builtin_shufflevector(a, b, 2, 6, 3, 7) : __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}

// Transposes rows of 32-bit lanes, as many as a vector has lanes; or rows half as long, two of which stand in each vector.
template <int kVectors>
inline void transpose(IntVector (&rows)[kVectors]) {
    static_assert(kVectors == kLanes || 2 * kVectors == kLanes);
    // Each round interleaves vector i with vector i + kVectors / 2.
#pragma GCC unroll 4
    for (int round = 1; round < kLanes; round *= 2) {
        IntVector next[kVectors];
#pragma GCC unroll 8
        for (int i = 0; i < kVectors / 2; ++i) {
            next[2 * i] = interleave<false>(rows[i], rows[i + kVectors / 2]);
            next[2 * i + 1] = interleave<true>(rows[i], rows[i + kVectors / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < kVectors; ++i) rows[i] = next[i];
    }
}

#if defined(__AVX512BF16__)
// acc + the products of 16 pairs of bfloat16.
inline FloatVector dot_pairs(FloatVector acc, IntVector a, IntVector b) {
    return reinterpret_cast<FloatVector>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(acc), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
}

// Two neighbours in every lane.
inline IntVector splat_pair(const bfloat16* p) {
    int32_t pair;
    std::memcpy(&pair, p, 4);
    return IntVector{} + pair;
}

// Pairs (a[c], b[c]) of 32 channels, in the order of lapidist::sum_position.
inline void pair_up(const bfloat16* a, const bfloat16* b, IntVector* pairs) {
    const __m512i first = _mm512_loadu_si512(a), second = _mm512_loadu_si512(b);
    pairs[0] = reinterpret_cast<IntVector>(_mm512_unpacklo_epi16(first, second));
    pairs[1] = reinterpret_cast<IntVector>(_mm512_unpackhi_epi16(first, second));
}
#endif

// Into the second-level cache. GCC takes a function that does nothing else for one without effect and drops calls of it:
// such functions must be inlined always.
__attribute__((always_inline)) inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }

// Into the first-level cache and no other, for what is read once: what the others hold stays, such as the interpreter
// between two layers.
__attribute__((always_inline)) inline void prefetch_once(const void* p) { __builtin_prefetch(p, 0, 0); }

// Into the first-level cache.
inline void prefetch_near(const void* p) { __builtin_prefetch(p, 0, 3); }

}  // namespace lapidist
