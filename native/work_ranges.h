// Numbered pieces of work for several threads: each goes through a range of its own in order, so that it reads memory in
// one stream, and helps the others from the ends of theirs when it is done.
#pragma once

#include <omp.h>

#include <atomic>
#include <cstdint>
#include <memory>

namespace lapidist {

class WorkRanges {
  public:
    WorkRanges(uint32_t pieces, int threads) : threads_(threads), ranges_(new Range[threads]) {
        for (int t = 0; t < threads; ++t) {
            const uint64_t begin = uint64_t{pieces} * t / threads, end = uint64_t{pieces} * (t + 1) / threads;
            ranges_[t].value.store(begin << 32 | end, std::memory_order_relaxed);
        }
    }

    // The next piece for a thread, or -1.
    int64_t take(int thread) {
        for (int i = 0; i < threads_; ++i) {
            std::atomic<uint64_t>& range = ranges_[(thread + i) % threads_].value;
            uint64_t seen = range.load(std::memory_order_relaxed);
            while (seen >> 32 < (seen & kEnd)) {
                const uint64_t taken = i == 0 ? seen + kOne : seen - 1;
                if (range.compare_exchange_weak(seen, taken, std::memory_order_relaxed)) return i == 0 ? seen >> 32 : taken & kEnd;
            }
        }
        return -1;
    }

  private:
    static constexpr uint64_t kOne = uint64_t{1} << 32, kEnd = kOne - 1;
    struct alignas(64) Range {  // a cache line each
        std::atomic<uint64_t> value;  // first piece that is left, and the end
    };
    const int threads_;
    const std::unique_ptr<Range[]> ranges_;
};

// Calls work(take) in every thread; take() gives it the next piece, or -1.
template <typename Work>
void share_pieces(int64_t pieces, int threads, Work work) {
    if (threads <= 1) {
        // A region of one thread would cost what 40 KiB of weights take to read.
        int64_t next = 0;
        return work([&] { return next < pieces ? next++ : int64_t{-1}; });
    }
    WorkRanges ranges(static_cast<uint32_t>(pieces), threads);
#pragma omp parallel num_threads(threads)
    work([&] { return ranges.take(omp_get_thread_num()); });
}

}  // namespace lapidist
