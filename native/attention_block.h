// Attention goes over a sequence sixteen tokens at a time. How their keys and values lie in the cache is the business of
// a class of its own, which plain_keys.h and quantized_keys.h have. It offers
//
//     Number                   what queries and weights are multiplied as
//     kNeedsQuerySums          whether products need the sum of a query's channels
//     query_width, sum_width   length of a row of packed queries and of sums
//     sum_position             where a channel stands in a row of sums
//     seek                     goes to a block of tokens
//     take                     takes the keys and values of one head of them; or, if kInPhases,
//     take_keys, take_values   the keys of one head after the other, then the values
//     row_tile                 query rows that are multiplied with them at once, at most
//     multiply_keys            the scores of some rows
//     weigh                    weights as values are multiplied by them, and what they add to a row's denominator
//     add_values               the weighted sum of the values, added to some rows of sums
#pragma once

#include "kernels.h"
#include "scratch.h"
#include "simd.h"

namespace lapidist {

constexpr int kBlock = 16;                       // keys per step
constexpr int kBlockVectors = kBlock / kLanes;   // vectors that hold one score for each of them
constexpr int kRowTile = kLanes == 16 ? 12 : 4;  // rows whose sums are in registers at once

}  // namespace lapidist
