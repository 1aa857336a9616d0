// Causal attention over paged keys and values: tiles of queries, keys split among threads, sums merged by addition.
//
// Flash attention (Dao et al., arXiv 2205.14135) with the unified maximum of FlashDecoding++ (arXiv 2311.01282) and a
// guard on each row's result in place of the paper's guard on each element.

#include <omp.h>

#include <atomic>
#include <vector>

#include "attention_tile.h"

namespace lapidist {
namespace {

constexpr int kTileRows = 48;      // rows of one tile: queries times heads of a group
constexpr int kAhead = 1;          // blocks (of one head) between what is computed and what is fetched
constexpr int kSplitQueries = 8;   // sequences with at most so many queries have their keys split

// A unit's work for some KV heads.
struct Task {
    const struct Unit* unit;
    int head, heads;
};

// Some queries of a sequence against a range of its keys.
struct Unit {
    int sequence;
    int query_begin, query_end;  // among the sequence's queries
    int kv_begin, kv_end;
    int64_t partial;             // where its sums go, in rows of partial sums; -1: straight to the output
    int chunks;                  // how many units share these queries; known at the first of them
};

// Memory of one thread.
struct Buffers {
    Scratch packed_keys, padded_rows, zeros, row, query, sums, denominators, maxima, shifts, firsts, lasts;
};

Buffers& buffers() {
    static thread_local Buffers buffers;
    return buffers;
}

template <typename T>
class Attention {
  public:
    explicit Attention(const AttentionCall& call)
        : call_(call), group_(call.heads / call.kv_heads), width_(padded(call.head_dim)), map_(call.scale, call.softcap) {
        plan();
    }

    int64_t run() {
        partials_.resize(partial_rows_ * (width_ + 2));
        if (call_.mode == SoftmaxMode::kUnified) flags_.assign(call_.query_starts[call_.sequences] * int64_t{call_.heads}, 0);
        const std::vector<Task> tasks = list_tasks();
        const int64_t heads = static_cast<int64_t>(units_.size()) * call_.kv_heads;
        std::atomic<size_t> next_task{0};
        std::atomic<int64_t> next_merge{0}, next_repeat{0}, recomputed{0};
#pragma omp parallel num_threads(std::max(1, call_.threads))
        {
            for (size_t i; (i = next_task++) < tasks.size();) attend(*tasks[i].unit, tasks[i].head, tasks[i].heads, call_.mode);
#pragma omp barrier
            if (partial_rows_ > 0) {
                for (int64_t i; (i = next_merge++) < heads;) merge(i / call_.kv_heads, i % call_.kv_heads, call_.mode);
#pragma omp barrier
            }
            if (any_flag_) {
                for (int64_t i; (i = next_repeat++) < heads;) recomputed += repeat(i / call_.kv_heads, i % call_.kv_heads);
            }
        }
        return recomputed;
    }

  private:
    // Reading all heads of a page in one go is kindest to the memory; where that leaves threads idle, and where many
    // queries share the keys, each head is a task.
    std::vector<Task> list_tasks() const {
        const bool few = static_cast<int>(units_.size()) < 4 * call_.threads;
        std::vector<Task> tasks;
        for (const Unit& unit : units_) {
            if (few || unit.query_end - unit.query_begin > 1) {
                for (int head = 0; head < call_.kv_heads; ++head) tasks.push_back({&unit, head, 1});
            } else {
                tasks.push_back({&unit, 0, call_.kv_heads});
            }
        }
        return tasks;
    }

    void plan() {
        for (int s = 0; s < call_.sequences; ++s) {
            const int queries = call_.query_starts[s + 1] - call_.query_starts[s];
            const int kv_length = call_.kv_lengths[s];
            const bool split = queries <= kSplitQueries;
            const int tile = split ? std::max(1, queries) : std::max(1, kTileRows / group_);
            for (int q = 0; q < queries; q += tile) {
                const int end = std::min(q + tile, queries);
                const int begin_kv = call_.window > 0 ? std::max(0, kv_length - queries + q - call_.window + 1) : 0;
                plan_keys(s, q, end, begin_kv / kBlock * kBlock, kv_length - queries + end, split);
            }
        }
    }

