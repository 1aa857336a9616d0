// How the keys, or the values, of one head lie in a page of the quantized cache: the codes of all tokens, then their
// scales, then their zeros, so that what undoes the codes comes with them.
//
// A row of codes is a row of 16-bit words (little-endian), in each of which the channels lie a part of the row apart: with
// four bits nibble k of word j is channel k * head_dim / 4 + j, with eight bits byte k of it is channel k * head_dim / 2 + j.
// One shift and one mask then give channels that follow one another.
#pragma once

#include <cstdint>

namespace lapidist {

// A channel is (code - zero) * scale, with a scale and a zero in float16 for each token.
struct QuantizedPage {
    int page_size, head_dim, bits;

    int words() const { return head_dim * bits / 16; }
    int64_t row_bytes() const { return int64_t{2} * words(); }
    int64_t code_offset(int slot) const { return slot * row_bytes(); }
    int64_t scale_offset(int slot) const { return page_size * row_bytes() + 2 * slot; }
    int64_t zero_offset(int slot) const { return scale_offset(page_size) + 2 * slot; }
    int64_t bytes() const { return zero_offset(page_size); }
};

}  // namespace lapidist
