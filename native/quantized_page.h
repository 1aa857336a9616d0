// How the keys, or the values, lie in a page of the quantized cache. A row is a head of a token, the tokens of a head follow
// one another. The codes of all rows come first, which keeps them on cache lines, then their scales, then their zeros, so
// that what undoes the codes comes with them.
//
// A row of codes is a row of 16-bit words (little-endian), in each of which the channels lie a part of the row apart: with
// four bits nibble k of word j is channel k * head_dim / 4 + j, with eight bits byte k of it is channel k * head_dim / 2 + j.
// One shift and one mask then give channels that follow one another.
#pragma once

#include <cstdint>

namespace lapidist {

// A channel is (code - zero / zero_steps()) * scale, with a scale in float16 and a zero of one byte for each row.
struct QuantizedPage {
    int rows;  // KV heads times tokens
    int head_dim, bits;

    // Parts of a code that the zero counts: its byte reaches as far as the codes.
    float zero_steps() const { return static_cast<float>(1 << (8 - bits)); }
    int words() const { return head_dim * bits / 16; }
    int64_t row_bytes() const { return int64_t{2} * words(); }
    int64_t code_offset(int row) const { return row * row_bytes(); }
    int64_t scale_offset(int row) const { return rows * row_bytes() + 2 * row; }
    int64_t zero_offset(int row) const { return scale_offset(rows) + row; }
    int64_t bytes() const { return zero_offset(rows); }
};

}  // namespace lapidist
