// How quantized weights lie in memory once they are packed.
//
// Packed, the weights of 64 outputs form a panel, which is read from front to back in one stream:
//   - the columns in steps: 8 columns of 4 bits [64, 4], low nibbles columns 0 to 3 of the step and high nibbles 4 to 7, or
//     4 columns of 8 bits [64, 4] with 128 added: a 32-bit lane is one output. kGroups4: after each group of 128 columns
//     its scales as uint8 [64] and its zeros as int8 [64];
//   - as floats, [64] each: scales; zeros for kChannel4; biases.
// Columns are padded with zeros to a multiple of 8, outputs to one of 64.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "simd.h"

namespace lapidist {

constexpr int kPanel = kPanelOutputs;
constexpr int kStepBytes = 4 * kPanel;
constexpr int kGroupBytes = 2 * kPanel;
constexpr int64_t kBytesAhead = 8192;  // nearer or farther streams more slowly

constexpr bool has_groups(WeightForm form) { return form == WeightForm::kGroups4; }
constexpr int step_columns(WeightForm form) { return form == WeightForm::kChannel8 ? 4 : 8; }

inline int64_t padded_to_steps(int64_t columns) { return (columns + 7) / 8 * 8; }
inline int64_t group_count(int64_t columns) { return (columns + kGroupColumns - 1) / kGroupColumns; }

// Where the parts of a panel lie.
struct PanelLayout {
    PanelLayout(WeightForm form, int64_t columns)
        : groups(has_groups(form) ? group_count(columns) : 0),
          floats(padded_to_steps(columns) / step_columns(form) * kStepBytes + groups * kGroupBytes),
          bytes(floats + (form == WeightForm::kChannel4 ? 3 : 2) * kPanel * 4) {}

    const int64_t groups, floats, bytes;
};

// Fetches what lies kBytesAhead behind some bytes of a panel. Without gaps between the calls the memory streams.
inline void fetch_ahead(const uint8_t* from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) prefetch_once(from + kBytesAhead + i);
}

}  // namespace lapidist
