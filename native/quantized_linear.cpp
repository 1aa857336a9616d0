// y = x W^T + b for 8-bit activations and 4-bit or 8-bit weights (QServe, arXiv 2405.04532, section 5), in integers up to
// the scales: exact, whatever the processor, the number of rows and of threads.
//
// The codes are never turned into the weights that they stand for. As unsigned bytes they are one operand of the dot
// product instruction, the signed activations the other. A group's sum is multiplied by the group's scale; zeros are
// multiplied by sums of activations.

#include <algorithm>
#include <numeric>
#include <type_traits>

#include "int8_dot.h"
#include "kernels.h"
#include "quantized_panel.h"
#include "scratch.h"
#include "work_ranges.h"

namespace lapidist {
namespace {

constexpr int kVectors = kLanes == 16 ? 4 : 2;        // vectors of outputs in a tile
constexpr int kTileRows = kLanes == 16 ? 6 : 4;
constexpr int kTileOutputs = kVectors * kLanes;
constexpr int64_t kBlockRows = 24;                    // 6 KiB of totals, which stay in the first-level cache
constexpr int64_t kPassSteps = 64;                    // without groups: 16 KiB of weights
constexpr int64_t kBytesFirst = 2048;                 // of the weights, fetched before anything else

// Up to so many rows the totals of a panel stay in registers, where these hold a whole panel's.
constexpr int64_t kFewRows = kTileOutputs == kPanel ? 3 : 0;

template <typename T, typename P>
inline T read(const P* p) {
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

inline IntVector add(IntVector a, IntVector b) {
    return reinterpret_cast<IntVector>(reinterpret_cast<WordVector>(a) + reinterpret_cast<WordVector>(b));
}

// A tile's rows of the activations' codes from some column on, and the sums of the group that begins there.
struct TileRows {
    const int8_t* codes;
    int64_t codes_stride;
    const int32_t* sums;
    int64_t sums_stride;
};

// How many bytes further on the weights are that are fetched in each step, for each vector of it: kBytesAhead or 0, which
// fetches nothing new. A loop over some of the vectors would cost more: its branches hide the ends of groups from the
// processor's predictor.
struct Ahead {
    int64_t bytes[kVectors];
};

// acc[r][v] += x[r] . w over some steps.
template <WeightForm kForm, int kRows>
__attribute__((always_inline)) inline void multiply_steps(IntVector (&acc)[kRows][kVectors], const TileRows& x, const uint8_t* w, int64_t steps,
                                                          const Ahead& ahead) {
    const auto multiply = [&](const IntVector (&weight)[kVectors], const int8_t* codes) {
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
            const IntVector factor = splat_bytes(codes + r * x.codes_stride);
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; ++v) acc[r][v] = dot_bytes<kForm == WeightForm::kChannel8 ? 255 : 15>(acc[r][v], weight[v], factor);
        }
    };
    const int8_t* codes = x.codes;
    for (int64_t s = 0; s < steps; ++s, w += kStepBytes, codes += step_columns(kForm)) {
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) prefetch_once(w + v * 4 * kLanes + ahead.bytes[v]);
        IntVector weight[kVectors];
        if constexpr (kForm == WeightForm::kChannel8) {
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; ++v) weight[v] = read<IntVector>(w + v * 4 * kLanes);
            multiply(weight, codes);
        } else {
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; ++v) weight[v] = read<IntVector>(w + v * 4 * kLanes) & 0x0f0f0f0f;
            multiply(weight, codes);
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; ++v) weight[v] = read<IntVector>(w + v * 4 * kLanes) >> 4 & 0x0f0f0f0f;
            multiply(weight, codes + 4);
        }
    }
}

// total + a group's sum times its scale - its zero times the sum of the activations.
inline IntVector add_group(IntVector total, IntVector sum, const uint8_t* parameters, int32_t sum_of_codes) {
    const IntVector scale = widen(parameters), zero = widen(reinterpret_cast<const int8_t*>(parameters + kPanel));
    // Both factors of the second product fit into 16 bits; the upper halves of the lanes must add nothing.
    return dot_words(add(total, sum * scale), IntVector{} + sum_of_codes, -zero & 0xffff);
}

// totals[r] += x[r] . w for a tile of kRows rows and kTileOutputs outputs over some steps: with groups, those of one, whose
// parameters follow them.
template <WeightForm kForm, int kRows>
inline void multiply_tile(const TileRows& x, const uint8_t* w, int64_t steps, const uint8_t* parameters, int32_t* totals,
                          const Ahead& ahead) {
    IntVector acc[kRows][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) acc[r][v] = has_groups(kForm) ? IntVector{} : read<IntVector>(totals + r * kPanel + v * kLanes);
    multiply_steps<kForm>(acc, x, w, steps, ahead);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
        if constexpr (has_groups(kForm)) {
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r)
                acc[r][v] = add_group(read<IntVector>(totals + r * kPanel + v * kLanes), acc[r][v], parameters + v * kLanes, x.sums[r * x.sums_stride]);
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) std::memcpy(totals + r * kPanel + v * kLanes, &acc[r][v], sizeof(IntVector));
    }
}

