// Keys and values in the cache as codes of four or eight bits. They are multiplied as they are; scale and zero of a token
// come in afterwards, because they are the same for all of its channels:
//
//     score  = sum_c q_c (k_c - zero) scale = scale (sum_c q_c k_c - zero sum_c q_c)
//     output = sum_t w_t (v_t - zero_t) scale_t = sum_t w'_t v_t - sum_t w'_t zero_t,  w'_t = w_t scale_t
#pragma once

#include <algorithm>

#include "attention_block.h"
#include "quantized_page.h"

namespace lapidist {

// Part k of sixteen-bit words, two of which lie in each lane, as pairs of bfloat16; of codes of four bits they are 128 more.
template <int kBits, int k>
inline IntVector code_pairs(IntVector words) {
    typedef uint32_t Word __attribute__((vector_size(4 * kLanes)));
    const Word parts = reinterpret_cast<Word>(words) >> (kBits * k);
    if constexpr (kBits == 4) {
        // The last bits of a bfloat16 from 128 to 256 count ones.
        return reinterpret_cast<IntVector>((parts & 0x000f000fu) | 0x43004300u);
    } else {
        // Codes have no more bits than a bfloat16, so that a float of them ends in sixteen zeros.
        const auto number = [](Word code) { return reinterpret_cast<Word>(__builtin_convertvector(reinterpret_cast<IntVector>(code), FloatVector)); };
        return reinterpret_cast<IntVector>(number(parts & 0xff) >> 16 | number(parts >> 16 & 0xff));
    }
}

// Part k of the lower or the upper sixteen bits of each lane, as floats.
template <int kBits, int k>
inline FloatVector codes(IntVector words, int upper = 0) {
    typedef uint32_t Word __attribute__((vector_size(4 * kLanes)));
    const Word code = reinterpret_cast<Word>(words) >> (kBits * k + 16 * upper) & ((1u << kBits) - 1);
    return __builtin_convertvector(reinterpret_cast<IntVector>(code), FloatVector);
}

// Calls f with the numbers from kFrom to kTo - 1 as types, so that they can choose instructions.
template <int kFrom, int kTo, typename F>
__attribute__((always_inline)) inline void for_each(F&& f) {
    if constexpr (kFrom < kTo) {
        f(std::integral_constant<int, kFrom>{});
        for_each<kFrom + 1, kTo>(f);
    }
}

// One byte in every lane, as a float.
inline FloatVector load_bytes(const uint8_t* p) {
#if defined(__AVX512F__)
    return reinterpret_cast<FloatVector>(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))));
#else
    typedef uint8_t Bytes __attribute__((vector_size(kLanes)));
    Bytes bytes;
    std::memcpy(&bytes, p, sizeof bytes);
    return __builtin_convertvector(bytes, FloatVector);
#endif
}

// One word in every lane.
inline IntVector load_words(const uint8_t* p) {
#if defined(__AVX512F__)
    return reinterpret_cast<IntVector>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#else
    typedef uint16_t Half __attribute__((vector_size(2 * kLanes)));
    Half half;
    std::memcpy(&half, p, sizeof half);
    return __builtin_convertvector(half, IntVector);
#endif
}

// `lanes` 32-bit lanes of each of sixteen rows, to [lanes][16].
inline void transpose_rows(const uint8_t* rows, int lanes, int32_t* target) {
#if defined(__AVX512F__)
    if (lanes == kLanes / 2) {
        // Two rows to a vector.
        IntVector pairs[kLanes / 2];
#pragma GCC unroll 8
        for (int i = 0; i < kLanes / 2; ++i) std::memcpy(&pairs[i], rows + i * sizeof(IntVector), sizeof(IntVector));
        transpose(pairs);
#pragma GCC unroll 8
        for (int i = 0; i < kLanes / 2; ++i) std::memcpy(target + i * kLanes, &pairs[i], sizeof(IntVector));
        return;
    }
    for (int lane = 0; lane < lanes; lane += kLanes) {
        const int count = std::min(kLanes, lanes - lane);
        const __mmask16 there = static_cast<__mmask16>((1u << count) - 1);
        IntVector block[kLanes];
#pragma GCC unroll 16
        for (int t = 0; t < kLanes; ++t) block[t] = reinterpret_cast<IntVector>(_mm512_maskz_loadu_epi32(there, rows + 4 * (t * lanes + lane)));
        transpose(block);
        for (int i = 0; i < count; ++i) std::memcpy(target + (lane + i) * kBlock, &block[i], sizeof(IntVector));
    }
#else
    for (int lane = 0; lane < lanes; ++lane)
        for (int t = 0; t < kBlock; ++t) std::memcpy(target + lane * kBlock + t, rows + 4 * (t * lanes + lane), 4);
#endif
}

