// Keys and values in the cache as they are: rows of numbers.
#pragma once

#include <algorithm>

#include "attention_block.h"

namespace lapidist {

constexpr int kAhead = 1;                      // blocks (of one head) between what is computed and what is fetched
constexpr int kFewRows = 4;                    // rows whose sums are in registers at once, where keys are read as they lie
constexpr int kPackFrom = 2 * kFewRows + 1;    // rows from which packing the keys pays

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

    // The tokens of a sequence from `begin` to `end`, for `rows` query rows.
    PlainKeys(const AttentionCall& call, Memory& memory, int sequence, int begin, int end, int rows)
        : call_(call), pages_(call.page_table + sequence * call.page_table_stride), end_(end), width_(query_width(call.head_dim)),
          head_size_(int64_t{call.page_size} * call.head_dim), is_packed_(rows >= kPackFrom) {
        packed_keys_ = memory.packed_keys.reserve<Number>(kBlock * width_);
        padded_rows_ = memory.padded_rows.reserve<T>(2 * kBlock * width_);
        zeros_ = memory.zeros.reserve<T>(width_);
        std::fill(zeros_, zeros_ + width_, T{});
        for (int i = 0; i < kAhead; ++i) locate(begin + i * kBlock, offsets_[i + 1]);
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
        std::memmove(offsets_[0], offsets_[1], kAhead * sizeof offsets_[0]);
        locate(token + kAhead * kBlock, offsets_[kAhead]);
        present_ = std::min(kBlock, end_ - token);
    }

    // Head `first + index`; `count` heads from `first` on are taken in turn.
    void take(int first, int index, int count) {
        // After a block of one head comes that of the next head, after the last one the next block of the first.
        const int later = index + kAhead;
        const int64_t* next = offsets_[later / count];
        const int64_t head = (first + index) * head_size_, next_head = (first + later % count) * head_size_;
        const T* key_pages = static_cast<const T*>(call_.keys);
        const T* value_pages = static_cast<const T*>(call_.values);
        for (int t = 0; t < kBlock; ++t) {
            keys_[t] = t < present_ ? key_pages + head + offsets_[0][t] : zeros_;
            values_[t] = t < present_ ? value_pages + head + offsets_[0][t] : zeros_;
            next_keys_[t] = key_pages + next_head + next[t];
            next_values_[t] = value_pages + next_head + next[t];
        }
        if (width_ != call_.head_dim) pad();
        if (is_packed_) pack();
    }

    int row_tile() const { return is_packed_ ? kRowTile : kFewRows; }

    // The first rows fetch for all.
    template <int kRows>
    void multiply_keys(const Number* query, const float*, bool are_first, float* scores) const {
        if (kRows > kFewRows || is_packed_) {
            multiply_packed_keys<T, kRows>(query, packed_keys_, width_, scores);
        } else {
            lapidist::multiply_keys<T, std::min(kRows, kFewRows)>(query, keys_, are_first ? next_keys_ : nullptr, width_, scores);
        }
    }

    FloatVector weigh(FloatVector weight, int, Number* weights) const {
        store(weights, weight);
        return load(weights);
    }

    template <int kRows>
    void add_values(const Number* weights, bool are_first, float* sums) const {
        lapidist::add_values<T, kRows>(weights, values_, are_first ? next_values_ : nullptr, width_, sums);
    }

  private:
    // Where the rows of sixteen tokens lie, in elements from the first head's start; from the end on, where the first does.
    void locate(int token, int64_t* offsets) const {
        const int64_t page_stride = call_.kv_heads * head_size_;
        int page = token / call_.page_size, slot = token % call_.page_size;
        for (int t = 0; t < kBlock; ++t) {
            offsets[t] = token + t < end_ ? pages_[page] * page_stride + int64_t{slot} * call_.head_dim : t > 0 ? offsets[0] : 0;
            if (++slot == call_.page_size) ++page, slot = 0;
        }
    }

    void pad() {
        T* row = padded_rows_;
        for (const T** pointers : {keys_, values_}) {
            for (int t = 0; t < kBlock; ++t, row += width_) {
                std::copy(pointers[t], pointers[t] + call_.head_dim, row);
                std::fill(row + call_.head_dim, row + width_, T{});
                pointers[t] = row;
            }
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
    T* padded_rows_;  // [2][16][width], for head dimensions that are not whole vectors
    T* zeros_;        // the rows of tokens that are not there
    int64_t offsets_[kAhead + 1][kBlock];  // of this block and those after it
    const T* keys_[kBlock];
    const T* values_[kBlock];
    const T* next_keys_[kBlock];  // what will be read next, to be fetched meanwhile
    const T* next_values_[kBlock];
};

}  // namespace lapidist