// totals[r] = x[r] . w of a whole panel, for rows so few that the totals stay in registers.
template <WeightForm kForm, int kRows>
inline void multiply_few(const TileRows& x, const uint8_t* w, int64_t all_steps, int32_t* totals) {
    constexpr int64_t kColumns = step_columns(kForm);
    constexpr bool kBytes = kForm == WeightForm::kChannel8;
    const int64_t pass_steps = has_groups(kForm) ? kGroupColumns / kColumns : all_steps;
    // Low and high nibbles have sums of their own where there is room: one sum would be waited for twice in every step.
    constexpr int kSums = kRows <= 2 && !kBytes ? 2 : 1;
    IntVector total[kRows][kVectors] = {};
    const int8_t* codes = x.codes;
    const int32_t* sums = x.sums;
    for (int64_t step = 0; step < all_steps; step += pass_steps, ++sums) {
        IntVector acc[kSums][kRows][kVectors] = {};
        const int64_t steps = std::min(pass_steps, all_steps - step);
        for (int64_t s = 0; s < steps; ++s, w += kStepBytes, codes += kColumns) {
            IntVector weight[kVectors];
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; ++v) {
                prefetch_once(w + v * 4 * kLanes + kBytesAhead);
                weight[v] = read<IntVector>(w + v * 4 * kLanes);
            }
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) {
                const int8_t* row = codes + r * x.codes_stride;
#pragma GCC unroll 8
                for (int v = 0; v < kVectors; ++v) {
                    if constexpr (kBytes) {
                        acc[0][r][v] = dot_bytes<255>(acc[0][r][v], weight[v], splat_bytes(row));
                    } else {
                        acc[0][r][v] = dot_bytes<15>(acc[0][r][v], weight[v] & 0x0f0f0f0f, splat_bytes(row));
                        acc[kSums - 1][r][v] = dot_bytes<15>(acc[kSums - 1][r][v], weight[v] >> 4 & 0x0f0f0f0f, splat_bytes(row + 4));
                    }
                }
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; ++v) {
                const IntVector sum = kSums == 1 ? acc[0][r][v] : add(acc[0][r][v], acc[kSums - 1][r][v]);
                total[r][v] = has_groups(kForm) ? add_group(total[r][v], sum, w + v * kLanes, sums[r * x.sums_stride]) : sum;
            }
        if constexpr (has_groups(kForm)) {
            fetch_ahead(w, kGroupBytes);
            w += kGroupBytes;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) std::memcpy(totals + r * kPanel + v * kLanes, &total[r][v], sizeof(IntVector));
}

// Calls run(first row, number of rows as a constant, number of the tile, tiles) for tiles of like size.
template <typename Run>
inline void for_each_tile(int64_t rows, Run run) {
    const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
    int64_t row = 0;
    for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t count = rows / tiles + (tile < rows % tiles);
        const auto run_rows = [&](auto size) { run(row, std::integral_constant<int, std::min(decltype(size)::value, kTileRows)>{}, tile, tiles); };
        switch (count) {
            case 1: run_rows(std::integral_constant<int, 1>{}); break;
            case 2: run_rows(std::integral_constant<int, 2>{}); break;
            case 3: run_rows(std::integral_constant<int, 3>{}); break;
            case 4: run_rows(std::integral_constant<int, 4>{}); break;
            case 5: run_rows(std::integral_constant<int, 5>{}); break;
            default: run_rows(std::integral_constant<int, 6>{});
        }
        row += count;
    }
}

template <WeightForm kForm>
class QuantizedLinear {
  public:
    explicit QuantizedLinear(const QuantizedLinearCall& call) : call_(call), layout_(kForm, call.columns) {}

    void run() {
        const int64_t panels = (call_.outputs + kPanel - 1) / kPanel;
        const int64_t row_blocks = (call_.rows + kBlockRows - 1) / kBlockRows;
        if constexpr (!has_groups(kForm)) sum_rows();
        // On their way while the threads are woken.
        for (int64_t i = 0; i < kBytesFirst; i += 64) prefetch_once(static_cast<const uint8_t*>(call_.weight) + i);
        share_pieces(panels * row_blocks, call_.threads, [&](auto take) {
            static thread_local Scratch scratch;
            int32_t* totals = scratch.reserve<int32_t>(kBlockRows * kPanel);
            for (int64_t i; (i = take()) >= 0;) block(i / row_blocks, i % row_blocks * kBlockRows, totals);
        });
    }

