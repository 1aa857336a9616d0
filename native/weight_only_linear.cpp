// y = x W^T + b for floating-point activations and 4-bit or 8-bit weights, which stay packed in memory as for
// quantized_linear.cpp.
//
// 128 columns of a panel at a time are written out as numbers and multiplied while they are in the cache. What is written
// out are the integers before the scale of an output (and the zero of kChannel4, which a sum over the row replaces). They have
// eight signed bits, which bfloat16 holds too: nothing of the weight is rounded.

#include <algorithm>

#include "int8_dot.h"
#include "kernels.h"
#include "linear_tile.h"
#include "quantized_panel.h"
#include "work_ranges.h"

namespace lapidist {
namespace {

constexpr int64_t kBlockRows = 192;  // 48 KiB of sums

// Two columns of one vector of outputs, of small integers, as multiply_panel reads them.
inline void store_columns(float* target, FloatVector even, FloatVector odd) {
    store(target, even);
    store(target + kPanel, odd);
}
inline void store_columns(bfloat16* target, FloatVector even, FloatVector odd) {
    const IntVector pairs = (reinterpret_cast<IntVector>(even) >> 16 & 0xffff) | (reinterpret_cast<IntVector>(odd) & ~0xffff);
    std::memcpy(target, &pairs, sizeof pairs);
}

// The integers of kLanes outputs, from four columns in the bytes of `bytes`.
template <WeightForm kForm, typename E>
inline void expand_bytes(IntVector bytes, FloatVector scale, FloatVector zero, E* target) {
    constexpr int kMask = kForm == WeightForm::kChannel8 ? 255 : 15;
    const auto integers = [&](int column) {
        const FloatVector code = __builtin_convertvector(bytes >> 8 * column & kMask, FloatVector);
        return kForm == WeightForm::kChannel4 ? code : code * scale - zero;
    };
    store_columns(target, integers(0), integers(1));
    store_columns(target + 2 * kPanel, integers(2), integers(3));
}

// Some steps of a panel as [columns, 64], or [columns / 2, 64, 2] in pairs. `parameters` are those of a group.
template <WeightForm kForm, typename E>
void expand(const uint8_t* w, int64_t steps, const uint8_t* parameters, bool ahead, E* target) {
    constexpr int kPair = std::is_same_v<E, bfloat16> ? 2 : 1;
    for (int o = 0; o < kPanel; o += kLanes) {
        FloatVector scale = splat(1), zero = splat(kForm == WeightForm::kChannel8 ? 128 : 0);
        if constexpr (has_groups(kForm)) {
            scale = __builtin_convertvector(widen(parameters + o), FloatVector);
            zero = __builtin_convertvector(widen(reinterpret_cast<const int8_t*>(parameters + kPanel + o)), FloatVector);
        }
        for (int64_t s = 0; s < steps; ++s) {
            IntVector bytes;
            std::memcpy(&bytes, w + s * kStepBytes + 4 * o, sizeof bytes);
            if (ahead) prefetch_once(w + s * kStepBytes + 4 * o + kBytesAhead);
            E* columns = target + s * step_columns(kForm) * kPanel + o * kPair;
            expand_bytes<kForm>(bytes, scale, zero, columns);
            if constexpr (kForm != WeightForm::kChannel8) expand_bytes<kForm>(bytes >> 4, scale, zero, columns + 4 * kPanel);
        }
    }
}

template <WeightForm kForm, typename T>
class WeightOnlyLinear {
  public:
    explicit WeightOnlyLinear(const WeightOnlyLinearCall& call) : call_(call), layout_(kForm, call.columns) {}

    void run() {
        x_ = factor_rows<T>(call_.x, call_.x_stride, call_.rows, call_.columns);
        if constexpr (kForm == WeightForm::kChannel4) sum_rows();
        const int64_t panels = (call_.outputs + kPanel - 1) / kPanel;
        const int64_t row_blocks = (call_.rows + kBlockRows - 1) / kBlockRows;
        share_pieces(panels * row_blocks, call_.threads, [&](auto take) {
            static thread_local Scratch sums_scratch, weight_scratch;
            float* sums = sums_scratch.reserve<float>(kBlockRows * kPanel);
            Factor<T>* weight = weight_scratch.reserve<Factor<T>>(kGroupColumns * kPanel);
            for (int64_t i; (i = take()) >= 0;) block(i / row_blocks, i % row_blocks * kBlockRows, weight, sums);
        });
    }