// Of one thread.
struct QuantizedMemory {
    Scratch key_lanes, key_rows, value_rows;
};

// Sixteen keys and values of one head. Queries and weights are multiplied as `NumberType`.
template <typename NumberType, int kBits>
class QuantizedKeys {
  public:
    using Number = NumberType;
    using Memory = QuantizedMemory;
    static constexpr bool kNeedsQuerySums = true;
    static constexpr bool kInPhases = false;

    // The tokens of a sequence from `begin` to `end`.
    QuantizedKeys(const AttentionCall& call, Memory& memory, int sequence, int, int end, int)
        : call_(call), page_{call.kv_heads * call.page_size, call.head_dim, kBits}, pages_(call.page_table + sequence * call.page_table_stride), end_(end) {
        const size_t block_bytes = kBlock * page_.row_bytes();
        key_lanes_ = memory.key_lanes.reserve<int32_t>(block_bytes / 4);
        key_rows_ = memory.key_rows.reserve<uint8_t>(block_bytes + kSlack);
        value_rows_ = memory.value_rows.reserve<uint8_t>(block_bytes + kSlack);
    }

    static int query_width(int head_dim) { return (head_dim + kLanes - 1) / kLanes * kLanes; }
    static int sum_width(int head_dim) { return kParts * part_width(head_dim); }
    // The parts of a row, each of whole vectors.
    static int sum_position(int c, int head_dim) {
        const int words = head_dim / kParts;
        return c / words * part_width(head_dim) + c % words;
    }

    // Blocks follow one another.
    void seek(int token) {
        token_ = token;
        present_ = std::min(kBlock, end_ - token);
        here_ = place(token);
        next_ = place(std::min(token + kBlock, end_ - 1));
    }

    // Head `first + index`; `count` heads from `first` on are taken in turn.
    void take(int first, int index, int count) {
        const uint8_t* key_rows = block(static_cast<const uint8_t*>(call_.keys), first + index, key_rows_, &keys_);
        values_ = block(static_cast<const uint8_t*>(call_.values), first + index, value_rows_, &value_parameters_);
        transpose_rows(key_rows, page_.words() / 2, key_lanes_);
        // After a block of one head comes that of the next head, after the last one the next block of the first.
        const bool is_last = index + 1 == count;
        fetched_ = head_of(is_last ? next_ : here_, is_last ? first : first + index + 1);
    }

    int row_tile() const { return kRowTile; }

