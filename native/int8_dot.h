// Dot products of small integers within every 32-bit lane, exact on every processor: no step saturates.
#pragma once

#include "simd.h"

namespace lapidist {

// acc + a[0] b[0] + a[1] b[1], of two signed 16-bit integers each. The sum wraps around.
inline IntVector dot_words(IntVector acc, IntVector a, IntVector b) {
#if defined(__AVX512VNNI__)
    return reinterpret_cast<IntVector>(_mm512_dpwssd_epi32(reinterpret_cast<__m512i>(acc), reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__AVX512BW__)
    const __m512i products = _mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b));
    return reinterpret_cast<IntVector>(_mm512_add_epi32(reinterpret_cast<__m512i>(acc), products));
#elif defined(__AVXVNNI__)
    return reinterpret_cast<IntVector>(_mm256_dpwssd_avx_epi32(reinterpret_cast<__m256i>(acc), reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif defined(__AVX2__)
    const __m256i products = _mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b));
    return reinterpret_cast<IntVector>(_mm256_add_epi32(reinterpret_cast<__m256i>(acc), products));
#else
    const IntVector low = (a << 16 >> 16) * (b << 16 >> 16), high = (a >> 16) * (b >> 16);
    return reinterpret_cast<IntVector>(reinterpret_cast<WordVector>(acc) + reinterpret_cast<WordVector>(low) + reinterpret_cast<WordVector>(high));
#endif
}

// acc + the products of four unsigned bytes, none over kMost, and four signed bytes above -128. The sum wraps around.
template <int kMost>
inline IntVector dot_bytes(IntVector acc, IntVector unsigned_bytes, IntVector signed_bytes) {
#if defined(__AVX512VNNI__)
    return reinterpret_cast<IntVector>(
        _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(acc), reinterpret_cast<__m512i>(unsigned_bytes), reinterpret_cast<__m512i>(signed_bytes)));
#elif defined(__AVXVNNI__)
    return reinterpret_cast<IntVector>(
        _mm256_dpbusd_avx_epi32(reinterpret_cast<__m256i>(acc), reinterpret_cast<__m256i>(unsigned_bytes), reinterpret_cast<__m256i>(signed_bytes)));
#else
#if defined(__AVX2__)
    // Two products fit into the 16 bits of an intermediate sum.
    if constexpr (2 * kMost * 127 <= INT16_MAX) {
#if defined(__AVX512BW__)
        const __m512i pairs = _mm512_maddubs_epi16(reinterpret_cast<__m512i>(unsigned_bytes), reinterpret_cast<__m512i>(signed_bytes));
#else
        const __m256i pairs = _mm256_maddubs_epi16(reinterpret_cast<__m256i>(unsigned_bytes), reinterpret_cast<__m256i>(signed_bytes));
#endif
        return dot_words(acc, reinterpret_cast<IntVector>(pairs), IntVector{} + 0x00010001);
    }
#endif
    // Even bytes and odd bytes as 16-bit integers.
    typedef int16_t Words __attribute__((vector_size(4 * kLanes)));
    const IntVector even = unsigned_bytes & 0x00ff00ff, odd = unsigned_bytes >> 8 & 0x00ff00ff;
    const Words factors = reinterpret_cast<Words>(signed_bytes);
    acc = dot_words(acc, even, reinterpret_cast<IntVector>(factors << 8 >> 8));
    return dot_words(acc, odd, reinterpret_cast<IntVector>(factors >> 8));
#endif
}

// Bytes, one in a lane.
inline IntVector widen(const uint8_t* p) {
#if defined(__AVX512F__)
    return reinterpret_cast<IntVector>(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
    return reinterpret_cast<IntVector>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
    IntVector v;
    for (int i = 0; i < kLanes; ++i) v[i] = p[i];
    return v;
#endif
}

inline IntVector widen(const int8_t* p) {
#if defined(__AVX512F__)
    return reinterpret_cast<IntVector>(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
    return reinterpret_cast<IntVector>(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
    IntVector v;
    for (int i = 0; i < kLanes; ++i) v[i] = p[i];
    return v;
#endif
}

// Four neighbouring bytes in every lane.
inline IntVector splat_bytes(const int8_t* p) {
    int32_t bytes;
    std::memcpy(&bytes, p, 4);
    return IntVector{} + bytes;
}

}  // namespace lapidist
