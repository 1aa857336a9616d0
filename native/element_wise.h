// What operators on rows of numbers share: float32 inside, whatever the type outside.
#pragma once

#include <algorithm>
#include <cmath>

#include "simd.h"

namespace lapidist {

// Below so many elements waking the other threads costs more than it saves.
constexpr int64_t kParallelElements = 1 << 15;

inline int threads_for(int64_t elements, int threads) { return elements < kParallelElements ? 1 : std::max(1, threads); }

// Calls vector(i) for whole vectors and scalar(i) for the rest of `count` elements.
template <typename Vector, typename Scalar>
inline void for_each(int64_t count, Vector vector, Scalar scalar) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) vector(i);
    for (; i < count; ++i) scalar(i);
}

// 1 / sqrt(mean(x^2) + eps).
template <typename T>
inline float norm_factor(const T* x, int64_t columns, float eps) {
    FloatVector squares{};
    float rest = 0;
    for_each(columns, [&](int64_t i) { const FloatVector v = load(x + i); squares += v * v; },
             [&](int64_t i) { rest += to_float(x[i]) * to_float(x[i]); });
    return 1.0f / std::sqrt((horizontal_sum(squares) + rest) / columns + eps);
}

inline FloatVector silu(FloatVector x) { return x / (1.0f + exp2(x * -1.44269504f)); }

}  // namespace lapidist