    void plan_keys(int sequence, int query_begin, int query_end, int kv_begin, int kv_end, bool split) {
        const int length = split ? std::max(kBlock, call_.split_tokens / kBlock * kBlock) : std::max(1, kv_end);
        const int chunks = std::max(1, (kv_end - kv_begin + length - 1) / length);
        for (int chunk = 0; chunk < chunks; ++chunk) {
            Unit unit{sequence, query_begin, query_end, kv_begin + chunk * length, kv_end, -1, chunk == 0 ? chunks : 0};
            if (chunk + 1 < chunks) unit.kv_end = unit.kv_begin + length;
            if (chunks > 1) {
                unit.partial = partial_rows_;
                partial_rows_ += int64_t{query_end - query_begin} * call_.heads;
            }
            units_.push_back(unit);
        }
    }

    // Sums of a unit for `count` KV heads from `head` on.
    void attend(const Unit& unit, int head, int count, SoftmaxMode mode) {
        Buffers& b = buffers();
        const int rows = (unit.query_end - unit.query_begin) * group_;
        KeyBlock<T> block;
        block.is_packed = rows >= kPackFrom;
        block.packed_keys = b.packed_keys.reserve<Factor<T>>(kBlock * width_);
        block.padded_rows = b.padded_rows.reserve<T>(2 * kBlock * width_);
        T* zeros = b.zeros.reserve<T>(width_);
        std::fill(zeros, zeros + width_, T{});
        Factor<T>* query = b.query.reserve<Factor<T>>(size_t(count) * rows * width_);
        float* sums = b.sums.reserve<float>(size_t(count) * rows * width_);
        float* denominators = b.denominators.reserve<float>(size_t(count) * rows * kLanes);
        float* maxima = b.maxima.reserve<float>(size_t(count) * rows);
        float* shifts = b.shifts.reserve<float>(size_t(count) * rows);
        const auto tile = [&](int i) {
            const size_t skipped = size_t(i) * rows;
            return HeadTile<T>{query + skipped * width_, sums + skipped * width_, denominators + skipped * kLanes, maxima + skipped, shifts + skipped, rows, width_};
        };
        for (int i = 0; i < count; ++i) {
            tile(i).clear();
            pack_query(unit, head + i, query + size_t(i) * rows * width_);
            for (int r = 0; r < rows; ++r) shifts[i * rows + r] = call_.phi ? 2 * std::rint(call_.phi[(head + i) * group_ + r % group_] * kLog2e / 2) : 0;
        }
        int* first = b.firsts.reserve<int>(rows);
        int* last = b.lasts.reserve<int>(rows);
        // Where this block lies and those after it.
        int64_t offsets[kAhead + 1][kBlock], ahead[kBlock];
        for (int i = 0; i < kAhead; ++i) locate(unit.sequence, unit.kv_begin + i * kBlock, unit.kv_end, offsets[i]);
        const int64_t head_size = int64_t{call_.page_size} * call_.head_dim;
        for (int token = unit.kv_begin; token < unit.kv_end; token += kBlock) {
            const int present = std::min(kBlock, unit.kv_end - token);
            locate(unit.sequence, token + kAhead * kBlock, unit.kv_end, offsets[kAhead]);
            see(unit, token, present, first, last);
            for (int i = 0; i < count; ++i) {
                // After a block of one head comes that of the next head, after the last one the next block of the first.
                const int later = i + kAhead;
                for (int t = 0; t < kBlock; ++t) ahead[t] = offsets[later / count][t] + (later % count - i) * head_size;
                const int64_t skipped = (head + i) * head_size;
                block.point(static_cast<const T*>(call_.keys) + skipped, static_cast<const T*>(call_.values) + skipped, offsets[0], present, zeros, ahead);
                if (width_ != call_.head_dim) block.pad(call_.head_dim, width_);
                if (block.is_packed) block.pack(width_);
                tile(i).add(block, map_, mode, first, last);
            }
            std::memmove(offsets[0], offsets[1], kAhead * sizeof offsets[0]);
        }
        for (int i = 0; i < count; ++i) {
            if (unit.partial >= 0) {
                keep(unit, head + i, tile(i));
            } else {
                finish(unit, head + i, tile(i), mode);
            }
        }
    }

