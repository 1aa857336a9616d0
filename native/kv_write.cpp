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
    int page_rows;

    int64_t page_bytes() const { return page_rows * bytes; }
    void operator()(const void* from, char* page, int row) const { std::memcpy(page + row * bytes, from, bytes); }
};

// The heads of each token to their rows of its page.
template <typename Write>
void write_rows(const KvWriteCall& call, int element_bytes, const Write& write) {
    const auto write_token = [&](const void* from, int64_t stride, void* to, int64_t token) {
        const int64_t page = call.slots[token] / call.page_size;
        const char* source = static_cast<const char*>(from) + token * stride * element_bytes;
        char* target = static_cast<char*>(to) + page * write.page_bytes();
        int row = call.slots[token] % call.page_size;
        for (int head = 0; head < call.kv_heads; ++head, row += call.page_size) {
            write(source + int64_t{head} * call.head_dim * element_bytes, target, row);
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
    const int page_rows = call.kv_heads * call.page_size;
    if (call.kv_bits == 16) {
        write_rows(call, sizeof(T), CopyRow{int64_t{call.head_dim} * int64_t{sizeof(T)}, page_rows});
    } else {
        write_rows(call, sizeof(T), QuantizeRow<T>({page_rows, call.head_dim, call.kv_bits}));
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