  private:
    // What the zeros are multiplied by.
    void sum_rows() {
        static thread_local Scratch scratch;
        float* sums = scratch.reserve<float>(call_.rows);
        for (int64_t r = 0; r < call_.rows; ++r) {
            const Factor<T>* x = x_.x + r * x_.stride;
            double sum = 0;
            for (int64_t c = 0; c < call_.columns; ++c) sum += to_float(x[c]);
            sums[r] = static_cast<float>(sum);
        }
        row_sums_ = sums;
    }

    void block(int64_t panel, int64_t row, Factor<T>* weight, float* sums) const {
        const int64_t rows = std::min(kBlockRows, call_.rows - row);
        const uint8_t* begin = static_cast<const uint8_t*>(call_.weight) + panel * layout_.bytes;
        const uint8_t* w = begin;
        std::fill(sums, sums + rows * kPanel, 0.0f);
        for (int64_t c = 0; c < call_.columns; c += kGroupColumns) {
            const int64_t columns = std::min<int64_t>(kGroupColumns, padded_columns(call_.columns) - c);
            const int64_t steps = padded_to_steps(columns) / step_columns(kForm);
            const uint8_t* parameters = w + steps * kStepBytes;
            expand<kForm>(w, steps, parameters, row == 0, weight);
            multiply_panel<Factor<T>>(x_.x + row * x_.stride + c, x_.stride, weight, rows, columns, sums, 0);
            if (has_groups(kForm) && row == 0) fetch_ahead(parameters, kGroupBytes);
            w = parameters + (has_groups(kForm) ? kGroupBytes : 0);
        }
        if (row == 0) fetch_ahead(begin + layout_.floats, layout_.bytes - layout_.floats);
        write(reinterpret_cast<const float*>(begin + layout_.floats), panel * kPanel, row, rows, sums);
    }

    void write(const float* scales, int64_t first, int64_t row, int64_t rows, const float* sums) const {
        const float* zeros = scales + kPanel;
        const float* biases = kForm == WeightForm::kChannel4 ? zeros + kPanel : zeros;
        const int64_t count = std::min<int64_t>(kPanel, call_.outputs - first);
        for (int64_t r = 0; r < rows; ++r) {
            T values[kPanel];
            for (int o = 0; o < kPanel; o += kLanes) {
                FloatVector value = load(sums + r * kPanel + o) * load(scales + o);
                if constexpr (kForm == WeightForm::kChannel4) value -= row_sums_[row + r] * load(zeros + o);
                store(values + o, value + load(biases + o));
            }
            std::copy_n(values, count, static_cast<T*>(call_.y) + (row + r) * call_.outputs + first);
        }
    }

    const WeightOnlyLinearCall& call_;
    const PanelLayout layout_;
    FactorRows<T> x_{};
    const float* row_sums_ = nullptr;
};

template <WeightForm kForm>
void run(const WeightOnlyLinearCall& call) {
    switch (call.type) {
        case Type::kBfloat16: return WeightOnlyLinear<kForm, bfloat16>(call).run();
        case Type::kFloat16: return WeightOnlyLinear<kForm, float16>(call).run();
        default: return WeightOnlyLinear<kForm, float>(call).run();
    }
}

}  // namespace

void weight_only_linear(const WeightOnlyLinearCall& call) {
    switch (call.form) {
        case WeightForm::kGroups4: return run<WeightForm::kGroups4>(call);
        case WeightForm::kChannel4: return run<WeightForm::kChannel4>(call);
        case WeightForm::kChannel8: return run<WeightForm::kChannel8>(call);
    }
}

}  // namespace lapidist
