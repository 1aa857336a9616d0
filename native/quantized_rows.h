// Where rows of 8-bit integers lie in one piece of memory, of which Python then hands over one address: the codes of all
// rows, then their sums, then their scales.
#pragma once

#include "kernels.h"

namespace lapidist {

// Bytes from one row's codes to the next one's: an odd number of cache lines, for rows a power of two apart would evict one
// another from the first-level cache.
inline int64_t row_codes_bytes(int64_t columns) { return ((columns + 63) / 64 | 1) * 64; }

inline QuantizedRowsOut quantized_rows_at(void* memory, int64_t rows, int64_t columns) {
    const int64_t stride = row_codes_bytes(columns), groups = (columns + kGroupColumns - 1) / kGroupColumns;
    int8_t* codes = static_cast<int8_t*>(memory);
    int32_t* sums = reinterpret_cast<int32_t*>(codes + rows * stride);
    return {codes, stride, reinterpret_cast<float*>(sums + rows * groups), sums};
}

}  // namespace lapidist
