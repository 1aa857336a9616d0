// Causal attention over paged keys and values: tiles of queries, keys split among threads, sums merged by addition.
//
// Flash attention (Dao et al., arXiv 2205.14135) with the unified maximum of FlashDecoding++ (arXiv 2311.01282) and a
// guard on each row's result in place of the paper's guard on each element.

#include <omp.h>

#include <atomic>
#include <vector>

#include "attention_tile.h"
#include "plain_keys.h"
#include "quantized_keys.h"

namespace lapidist {
namespace {

constexpr int kTileRows = 48;      // rows of one tile: queries times heads of a group
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
template <typename Keys>
struct Buffers {
    Scratch row, query, query_sums, sums, denominators, maxima, shifts, firsts, lasts, scores, weights;
    typename Keys::Memory keys;
};

template <typename Keys>
Buffers<Keys>& buffers() {
    static thread_local Buffers<Keys> buffers;
    return buffers;
}

// Of queries of type T, over keys and values that `Keys` has.
template <typename T, typename Keys>
class Attention {
  public:
    using Number = typename Keys::Number;

    explicit Attention(const AttentionCall& call)
        : call_(call), group_(call.heads / call.kv_heads), query_width_(Keys::query_width(call.head_dim)),
          sum_width_(Keys::sum_width(call.head_dim)), map_(call.scale, call.softcap) {
        plan();
    }