    // Query rows of a KV head's group: query after query, the heads of the group within.
    void pack_query(const Unit& unit, int kv_head, Factor<T>* packed) const {
        const int64_t token = call_.query_starts[unit.sequence] + unit.query_begin;
        for (int q = 0; q < unit.query_end - unit.query_begin; ++q) {
            for (int g = 0; g < group_; ++g, packed += width_) {
                const T* row = static_cast<const T*>(call_.query) + (token + q) * call_.query_stride + int64_t{kv_head * group_ + g} * call_.head_dim;
                for (int c = 0; c < width_; ++c) {
                    if constexpr (kInPairs<T>) {
                        packed[c] = c < call_.head_dim ? row[c] : bfloat16{0};
                    } else {
                        packed[c] = c < call_.head_dim ? to_float(row[c]) : 0.0f;
                    }
                }
            }
        }
    }

    // Where the rows of sixteen tokens lie, in elements from the first head's start; from `end` on, where the first does.
    void locate(int sequence, int token, int end, int64_t* offsets) const {
        const int32_t* pages = call_.page_table + sequence * call_.page_table_stride;
        const int64_t page_stride = int64_t{call_.kv_heads} * call_.page_size * call_.head_dim;
        int page = token / call_.page_size, slot = token % call_.page_size;
        for (int t = 0; t < kBlock; ++t) {
            offsets[t] = token + t < end ? pages[page] * page_stride + int64_t{slot} * call_.head_dim : t > 0 ? offsets[0] : 0;
            if (++slot == call_.page_size) ++page, slot = 0;
        }
    }

    // The keys of a block that each row sees.
    void see(const Unit& unit, int token, int present, int* first, int* last) const {
        const int queries = call_.query_starts[unit.sequence + 1] - call_.query_starts[unit.sequence];
        const int past = call_.kv_lengths[unit.sequence] - queries;
        const int rows = (unit.query_end - unit.query_begin) * group_;
        const bool first_sees_last = token + kBlock <= past + unit.query_begin + 1;
        const bool last_sees_first = call_.window == 0 || token > past + unit.query_end - 1 - call_.window;
        if (present == kBlock && first_sees_last && last_sees_first) {
            std::fill(first, first + rows, 0);
            std::fill(last, last + rows, kBlock);
            return;
        }
        for (int r = 0; r < rows; ++r) {
            const int position = past + unit.query_begin + r / group_;
            first[r] = call_.window > 0 ? position - call_.window + 1 - token : 0;
            last[r] = std::min(position + 1 - token, present);
        }
    }

    float* partial(const Unit& unit, int row, int kv_head) {
        const int query = row / group_, head = kv_head * group_ + row % group_;
        return partials_.data() + (unit.partial + int64_t{query} * call_.heads + head) * (width_ + 2);
    }

    void keep(const Unit& unit, int kv_head, const HeadTile<T>& tile) {
        for (int r = 0; r < tile.rows; ++r) {
            float* kept = partial(unit, r, kv_head);
            std::copy(tile.sums + r * width_, tile.sums + (r + 1) * width_, kept);
            kept[width_] = horizontal_sum(load(tile.denominators + r * kLanes));
            kept[width_ + 1] = tile.maxima[r];
        }
    }

    void finish(const Unit& unit, int kv_head, const HeadTile<T>& tile, SoftmaxMode mode) {
        for (int r = 0; r < tile.rows; ++r) {
            if (stands(unit, r, kv_head, mode)) continue;
            const float denominator = horizontal_sum(load(tile.denominators + r * kLanes));
            if (!write(unit, r, kv_head, tile.sums + r * width_, denominator, mode)) flag(unit, r, kv_head);
        }
    }

