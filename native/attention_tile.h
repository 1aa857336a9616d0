// Attention of a tile: the queries of one KV head's group against sixteen keys at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "attention_block.h"

namespace lapidist {

constexpr float kLog2e = 1.44269504088896341f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLazyThreshold = 8.0f;              // lapidist.kernels.softmax.LAZY_THRESHOLD
constexpr float kLeastDenominator = 0x1p-80f;       // lapidist.kernels.softmax.LEAST_DENOMINATOR
constexpr float kLargestDenominator = 0x1p126f;     // above it the reciprocal is a denormal, which loses bits

// Scores to exponentials: what all rows of a call share.
struct ScoreMap {
    float scale_log2;    // scores to base-2 exponents
    float inner, outer;  // with a cap: outer * tanh(inner * score)
    bool capped;

    ScoreMap(float scale, float softcap)
        : scale_log2(scale * kLog2e), inner(softcap > 0 ? scale / softcap : 0), outer(softcap * kLog2e), capped(softcap > 0) {}

    FloatVector operator()(FloatVector score) const {
        return capped ? outer * tanh(inner * score) : score * scale_log2;
    }
};

// The running softmax of the query rows of one KV head, whose keys and values `Keys` has.
template <typename Keys>
struct HeadTile {
    using Number = typename Keys::Number;

    const Number* query;      // [rows][query_width], zero-padded
    const float* query_sums;  // [rows], of the channels
    float* sums;              // [rows][sum_width], sum of weight * value
    float* denominators;      // [rows][kLanes], to be added up
    float* maxima;            // [rows], base-2 exponents, rounded up to even ones (modes online and lazy)
    const float* shifts;      // [rows], base-2 exponents, rounded to even ones (mode unified)
    int rows, query_width, sum_width;

    void clear() {
        std::fill(sums, sums + rows * sum_width, 0.0f);
        std::fill(denominators, denominators + rows * kLanes, 0.0f);
        std::fill(maxima, maxima + rows, -kInfinity);
    }

    // Sixteen keys are taken in in three steps. Row r sees those from first[r] up to last[r] (relative to the block). Scores
    // and weights are [rows][16].
    void score(const Keys& keys, const int* last, float* scores) const {
        for_each_tile(keys, last, [&](int r, auto count) {
            keys.template multiply_keys<decltype(count)::value>(query + r * query_width, query_sums + r, r == 0, scores + r * kBlock);
        });
    }

    void weigh(const Keys& keys, const ScoreMap& map, SoftmaxMode mode, const int* first, const int* last, const float* scores, Number* weights) {
        for (int r = 0; r < rows; ++r) exponentiate(keys, scores + r * kBlock, weights + r * kBlock, map, mode, first[r], last[r], r);
    }

    void add_values(const Keys& keys, const int* last, const Number* weights) {
        for_each_tile(keys, last, [&](int r, auto count) {
            keys.template add_values<decltype(count)::value>(weights + r * kBlock, r == 0, sums + r * sum_width);
        });
    }

  private:
    // Calls run(first row, number of rows as a constant) for tiles of rows some of which see something.
    template <typename Run>
    void for_each_tile(const Keys& keys, const int* last, Run run) const {
        for (int r = 0; r < rows;) {
            const int count = std::min(rows - r, keys.row_tile());
            // Rows stand in the order of their positions: the last one sees most.
            if (last[r + count - 1] > 0) with_constant<1>(count, [&](auto constant) { run(r, constant); });
            r += count;
        }
    }

    template <int kCount, typename Run>
    static void with_constant(int count, Run run) {
        if constexpr (kCount < kRowTile) {
            if (count > kCount) return with_constant<kCount + 1>(count, run);
        }
        run(std::integral_constant<int, kCount>{});
    }

    // Scores of one row to weights; the row's denominator grows.
    __attribute__((always_inline)) void exponentiate(const Keys& keys, const float* scores, Number* weights, const ScoreMap& map, SoftmaxMode mode, int first, int last, int r) {
        FloatVector x[kBlockVectors];
        for (int j = 0; j < kBlockVectors; ++j) x[j] = map(load(scores + j * kLanes));
        if (first > 0 || last < kBlock) hide(x, first, last);
        float shift = mode == SoftmaxMode::kUnified ? shifts[r] : running_maximum(x, mode, r);
        // Nothing seen yet: any finite shift makes zeros of minus infinities.
        if (shift == -kInfinity) shift = 0;
        FloatVector sum{};
        for (int j = 0; j < kBlockVectors; ++j) sum += keys.weigh(exp2(x[j], shift), j, weights + j * kLanes);
        store(denominators + r * kLanes, load(denominators + r * kLanes) + sum);
    }

    static void hide(FloatVector* x, int first, int last) {
        const IntVector index = lane_indices();
        for (int j = 0; j < kBlockVectors; ++j) {
            const IntVector seen = (index >= first - j * kLanes) & (index < last - j * kLanes);
            x[j] = seen ? x[j] : splat(-kInfinity);
        }
    }

    __attribute__((always_inline)) float running_maximum(const FloatVector* x, SoftmaxMode mode, int r) {
        FloatVector largest = x[0];
        for (int j = 1; j < kBlockVectors; ++j) largest = maximum(largest, x[j]);
        // Subtracting an integer is exact, and so is rescaling by a power of two; an even one leaves exp2's ties alone too.
        // Thus the shift changes no bit of the result, and the modes agree.
        const float found = 2 * std::ceil(horizontal_max(largest) / 2);
        const float allowed = mode == SoftmaxMode::kLazy ? kLazyThreshold : 0.0f;
        if (found > maxima[r] + allowed) {
            rescale(r, exp2(splat(maxima[r] - found))[0]);
            maxima[r] = found;
        }
        return maxima[r];
    }

    __attribute__((noinline, cold)) void rescale(int r, float factor) {
        for (int c = 0; c < sum_width; c += kLanes) store(sums + r * sum_width + c, load(sums + r * sum_width + c) * factor);
        store(denominators + r * kLanes, load(denominators + r * kLanes) * factor);
    }
};

}  // namespace lapidist