  private:
    // What the zeros are multiplied by.
    void sum_rows() {
        static thread_local Scratch scratch;
        int32_t* sums = scratch.reserve<int32_t>(call_.rows);
        const int64_t groups = group_count(call_.columns);
        for (int64_t r = 0; r < call_.rows; ++r) sums[r] = std::accumulate(call_.x_sums + r * groups, call_.x_sums + (r + 1) * groups, 0);
        row_sums_ = sums;
    }

    void block(int64_t panel, int64_t row, int32_t* totals) const {
        const int64_t rows = std::min(kBlockRows, call_.rows - row);
        const uint8_t* weight = static_cast<const uint8_t*>(call_.weight) + panel * layout_.bytes;
        if (call_.rows <= kFewRows) {
            few(weight, totals);
        } else {
            many(weight, row, rows, totals);
        }
        write(weight + layout_.floats, panel * kPanel, row, rows, totals);
    }

    int64_t steps() const { return padded_to_steps(call_.columns) / step_columns(kForm); }

    void few(const uint8_t* weight, int32_t* totals) const {
        if constexpr (kFewRows > 0) {
            const TileRows x{call_.x, call_.x_stride, call_.x_sums, group_count(call_.columns)};
            switch (call_.rows) {
                case 1: return multiply_few<kForm, 1>(x, weight, steps(), totals);
                case 2: return multiply_few<kForm, 2>(x, weight, steps(), totals);
                default: return multiply_few<kForm, 3>(x, weight, steps(), totals);
            }
        }
    }

    void many(const uint8_t* weight, int64_t row, int64_t rows, int32_t* totals) const {
        std::fill(totals, totals + rows * kPanel, 0);
        const int64_t all_steps = steps();
        const int64_t pass_steps = has_groups(kForm) ? kGroupColumns / step_columns(kForm) : kPassSteps;
        const uint8_t* w = weight;
        for (int64_t step = 0; step < all_steps; step += pass_steps) {
            const int64_t steps = std::min(pass_steps, all_steps - step);
            const int64_t column = step * step_columns(kForm), groups = group_count(call_.columns);
            const TileRows x{call_.x + row * call_.x_stride + column, call_.x_stride, call_.x_sums + row * groups + column / kGroupColumns, groups};
            pass(x, w, steps, rows, totals, row == 0);
            w += steps * kStepBytes + (has_groups(kForm) ? kGroupBytes : 0);
        }
    }

    // Some steps, for all rows. The fetching of weights is spread over the tiles of rows: the memory works also while
    // later tiles are multiplied by weights that are in the cache, where they are after the first block of rows.
    void pass(const TileRows& x, const uint8_t* w, int64_t steps, int64_t rows, int32_t* totals, bool is_first) const {
        const uint8_t* parameters = w + steps * kStepBytes;
        for_each_tile(rows, [&](int64_t r, auto size, int64_t tile, int64_t tiles) {
            const TileRows tile_rows{x.codes + r * x.codes_stride, x.codes_stride, x.sums + r * x.sums_stride, x.sums_stride};
            Ahead ahead{};
            for (int64_t v = kVectors * tile / tiles; is_first && v < kVectors * (tile + 1) / tiles; ++v) ahead.bytes[v] = kBytesAhead;
            for (int o = 0; o < kPanel; o += kTileOutputs)
                multiply_tile<kForm, decltype(size)::value>(tile_rows, w + 4 * o, steps, parameters + o, totals + r * kPanel + o, ahead);
        });
        if (has_groups(kForm) && is_first) fetch_ahead(parameters, kGroupBytes);
    }

    void write(const uint8_t* floats, int64_t first, int64_t row, int64_t rows, int32_t* totals) const {
        if (row == 0) fetch_ahead(floats, layout_.bytes - layout_.floats);
        for (int64_t r = 0; r < rows; ++r) {
            int32_t* total = totals + r * kPanel;
            const int32_t row_sum = has_groups(kForm) ? 0 : row_sums_[row + r];
            if constexpr (kForm == WeightForm::kChannel8)
                for (int o = 0; o < kPanel; ++o) total[o] = static_cast<uint32_t>(total[o]) - 128u * row_sum;
            if (call_.sums) {
                std::copy_n(total, std::min<int64_t>(kPanel, call_.outputs - first), call_.sums + (row + r) * call_.outputs + first);
                continue;
            }
            const float* parameters = reinterpret_cast<const float*>(floats);
            switch (call_.type) {
                case Type::kBfloat16: write_row<bfloat16>(parameters, first, row + r, total, row_sum); break;
                case Type::kFloat16: write_row<float16>(parameters, first, row + r, total, row_sum); break;
                default: write_row<float>(parameters, first, row + r, total, row_sum);
            }
        }
    }