    // Adds up the chunks of the queries that start at this unit, always in the same order.
    void merge(int64_t index, int kv_head, SoftmaxMode mode) {
        const Unit& unit = units_[index];
        if (unit.chunks < 2) return;
        const int rows = (unit.query_end - unit.query_begin) * group_;
        float* sums = buffers().sums.reserve<float>(width_);
        const bool unified = mode == SoftmaxMode::kUnified;
        for (int r = 0; r < rows; ++r) {
            if (stands(unit, r, kv_head, mode)) continue;
            float denominator = 0, maximum = -kInfinity;
            std::fill(sums, sums + width_, 0.0f);
            for (int chunk = 0; chunk < unit.chunks && !unified; ++chunk) maximum = std::max(maximum, partial(units_[index + chunk], r, kv_head)[width_ + 1]);
            for (int chunk = 0; chunk < unit.chunks; ++chunk) {
                const float* part = partial(units_[index + chunk], r, kv_head);
                const float own = part[width_ + 1];
                const float factor = unified ? 1.0f : own == -kInfinity ? 0.0f : exp2(splat(own - maximum))[0];
                for (int c = 0; c < width_; c += kLanes) store(sums + c, load(sums + c) + load(part + c) * factor);
                denominator += part[width_] * factor;
            }
            if (!write(unit, r, kv_head, sums, denominator, mode)) flag(unit, r, kv_head);
        }
    }

    int64_t output_row(const Unit& unit, int r, int kv_head) const {
        return (call_.query_starts[unit.sequence] + unit.query_begin + r / group_) * int64_t{call_.heads} + kv_head * group_ + r % group_;
    }

    // Divides and stores a row; false, if the sums of mode unified cannot be trusted.
    bool write(const Unit& unit, int r, int kv_head, const float* sums, float denominator, SoftmaxMode mode) const {
        T* out = static_cast<T*>(call_.output) + output_row(unit, r, kv_head) * call_.head_dim;
        // No visible key gives zeros.
        const float factor = denominator != 0 ? 1.0f / denominator : 0.0f;
        float* row = buffers().row.reserve<float>(width_);
        for (int c = 0; c < width_; ++c) row[c] = sums[sum_position<T>(c)] * factor;
        bool finite = true;
        for (int c = 0; c < call_.head_dim; ++c) finite &= std::fabs(row[c]) < kInfinity;
        for (int c = 0; c < call_.head_dim; ++c) from_float(row[c], out + c);
        if (mode != SoftmaxMode::kUnified) return true;
        return finite && denominator <= kLargestDenominator && denominator >= kLeastDenominator;
    }

    void flag(const Unit& unit, int r, int kv_head) {
        flags_[output_row(unit, r, kv_head)] = 1;
        any_flag_ = true;
    }

    // Whether a row needs no other result: rows are computed again beside others that were sound.
    bool stands(const Unit& unit, int r, int kv_head, SoftmaxMode mode) const {
        return mode != call_.mode && !flags_[output_row(unit, r, kv_head)];
    }

    // The rows of the queries that start at this unit whose flag is set, again in mode online, chunk by chunk as before.
    int64_t repeat(int64_t index, int kv_head) {
        const Unit& unit = units_[index];
        if (unit.chunks == 0) return 0;
        const int rows = (unit.query_end - unit.query_begin) * group_;
        int64_t flagged = 0;
        for (int r = 0; r < rows; ++r) flagged += flags_[output_row(unit, r, kv_head)];
        if (flagged == 0) return 0;
        for (int chunk = 0; chunk < unit.chunks; ++chunk) attend(units_[index + chunk], kv_head, 1, SoftmaxMode::kOnline);
        merge(index, kv_head, SoftmaxMode::kOnline);
        return flagged;
    }

    const AttentionCall& call_;
    const int group_, width_;
    const ScoreMap map_;
    std::vector<Unit> units_;
    int64_t partial_rows_ = 0;
    std::vector<float> partials_;
    std::vector<uint8_t> flags_;
    std::atomic<bool> any_flag_{false};
};

}  // namespace

int64_t attention(const AttentionCall& call) {
    switch (call.type) {
        case Type::kBfloat16: return Attention<bfloat16>(call).run();
        case Type::kFloat16: return Attention<float16>(call).run();
        default: return Attention<float>(call).run();
    }
}

}  // namespace lapidist
