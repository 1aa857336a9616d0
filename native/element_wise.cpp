// Normalization, rotary embedding and the gated activation: one pass over memory each, float32 inside.
#include <omp.h>

#include "element_wise.h"
#include "kernels.h"

namespace lapidist {
namespace {

template <typename T>
void normalize_row(const T* x, const float* weight, T* y, int64_t columns, float eps) {
    const float factor = norm_factor(x, columns, eps);
    for_each(columns, [&](int64_t i) { store(y + i, load(x + i) * factor * load(weight + i)); },
             [&](int64_t i) { from_float(to_float(x[i]) * factor * weight[i], y + i); });
}

template <typename T>
void normalize(const RmsNormCall& call) {
    const int64_t rows = call.tokens * call.heads;
#pragma omp parallel for num_threads(threads_for(rows * call.columns, call.threads)) schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t token = row / call.heads, head = row % call.heads;
        const T* x = static_cast<const T*>(call.x) + token * call.token_stride + head * call.columns;
        const float* weight = call.weight + (call.weight_per_head ? head * call.columns : 0);
        normalize_row(x, weight, static_cast<T*>(call.y) + row * call.columns, call.columns, call.eps);
    }
}

// (first, second) -> (first cos - second sin, second cos + first sin); `sin` has the sign of each half.
template <typename T>
void rotate_head(T* x, const T* cos, const T* sin, int64_t half) {
    const auto vector = [&](int64_t i) {
        const FloatVector first = load(x + i), second = load(x + half + i);
        store(x + i, first * load(cos + i) + second * load(sin + i));
        store(x + half + i, second * load(cos + half + i) + first * load(sin + half + i));
    };
    const auto scalar = [&](int64_t i) {
        const float first = to_float(x[i]), second = to_float(x[half + i]);
        from_float(first * to_float(cos[i]) + second * to_float(sin[i]), x + i);
        from_float(second * to_float(cos[half + i]) + first * to_float(sin[half + i]), x + half + i);
    };
    for_each(half, vector, scalar);
}

template <typename T>
void rotate(const RopeCall& call) {
#pragma omp parallel for num_threads(threads_for(call.tokens * call.heads * call.rotary_dim, call.threads)) schedule(static)
    for (int64_t token = 0; token < call.tokens; ++token) {
        const T* cos = static_cast<const T*>(call.cos) + token * call.rotary_dim;
        const T* sin = static_cast<const T*>(call.sin) + token * call.rotary_dim;
        T* x = static_cast<T*>(call.x) + token * call.token_stride;
        for (int64_t head = 0; head < call.heads; ++head) rotate_head(x + head * call.head_dim, cos, sin, call.rotary_dim / 2);
    }
}

template <typename T>
void activate(const SiluCall& call) {
#pragma omp parallel for num_threads(threads_for(call.tokens * call.columns, call.threads)) schedule(static)
    for (int64_t token = 0; token < call.tokens; ++token) {
        const T* gate = static_cast<const T*>(call.gate_up) + token * 2 * call.columns;
        const T* up = gate + call.columns;
        T* y = static_cast<T*>(call.y) + token * call.columns;
        for_each(call.columns, [&](int64_t i) { store(y + i, silu(load(gate + i)) * load(up + i)); },
                 [&](int64_t i) { from_float(silu(splat(to_float(gate[i])))[0] * to_float(up[i]), y + i); });
    }
}

}  // namespace

void rms_norm(const RmsNormCall& call) {
    switch (call.type) {
        case Type::kBfloat16: return normalize<bfloat16>(call);
        case Type::kFloat16: return normalize<float16>(call);
        default: return normalize<float>(call);
    }
}

void rope(const RopeCall& call) {
    switch (call.type) {
        case Type::kBfloat16: return rotate<bfloat16>(call);
        case Type::kFloat16: return rotate<float16>(call);
        default: return rotate<float>(call);
    }
}

void silu_multiply(const SiluCall& call) {
    switch (call.type) {
        case Type::kBfloat16: return activate<bfloat16>(call);
        case Type::kFloat16: return activate<float16>(call);
        default: return activate<float>(call);
    }
}

}  // namespace lapidist
