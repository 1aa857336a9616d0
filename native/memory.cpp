// Pages of memory, and what reading it costs when nothing else is done.
#include <omp.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>

#include "kernels.h"
#include "simd.h"

namespace lapidist {

void advise_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t kHuge = uintptr_t{2} << 20;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kHuge - 1) / kHuge * kHuge;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / kHuge * kHuge;
    // A wish: where the system declines, small pages serve.
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

double read_memory(const void* data, int64_t bytes, int threads) {
    const float* values = static_cast<const float*>(data);
    constexpr int64_t kStep = 8 * kLanes;
    constexpr int64_t kAhead = 2048;  // as far as the kernels fetch
    constexpr int64_t kChunk = kStep * 1024;
    const int64_t count = bytes / 4 / kStep * kStep;
    double total = 0;
#pragma omp parallel for num_threads(std::max(1, threads)) schedule(dynamic, 4) reduction(+ : total)
    for (int64_t start = 0; start < count; start += kChunk) {
        FloatVector sums[8] = {};
        for (int64_t i = start; i < std::min(start + kChunk, count); i += kStep) {
            for (int j = 0; j < 8; ++j) {
                prefetch(values + i + j * kLanes + kAhead);
                sums[j] += load(values + i + j * kLanes);
            }
        }
        for (int j = 1; j < 8; ++j) sums[0] += sums[j];
        total += horizontal_sum(sums[0]);
    }
    return total;
}

}  // namespace lapidist