    template <typename T>
    void write_row(const float* scales, int64_t first, int64_t row, const int32_t* total, [[maybe_unused]] int32_t row_sum) const {
        const float* zeros = scales + kPanel;
        const float* biases = kForm == WeightForm::kChannel4 ? zeros + kPanel : zeros;
        T values[kPanel];
        const int64_t count = std::min<int64_t>(kPanel, call_.outputs - first);
        T* y = static_cast<T*>(call_.y) + row * call_.outputs + first;
        for (int o = 0; o < kPanel; o += kLanes) {
            FloatVector value = __builtin_convertvector(read<IntVector>(total + o), FloatVector) * load(scales + o);
            if constexpr (kForm == WeightForm::kChannel4) value -= static_cast<float>(row_sum) * load(zeros + o);
            store((count == kPanel ? y : values) + o, value * call_.x_scales[row] + load(biases + o));
        }
        if (count < kPanel) std::copy_n(values, count, y);
    }

    const QuantizedLinearCall& call_;
    const PanelLayout layout_;
    const int32_t* row_sums_ = nullptr;
};

// The weights of one panel as bytes, in the order of the steps.
class PanelPacker {
  public:
    PanelPacker(const QuantizedPackCall& call, int64_t panel) : call_(call), layout_(call.form, call.columns), first_(panel * kPanel) {
        panel_ = static_cast<uint8_t*>(call.packed) + panel * layout_.bytes;
        std::fill(panel_, panel_ + layout_.bytes, uint8_t{0});
    }

    void pack() {
        const int64_t count = std::min<int64_t>(kPanel, call_.outputs - first_);
        for (int64_t o = 0; o < count; ++o) {
            for (int64_t c = 0; c < call_.columns; ++c) place_code(o, c);
            for (int64_t g = 0; g < layout_.groups; ++g) place_group(o, g);
            place_floats(o);
        }
    }

  private:
    void place_code(int64_t o, int64_t column) {
        const int64_t output = first_ + o, per_step = step_columns(call_.form), step = column / per_step, within = column % per_step;
        uint8_t* bytes = step_at(step) + o * 4;
        if (call_.form == WeightForm::kChannel8) {
            bytes[within] = call_.codes[output * call_.columns + column] + 128;
        } else {
            const uint8_t pair = call_.codes[output * ((call_.columns + 1) / 2) + column / 2];
            const uint8_t code = column % 2 ? pair >> 4 : pair & 15;
            bytes[within % 4] |= within < 4 ? code : code << 4;
        }
    }

    void place_group(int64_t o, int64_t group) {
        const int64_t from = (first_ + o) * layout_.groups + group;
        const int64_t steps = std::min((group + 1) * kGroupColumns, padded_to_steps(call_.columns)) / step_columns(call_.form);
        uint8_t* parameters = panel_ + steps * kStepBytes + group * kGroupBytes + o;
        parameters[0] = call_.group_scales[from];
        parameters[kPanel] = call_.group_zeros[from];
    }

    void place_floats(int64_t o) {
        float* floats = reinterpret_cast<float*>(panel_ + layout_.floats) + o;
        *floats = call_.scales[first_ + o];
        if (call_.form == WeightForm::kChannel4) *(floats += kPanel) = call_.zeros[first_ + o];
        if (call_.bias) floats[kPanel] = call_.bias[first_ + o];
    }

    uint8_t* step_at(int64_t step) const {
        const int64_t groups_before = layout_.groups ? step * step_columns(call_.form) / kGroupColumns : 0;
        return panel_ + step * kStepBytes + groups_before * kGroupBytes;
    }

    const QuantizedPackCall& call_;
    const PanelLayout layout_;
    const int64_t first_;
    uint8_t* panel_;
};

}  // namespace

int64_t quantized_panel_bytes(WeightForm form, int64_t columns) { return PanelLayout(form, columns).bytes; }

void pack_quantized_weight(const QuantizedPackCall& call) {
    const int64_t panels = (call.outputs + kPanel - 1) / kPanel;
#pragma omp parallel for num_threads(std::max(1, call.threads)) schedule(static)
    for (int64_t panel = 0; panel < panels; ++panel) PanelPacker(call, panel).pack();
}

void quantized_linear(const QuantizedLinearCall& call) {
    switch (call.form) {
        case WeightForm::kGroups4: return QuantizedLinear<WeightForm::kGroups4>(call).run();
        case WeightForm::kChannel4: return QuantizedLinear<WeightForm::kChannel4>(call).run();
        case WeightForm::kChannel8: return QuantizedLinear<WeightForm::kChannel8>(call).run();
    }
}

}  // namespace lapidist
