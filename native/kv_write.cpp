// New keys and values into the pages of the cache.
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "kernels.h"
#include "kv_quantize.h"

namespace lapidist {
namespace {

struct CopyRow {
    int64_t bytes;
    int page_size;

    int64_t page_bytes() const { return page_size * bytes; }
    void operator()(const void* row, char* page, int slot) const { std::memcpy(page + slot * bytes, row, bytes); }
};

// A head's row of a token into its page.
template <typename Write>
void write_rows(const KvWriteCall& call, int element_bytes, const Write& write) {
    const auto write_token = [&](const void* from, int64_t stride, void* to, int64_t token) {
        const int64_t page = call.slots[token] / call.page_size;
        const char* source = static_cast<const char*>(from) + token * stride * element_bytes;
        char* target = static_cast<char*>(to) + page * call.kv_heads * write.page_bytes();
        for (int head = 0; head < call.kv_heads; ++head) {
            write(source + int64_t{head} * call.head_dim * element_bytes, target + head * write.page_bytes(), call.slots[token] % call.page_size);
        }
    };
    const int threads = call.tokens >= 64 ? std::max(1, call.threads) : 1;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t token = 0; token < call.tokens; ++token) {
        write_token(call.key, call.key_stride, call.keys, token);
        write_token(call.value, call.value_stride, call.values, token);
    }
}

template <typename T>
void write_rows(const KvWriteCall& call) {
    if (call.kv_bits == 16) {
        write_rows(call, sizeof(T), CopyRow{int64_t{call.head_dim} * int64_t{sizeof(T)}, call.page_size});
    } else {
        write_rows(call, sizeof(T), QuantizeRow<T>{{call.page_size, call.head_dim, call.kv_bits}});
    }
}

}  // namespace

void kv_write(const KvWriteCall& call) {
    switch (call.type) {
        case Type::kBfloat16: return write_rows<bfloat16>(call);
        case Type::kFloat16: return write_rows<float16>(call);
        default: return write_rows<float>(call);
    }
}

}  // namespace lapidist