    int64_t run() {
        partials_.resize(partial_rows_ * (sum_width_ + 2));
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
        Buffers<Keys>& b = buffers<Keys>();
        const int rows = (unit.query_end - unit.query_begin) * group_;
        Number* query = b.query.template reserve<Number>(size_t(count) * rows * query_width_);
        float* query_sums = b.query_sums.template reserve<float>(size_t(count) * rows);
        float* sums = b.sums.template reserve<float>(size_t(count) * rows * sum_width_);
        float* denominators = b.denominators.template reserve<float>(size_t(count) * rows * kLanes);
        float* maxima = b.maxima.template reserve<float>(size_t(count) * rows);
        float* shifts = b.shifts.template reserve<float>(size_t(count) * rows);
        const auto tile = [&](int i) {
            const size_t skipped = size_t(i) * rows;
            return HeadTile<Keys>{query + skipped * query_width_, query_sums + skipped, sums + skipped * sum_width_, denominators + skipped * kLanes,
                                  maxima + skipped, shifts + skipped, rows, query_width_, sum_width_};
        };
        for (int i = 0; i < count; ++i) {
            tile(i).clear();
            pack_query(unit, head + i, query + size_t(i) * rows * query_width_, query_sums + i * rows);
            for (int r = 0; r < rows; ++r) shifts[i * rows + r] = call_.phi ? 2 * std::rint(call_.phi[(head + i) * group_ + r % group_] * kLog2e / 2) : 0;
        }
        int* first = b.firsts.template reserve<int>(rows);
        int* last = b.lasts.template reserve<int>(rows);
        const auto scores = [&, all = b.scores.template reserve<float>(size_t(count) * rows * kBlock)](int i) { return all + size_t(i) * rows * kBlock; };
        const auto weights = [&, all = b.weights.template reserve<Number>(size_t(count) * rows * kBlock)](int i) { return all + size_t(i) * rows * kBlock; };
        Keys keys(call_, b.keys, unit.sequence, unit.kv_begin, unit.kv_end, rows);
        for (int token = unit.kv_begin; token < unit.kv_end; token += kBlock) {
            keys.seek(token);
            see(unit, token, std::min(kBlock, unit.kv_end - token), first, last);
            const auto weigh = [&](int i) { tile(i).weigh(keys, map_, mode, first, last, scores(i), weights(i)); };
            if constexpr (Keys::kInPhases) {
                // Keys and values are long runs of memory. The exponentials of a head, a long chain, overlap with the next one's products.
                for (int i = 0; i < count; ++i) {
                    keys.take_keys(head, i, count);
                    tile(i).score(keys, last, scores(i));
                    if (i > 0) weigh(i - 1);
                }
                weigh(count - 1);
                for (int i = 0; i < count; ++i) {
                    keys.take_values(head, i, count);
                    tile(i).add_values(keys, last, weights(i));
                }
            } else {
                for (int i = 0; i < count; ++i) {
                    keys.take(head, i, count);
                    tile(i).score(keys, last, scores(i));
                    weigh(i);
                    tile(i).add_values(keys, last, weights(i));
                }
            }
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
    void pack_query(const Unit& unit, int kv_head, Number* packed, float* query_sums) const {
        const int64_t token = call_.query_starts[unit.sequence] + unit.query_begin;
        for (int q = 0; q < unit.query_end - unit.query_begin; ++q) {
            for (int g = 0; g < group_; ++g, packed += query_width_, ++query_sums) {
                const T* row = static_cast<const T*>(call_.query) + (token + q) * call_.query_stride + int64_t{kv_head * group_ + g} * call_.head_dim;
                for (int c = 0; c < query_width_; ++c) {
                    if constexpr (kInPairs<T>) {
                        packed[c] = c < call_.head_dim ? row[c] : bfloat16{0};
                    } else {
                        packed[c] = c < call_.head_dim ? to_float(row[c]) : 0.0f;
                    }
                }
                if constexpr (Keys::kNeedsQuerySums) {
                    FloatVector sum{};
                    for (int c = 0; c < query_width_; c += kLanes) sum += load(packed + c);
                    *query_sums = horizontal_sum(sum);
                }
            }
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
        return partials_.data() + (unit.partial + int64_t{query} * call_.heads + head) * (sum_width_ + 2);
    }

    void keep(const Unit& unit, int kv_head, const HeadTile<Keys>& tile) {
        for (int r = 0; r < tile.rows; ++r) {
            float* kept = partial(unit, r, kv_head);
            std::copy(tile.sums + r * sum_width_, tile.sums + (r + 1) * sum_width_, kept);
            kept[sum_width_] = horizontal_sum(load(tile.denominators + r * kLanes));
            kept[sum_width_ + 1] = tile.maxima[r];
        }
    }

    void finish(const Unit& unit, int kv_head, const HeadTile<Keys>& tile, SoftmaxMode mode) {
        for (int r = 0; r < tile.rows; ++r) {
            if (stands(unit, r, kv_head, mode)) continue;
            const float denominator = horizontal_sum(load(tile.denominators + r * kLanes));
            if (!write(unit, r, kv_head, tile.sums + r * sum_width_, denominator, mode)) flag(unit, r, kv_head);
        }
    }

    // Adds up the chunks of the queries that start at this unit, always in the same order.
    void merge(int64_t index, int kv_head, SoftmaxMode mode) {
        const Unit& unit = units_[index];
        if (unit.chunks < 2) return;
        const int rows = (unit.query_end - unit.query_begin) * group_;
        float* sums = buffers<Keys>().sums.template reserve<float>(sum_width_);
        const bool unified = mode == SoftmaxMode::kUnified;
        for (int r = 0; r < rows; ++r) {
            if (stands(unit, r, kv_head, mode)) continue;
            float denominator = 0, maximum = -kInfinity;
            std::fill(sums, sums + sum_width_, 0.0f);
            for (int chunk = 0; chunk < unit.chunks && !unified; ++chunk) maximum = std::max(maximum, partial(units_[index + chunk], r, kv_head)[sum_width_ + 1]);
            for (int chunk = 0; chunk < unit.chunks; ++chunk) {
                const float* part = partial(units_[index + chunk], r, kv_head);
                const float own = part[sum_width_ + 1];
                const float factor = unified ? 1.0f : own == -kInfinity ? 0.0f : exp2(splat(own - maximum))[0];
                for (int c = 0; c < sum_width_; c += kLanes) store(sums + c, load(sums + c) + load(part + c) * factor);
                denominator += part[sum_width_] * factor;
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
        float* row = buffers<Keys>().row.template reserve<float>(call_.head_dim);
        for (int c = 0; c < call_.head_dim; ++c) row[c] = sums[Keys::sum_position(c, call_.head_dim)] * factor;
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
    const int group_, query_width_, sum_width_;
    const ScoreMap map_;
    std::vector<Unit> units_;
    int64_t partial_rows_ = 0;
    std::vector<float> partials_;
    std::vector<uint8_t> flags_;
    std::atomic<bool> any_flag_{false};
};

template <typename T>
int64_t attend(const AttentionCall& call) {
    switch (call.kv_bits) {
        case 4: return Attention<T, QuantizedKeys<Factor<T>, 4>>(call).run();
        case 8: return Attention<T, QuantizedKeys<Factor<T>, 8>>(call).run();
        default: return Attention<T, PlainKeys<T>>(call).run();
    }
}

}  // namespace

int64_t attention(const AttentionCall& call) {
    switch (call.type) {
        case Type::kBfloat16: return attend<bfloat16>(call);
        case Type::kFloat16: return attend<float16>(call);
        default: return attend<float>(call);
    }
}

}  // namespace lapidist
