// Keys and values in the cache as they are: rows of numbers.
#pragma once

#include <algorithm>

#include "attention_block.h"

namespace lapidist {

constexpr int kFewRows = 4;                    // rows whose sums are in registers at once, where keys are read as they lie
constexpr int kPackFrom = 2 * kFewRows + 1;    // rows from which packing the keys pays

// What is read next is fetched while something else is computed: in the order of its addresses, which the processor's own
// prefetching follows, and a few cache lines at a time, because all at once they would wait for each other. They go to the
// first-level cache: from the second one, rows that are read side by side stream at half the memory's speed.
struct Fetch {
    const char* next;  // null: nothing is fetched

    void advance(int bytes) {
        if (next == nullptr) return;
        for (int i = 0; i < bytes; i += 64) prefetch_near(next + i);
        next += bytes;
    }
};

// scores[r][t] = query row r . key t for kRows rows, from packed keys.
template <typename T, int kRows>
inline void multiply_packed_keys(const Factor<T>* query, const Factor<T>* keys, Fetch later, int width, float* scores) {
    constexpr int kStep = kInPairs<T> ? 2 : 1;
    FloatVector sums[kRows][kBlockVectors] = {};
    for (int c = 0; c < width; c += kStep) {
        later.advance(kBlock * kStep * int{sizeof(T)});
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

// The same from keys as they lie, for so few rows that packing would cost more than it saves.
template <typename T, int kRows>
inline void multiply_keys(const Factor<T>* query, const T* const* keys, Fetch later, int width, float* scores) {
    constexpr int kStep = kInPairs<T> ? 2 * kLanes : kLanes;
    FourSums found[kRows][kBlock / 4];
    for (int t = 0; t < kBlock; t += 4) {
        FloatVector sums[kRows][4] = {};
        for (int c = 0; c < width; c += kStep) {
            later.advance(4 * kStep * int{sizeof(T)});
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
        for (int r = 0; r < kRows; ++r) found[r][t / 4] = sum_four(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
    }
    for (int r = 0; r < kRows; ++r) store_sixteen(found[r], scores + r * kBlock);
}

// sums[r] += the weighted sum of kVectors vectors of the values from channel c on, for kRows rows. The block is summed by
// itself: terms that would vanish beside the sum of a long context add up first.
template <typename T, int kRows, int kVectors>
inline void add_values(const Factor<T>* weights, const T* const* values, Fetch& later, int c, int width, float* sums) {
    FloatVector acc[kRows][kVectors] = {};
    constexpr int kStep = kInPairs<T> ? 2 : 1;
    for (int t = 0; t < kBlock; t += kStep) {
        later.advance(kStep * kVectors * kLanes * int{sizeof(T)});
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
inline void add_values(const Factor<T>* weights, const T* const* values, Fetch later, int width, float* sums) {
    constexpr int kVectors = kLanes == 16 && kRows <= 6 ? 4 : 2;
    int c = 0;
    for (; c + kVectors * kLanes <= width; c += kVectors * kLanes) add_values<T, kRows, kVectors>(weights, values, later, c, width, sums);
    for (; c < width; c += 2 * kLanes) add_values<T, kRows, 2>(weights, values, later, c, width, sums);
}

// Of one thread.
struct PlainMemory {
    Scratch packed_keys, padded_rows, zeros;
};

// Sixteen keys and values of one head: where their rows are and, for many query rows, the keys transposed to [width][16] (in
// pairs of channels: [width / 2][16][2]).
template <typename T>
class PlainKeys {
  public:
    using Number = Factor<T>;
    using Memory = PlainMemory;
    static constexpr bool kNeedsQuerySums = false;
    static constexpr bool kInPhases = true;

    // The tokens of a sequence up to `end`, for `rows` query rows.
    PlainKeys(const AttentionCall& call, Memory& memory, int sequence, int, int end, int rows)
        : call_(call), pages_(call.page_table + sequence * call.page_table_stride), end_(end), width_(query_width(call.head_dim)),
          head_size_(int64_t{call.page_size} * call.head_dim), is_packed_(rows >= kPackFrom) {
        packed_keys_ = memory.packed_keys.reserve<Number>(kBlock * width_);
        padded_rows_ = memory.padded_rows.reserve<T>(2 * kBlock * width_);
        zeros_ = memory.zeros.reserve<T>(width_);
        std::fill(zeros_, zeros_ + width_, T{});
    }

    static int query_width(int head_dim) { return (head_dim + 31) / 32 * 32; }
    static int sum_width(int head_dim) { return query_width(head_dim); }

    // Values are paired by interleaving the halves of 128-bit lanes, which leaves each 32 channels as the first fours of
    // eight, then the second ones.
    static int sum_position(int c, int) {
        return kInPairs<T> ? c / 32 * 32 + c % 8 / 4 * 16 + c % 32 / 8 * 4 + c % 4 : c;
    }

    // Blocks follow one another.
    void seek(int token) {
        present_ = std::min(kBlock, end_ - token);
        int page = token / call_.page_size, slot = token % call_.page_size;
        for (int t = 0; t < present_; ++t) {
            offsets_[t] = offset(page, slot);
            if (++slot == call_.page_size) ++page, slot = 0;
        }
        next_offset_ = token + kBlock < end_ ? offset(page, slot) : offsets_[0];
    }

    // Of head `first + index`; `count` heads from `first` on are taken in turn, all their keys and then all their values.
    void take_keys(int first, int index, int count) {
        locate(call_.keys, first + index, keys_, padded_rows_);
        later_ = index + 1 < count ? piece(call_.keys, first + index + 1, offsets_[0]) : piece(call_.values, first, offsets_[0]);
        if (is_packed_) pack();
    }

    void take_values(int first, int index, int count) {
        locate(call_.values, first + index, values_, padded_rows_ + kBlock * width_);
        later_ = index + 1 < count ? piece(call_.values, first + index + 1, offsets_[0]) : piece(call_.keys, first, next_offset_);
    }

    int row_tile() const { return is_packed_ ? kRowTile : kFewRows; }

    // The first rows fetch for all.
    template <int kRows>
    void multiply_keys(const Number* query, const float*, bool are_first, float* scores) const {
        const Fetch later = are_first ? later_ : Fetch{nullptr};
        if (kRows > kFewRows || is_packed_) {
            multiply_packed_keys<T, kRows>(query, packed_keys_, later, width_, scores);
        } else {
            lapidist::multiply_keys<T, std::min(kRows, kFewRows)>(query, keys_, later, width_, scores);
        }
    }

    FloatVector weigh(FloatVector weight, int, Number* weights) const {
        store(weights, weight);
        return load(weights);
    }

    template <int kRows>
    void add_values(const Number* weights, bool are_first, float* sums) const {
        lapidist::add_values<T, kRows>(weights, values_, are_first ? later_ : Fetch{nullptr}, width_, sums);
    }

  private:
    // Where a token lies, in elements from the first head's start.
    int64_t offset(int page, int slot) const {
        return head_size_ * call_.kv_heads * pages_[page] + int64_t{slot} * call_.head_dim;
    }

    const T* at(const void* pages, int head, int64_t offset) const { return static_cast<const T*>(pages) + head * head_size_ + offset; }

    // Sixteen tokens lie side by side; with smaller pages part of the fetching is in vain.
    Fetch piece(const void* pages, int head, int64_t offset) const { return {reinterpret_cast<const char*>(at(pages, head, offset))}; }

    // Where the rows of the block's tokens are; in `padded`, for head dimensions that are not whole vectors.
    void locate(const void* pages, int head, const T** rows, T* padded) const {
        for (int t = 0; t < kBlock; ++t) rows[t] = t < present_ ? at(pages, head, offsets_[t]) : zeros_;
        if (width_ == call_.head_dim) return;
        for (int t = 0; t < kBlock; ++t, padded += width_) {
            std::copy(rows[t], rows[t] + call_.head_dim, padded);
            std::fill(padded + call_.head_dim, padded + width_, T{});
            rows[t] = padded;
        }
    }

    void pack() {
        if constexpr (kInPairs<T>) {
            static_assert(!kInPairs<T> || kLanes == kBlock);
            for (int c = 0; c < width_; c += 2 * kLanes) {
                IntVector rows[kLanes];
#pragma GCC unroll 16
                for (int t = 0; t < kLanes; ++t) std::memcpy(&rows[t], keys_[t] + c, sizeof(IntVector));
                transpose(rows);
#pragma GCC unroll 16
                for (int i = 0; i < kLanes; ++i) std::memcpy(packed_keys_ + (c / 2 + i) * 2 * kBlock, &rows[i], sizeof(IntVector));
            }
        } else {
            for (int c = 0; c < width_; c += kLanes) {
                for (int first = 0; first < kBlock; first += kLanes) {
                    IntVector rows[kLanes];
                    for (int t = 0; t < kLanes; ++t) rows[t] = reinterpret_cast<IntVector>(load(keys_[first + t] + c));
                    transpose(rows);
                    for (int i = 0; i < kLanes; ++i) std::memcpy(packed_keys_ + (c + i) * kBlock + first, &rows[i], sizeof(IntVector));
                }
            }
        }
    }

    const AttentionCall& call_;
    const int32_t* pages_;
    const int end_, width_;
    const int64_t head_size_;
    const bool is_packed_;
    int present_ = 0;
    Number* packed_keys_;
    T* padded_rows_;  // [2][16][width]
    T* zeros_;        // the rows of tokens that are not there
    int64_t offsets_[kBlock] = {};  // of the block's tokens
    int64_t next_offset_ = 0;       // of the first one of the next block
    const T* keys_[kBlock];
    const T* values_[kBlock];
    Fetch later_{nullptr};  // what is read next
};

}  // namespace lapidist