    template <int kRows>
    void multiply_keys(const Number* query, const float* query_sums, bool are_first, float* scores) const {
        if (are_first) fetch(call_.keys);
        // Two sums of each score, so that few rows do not wait for themselves. Their number is that of all rows: what else
        // a tile has must not change a row's sums, because codes of later layers would turn to other ones.
        constexpr int kSets = kBlockVectors > 1 ? 1 : 2;
        FloatVector sums[kSets][kRows][kBlockVectors] = {};
        const int width = query_width(call_.head_dim), words = page_.words();
        for (int lane = 0; lane < words / 2; ++lane) {
#pragma GCC unroll 4
            for (int j = 0; j < kBlockVectors; ++j) {
                IntVector key;
                std::memcpy(&key, key_lanes_ + lane * kBlock + j * kLanes, sizeof key);
                for_each<0, kParts>([&](auto part) {
                    const Number* channels = query + part * words + 2 * lane;
                    auto& own = sums[part % kSets];
                    if constexpr (kInPairs<Number>) {
#if defined(__AVX512BF16__)
                        const IntVector pairs = code_pairs<kBits, part>(key);
#pragma GCC unroll 16
                        for (int r = 0; r < kRows; ++r) own[r][j] = dot_pairs(own[r][j], splat_pair(channels + r * width), pairs);
#endif
                    } else {
                        const FloatVector even = codes<kBits, part>(key), odd = codes<kBits, part>(key, 1);
#pragma GCC unroll 16
                        for (int r = 0; r < kRows; ++r) {
                            own[r][j] += channels[r * width] * even;
                            own[r][j] += channels[r * width + 1] * odd;
                        }
                    }
                });
            }
        }
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
            for (int j = 0; j < kBlockVectors; ++j) {
                FloatVector sum = sums[0][r][j];
#pragma GCC unroll 4
                for (int set = 1; set < kSets; ++set) sum += sums[set][r][j];
                store(scores + r * kBlock + j * kLanes, (sum - keys_.zeros[j] * query_sums[r]) * keys_.scales[j]);
            }
        }
    }

    FloatVector weigh(FloatVector weight, int j, Number* weights) const {
        store(weights, weight * value_parameters_.scales[j]);
        if constexpr (!kInPairs<Number>) return weight;
        // As it was rounded.
        return value_parameters_.scales[j] == 0 ? weight : load(weights) / value_parameters_.scales[j];
    }

    template <int kRows>
    void add_values(const Number* weights, bool are_first, float* sums) const {
        if (are_first) fetch(call_.values);
        constexpr int kAtOnce = kLanes == 16 && kRows <= 6 ? kParts : std::min(kParts, 2);
        float offsets[(kRows + 3) / 4 * 4];
#pragma GCC unroll 4
        for (int first = 0; first < kRows; first += 4) {
            FloatVector products[4] = {};
            for (int r = first; r < std::min(first + 4, kRows); ++r)
                for (int j = 0; j < kBlockVectors; ++j) products[r - first] += load(weights + r * kBlock + j * kLanes) * value_parameters_.zeros[j];
            store_horizontal_sums(products[0], products[1], products[2], products[3], offsets + first);
        }
        for (int word = 0; word < page_.words(); word += kLanes) {
            add_parts<kRows, 0, kAtOnce>(weights, offsets, word, sums);
            if constexpr (kAtOnce < kParts) add_parts<kRows, kAtOnce, kParts>(weights, offsets, word, sums);
        }
    }

  private:
    static constexpr int kParts = 16 / kBits;
    // Rows are read in whole vectors; in a page, scales and zeros follow the last row.
    static constexpr int kSlack = 4 * kBlock;

    struct Place {
        int64_t page;  // in bytes from the first one
        int row;
    };

    // Of sixteen tokens.
    struct Parameters {
        FloatVector scales[kBlockVectors], zeros[kBlockVectors];
    };

    static int part_width(int head_dim) { return (head_dim / kParts + kLanes - 1) / kLanes * kLanes; }

    // Where a token of the first head lies.
    Place place(int token) const {
        return {pages_[token / call_.page_size] * page_.bytes(), token % call_.page_size};
    }

    Place head_of(Place place, int head) const { return {place.page, place.row + head * call_.page_size}; }

    // Sixteen tokens of one page, to come soon.
    __attribute__((always_inline)) void fetch(const void* pages) const {
        const uint8_t* page = static_cast<const uint8_t*>(pages) + fetched_.page;
        const uint8_t* codes = page + page_.code_offset(fetched_.row);
        for (int64_t byte = 0; byte < kBlock * page_.row_bytes(); byte += 64) prefetch(codes + byte);
        prefetch(page + page_.scale_offset(fetched_.row));
        prefetch(page + page_.zero_offset(fetched_.row));
    }

    // The rows of a head's sixteen tokens, which come from `copied` unless they lie side by side. Tokens that are not
    // there get zeros for parameters; their codes are any.
    const uint8_t* block(const uint8_t* pages, int head, uint8_t* copied, Parameters* parameters) const {
        if (call_.page_size % kBlock == 0) {
            const auto [offset, row] = head_of(here_, head);
            const uint8_t* page = pages + offset;
            set(page + page_.scale_offset(row), page + page_.zero_offset(row), parameters);
            return page + page_.code_offset(row);
        }
        float16 scales[kBlock] = {};
        uint8_t zeros[kBlock] = {};
        for (int t = 0; t < present_; ++t) {
            const auto [offset, row] = head_of(place(token_ + t), head);
            const uint8_t* page = pages + offset;
            std::memcpy(copied + t * page_.row_bytes(), page + page_.code_offset(row), page_.row_bytes());
            std::memcpy(scales + t, page + page_.scale_offset(row), sizeof *scales);
            std::memcpy(zeros + t, page + page_.zero_offset(row), sizeof *zeros);
        }
        set(scales, zeros, parameters);
        return copied;
    }

    void set(const void* scales, const uint8_t* zeros, Parameters* parameters) const {
        constexpr float kBias = kInPairs<Number> && kBits == 4 ? 128 : 0;
        for (int j = 0; j < kBlockVectors; ++j) {
            const IntVector there = lane_indices() < present_ - j * kLanes;
            const FloatVector scale = load(static_cast<const float16*>(scales) + j * kLanes);
            const FloatVector zero = load_bytes(zeros + j * kLanes) * (1 / page_.zero_steps());
            parameters->scales[j] = there ? scale : splat(0);
            parameters->zeros[j] = there ? zero + kBias : splat(0);
        }
    }

    // Channels of the parts from kFirst to kLast - 1, of the words from `word` on.
    template <int kRows, int kFirst, int kLast>
    void add_parts(const Number* weights, const float* offsets, int word, float* sums) const {
        FloatVector acc[kRows][kLast - kFirst] = {};
        const int64_t row_bytes = page_.row_bytes();
        constexpr int kStep = kInPairs<Number> ? 2 : 1;
        for (int t = 0; t < kBlock; t += kStep) {
            const uint8_t* row = values_ + t * row_bytes + 2 * word;
            if constexpr (kInPairs<Number>) {
#if defined(__AVX512BF16__)
                const IntVector words = load_words(row) | load_words(row + row_bytes) << 16;
                for_each<kFirst, kLast>([&](auto part) {
                    const IntVector value = code_pairs<kBits, part>(words);
#pragma GCC unroll 16
                    for (int r = 0; r < kRows; ++r) acc[r][part - kFirst] = dot_pairs(acc[r][part - kFirst], splat_pair(weights + r * kBlock + t), value);
                });
#endif
            } else {
                const IntVector words = load_words(row);
                for_each<kFirst, kLast>([&](auto part) {
                    const FloatVector value = codes<kBits, part>(words);
#pragma GCC unroll 16
                    for (int r = 0; r < kRows; ++r) acc[r][part - kFirst] += weights[r * kBlock + t] * value;
                });
            }
        }
        const int part_sums = part_width(call_.head_dim), row_sums = kParts * part_sums;
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
            for_each<kFirst, kLast>([&](auto part) {
                float* sum = sums + r * row_sums + part * part_sums + word;
                store(sum, load(sum) + (acc[r][part - kFirst] - offsets[r]));
            });
        }
    }

    const AttentionCall& call_;
    const QuantizedPage page_;
    const int32_t* pages_;
    const int end_;
    int token_ = 0, present_ = 0;
    Place here_{}, next_{}, fetched_{};
    int32_t* key_lanes_;  // [words / 2][16]
    uint8_t *key_rows_, *value_rows_;
    Parameters keys_, value_parameters_;
    const uint8_t* values_ = nullptr;
};

}  // namespace lapidist
