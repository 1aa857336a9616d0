// New keys and values into the pages of the cache.
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "kernels.h"

namespace lapidist {

void kv_write(const KvWriteCall& call) {
    const int64_t row_bytes = int64_t{call.head_dim} * call.element_bytes;
    const auto copy = [&](const void* from, int64_t stride, void* to, int64_t token) {
        const int64_t page = call.slots[token] / call.page_size, slot = call.slots[token] % call.page_size;
        const char* source = static_cast<const char*>(from) + token * stride * call.element_bytes;
        char* target = static_cast<char*>(to) + (page * call.kv_heads * call.page_size + slot) * row_bytes;
        for (int head = 0; head < call.kv_heads; ++head) {
            std::memcpy(target + head * call.page_size * row_bytes, source + head * row_bytes, row_bytes);
        }
    };
    const int threads = call.tokens >= 64 ? std::max(1, call.threads) : 1;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t token = 0; token < call.tokens; ++token) {
        copy(call.key, call.key_stride, call.keys, token);
        copy(call.value, call.value_stride, call.values, token);
    }
}

}  // namespace lapidist
