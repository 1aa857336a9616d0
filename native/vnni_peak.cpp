// How fast the processor multiplies bytes when nothing is loaded or stored: what quantized layers are measured against.
#include <omp.h>

#include <algorithm>

#include "int8_dot.h"
#include "kernels.h"

namespace lapidist {
namespace {

template <typename... Accumulators>
inline void multiply(IntVector weight, IntVector x, Accumulators&... accumulators) {
    ((accumulators = dot_bytes<255>(accumulators, weight, x)), ...);
}

}  // namespace

int64_t vnni_peak(int64_t rounds, int threads) {
    int64_t total = 0;
#pragma omp parallel num_threads(std::max(1, threads)) reduction(+ : total)
    {
        // Named, for an array may end up in memory; and different, or the compiler keeps one of them.
        const IntVector zero{};
        IntVector a = zero + 1, b = zero + 2, c = zero + 3, d = zero + 4, e = zero + 5, f = zero + 6;
        IntVector g = zero + 7, h = zero + 8, i = zero + 9, j = zero + 10, k = zero + 11, l = zero + 12;
        IntVector weight = zero + 0x01020304, x = zero + 0x04030201;
        for (int64_t round = 0; round < rounds; ++round) {
#if defined(__x86_64__)
            asm volatile("" : "+v"(weight), "+v"(x));  // as if they were new in every round
#endif
            multiply(weight, x, a, b, c, d, e, f, g, h, i, j, k, l);
        }
        const IntVector all = (a ^ b ^ c) + (d ^ e ^ f) + (g ^ h ^ i) + (j ^ k ^ l);
        for (int lane = 0; lane < kLanes; ++lane) total += all[lane];
    }
    return total;
}

}  // namespace lapidist
