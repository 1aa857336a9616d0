// What the native library computes. Tensors come as pointers; the Python side has checked shapes and dtypes.
#pragma once

#include <cstdint>

namespace lapidist {

enum class Type { kFloat32 = 0, kBfloat16 = 1, kFloat16 = 2 };

// The numbers of lapidist.kernels.softmax.SoftmaxMode.
enum class SoftmaxMode { kOnline = 0, kLazy = 1, kUnified = 2 };

struct AttentionCall {
    Type type;
    const void* query;      // [tokens, heads, head_dim], tokens query_stride elements apart
    int64_t query_stride;
    const void* keys;       // [pages, kv_heads, page_size, head_dim], or, of codes, as in quantized_page.h
    const void* values;     // the same
    void* output;           // [tokens, heads, head_dim]
    const int32_t* query_starts;  // [sequences + 1]
    const int32_t* kv_lengths;    // [sequences]
    const int32_t* page_table;    // [sequences, page_table_stride]
    int64_t page_table_stride;
    int sequences, heads, kv_heads, head_dim, page_size;
    float scale;
    float softcap;          // 0 for none
    int window;             // 0 for none
    SoftmaxMode mode;
    const float* phi;       // [heads], or null for zeros
    int split_tokens;       // keys per partial sum where a sequence has few queries
    int threads;
    int kv_bits = 16;       // of a code: 4 or 8; 16 for keys and values of the queries' type
};

// Causal attention over paged keys and values. Returns how many rows (token, head) of mode unified left the range of
// float32 and were computed again in mode online.
int64_t attention(const AttentionCall& call);

struct KvWriteCall {
    Type type;          // of the new keys and values
    const void* key;    // [tokens, kv_heads, head_dim], tokens key_stride elements apart
    const void* value;  // the same, value_stride elements apart
    int64_t key_stride, value_stride;
    void* keys;         // as of AttentionCall
    void* values;
    const int64_t* slots;  // [tokens]
    int64_t tokens;
    int kv_heads, head_dim, page_size;
    int threads;
    int kv_bits = 16;   // as of AttentionCall
};

void kv_write(const KvWriteCall& call);

constexpr int kPanelOutputs = 64;

// Fetches the memory in pages of 2 MiB where the operating system can; call before it is first written.
void advise_huge_pages(void* data, int64_t bytes);

struct PackCall {
    Type type;
    const void* weight;  // [outputs, columns]
    void* packed;        // [ceil(outputs / 64), ceil(columns / 2) * 2, 64], see linear.cpp
    int64_t columns, outputs;
    int threads;
};

void pack_weight(const PackCall& call);

struct LinearCall {
    Type type;
    const void* x;       // [rows, columns], rows x_stride elements apart
    int64_t x_stride;
    const void* weight;  // packed
    const void* bias;    // [outputs] or null
    void* y;             // [rows, outputs]
    int64_t rows, columns, outputs;
    int threads;
};

// The same sums, bit for bit, with the loops cut differently.
void gemv(const LinearCall& call);       // few rows: each panel from front to back, all rows at once
void flat_gemm(const LinearCall& call);  // some rows: short passes over a panel, which stay in the first-level cache
void gemm(const LinearCall& call);       // many rows: blocks of them, whose sums stay in the second-level cache

struct RmsNormCall {
    Type type;
    const void* x;        // [tokens, heads, columns], tokens token_stride elements apart
    int64_t token_stride;
    const float* weight;  // [columns], or [heads, columns]
    bool weight_per_head;
    void* y;              // [tokens, heads, columns]
    int64_t tokens, heads, columns;
    float eps;
    int threads;
};

// y = x / sqrt(mean(x^2) + eps) * weight over the columns.
void rms_norm(const RmsNormCall& call);

struct RopeCall {
    Type type;
    void* x;          // [tokens, heads, head_dim], tokens token_stride elements apart; changed in place
    int64_t token_stride;
    const void* cos;  // [tokens, rotary_dim]
    const void* sin;  // the same; the first half carries a minus sign
    int64_t tokens, heads, head_dim, rotary_dim;
    int threads;
};

void rope(const RopeCall& call);

struct SiluCall {
    Type type;
    const void* gate_up;  // [tokens, 2 * columns]
    void* y;              // [tokens, columns]
    int64_t tokens, columns;
    int threads;
};

// y = gate / (1 + e^-gate) * up.
void silu_multiply(const SiluCall& call);

// Sums `bytes` bytes of memory as 32-bit floats: what reading costs when nothing is computed.
double read_memory(const void* data, int64_t bytes, int threads);

// Of lapidist.kernels.quantized_weight.QuantizedWeight: 4 bits in groups of columns, 4 bits, 8 bits.
enum class WeightForm { kGroups4 = 0, kChannel4 = 1, kChannel8 = 2 };

constexpr int kGroupColumns = 128;

// Of the packed weights of 64 outputs, see quantized_linear.cpp.
int64_t quantized_panel_bytes(WeightForm form, int64_t columns);

struct QuantizedPackCall {
    WeightForm form;
    const uint8_t* codes;         // [outputs, ceil(columns / 2)], or the bits of int8 [outputs, columns]
    const float* scales;          // [outputs]
    const float* zeros;           // [outputs], for kChannel4
    const uint8_t* group_scales;  // [outputs, groups], for kGroups4
    const int8_t* group_zeros;    // the same
    const float* bias;            // [outputs] or null
    void* packed;                 // [ceil(outputs / 64), quantized_panel_bytes]
    int64_t columns, outputs;
    int threads;
};

void pack_quantized_weight(const QuantizedPackCall& call);

struct QuantizedLinearCall {
    WeightForm form;
    Type type;              // of y
    const int8_t* x;        // [rows, columns rounded up to a multiple of 8], zeros beyond the columns; none is -128
    int64_t x_stride;
    const float* x_scales;  // [rows]
    const int32_t* x_sums;  // [rows, groups], of the codes x
    const void* weight;     // packed
    void* y;                // [rows, outputs]
    int32_t* sums;          // null; else it gets the integers, before any scale, and y nothing
    int64_t rows, columns, outputs;
    int threads;
};

// y = x W^T + b of integers with scales.
void quantized_linear(const QuantizedLinearCall& call);

struct WeightOnlyLinearCall {
    WeightForm form;
    Type type;           // of x and y
    const void* x;       // [rows, columns], rows x_stride elements apart
    int64_t x_stride;
    const void* weight;  // packed for quantized_linear
    void* y;             // [rows, outputs]
    int64_t rows, columns, outputs;
    int threads;
};

// y = x W^T + b of floating-point x, the weight's integers expanded piece by piece.
void weight_only_linear(const WeightOnlyLinearCall& call);

// Rows as integers: x = code * scale, the scale the row's largest magnitude / 127.
struct QuantizedRowsOut {
    int8_t* codes;  // [rows, codes_stride], zeros beyond the columns
    int64_t codes_stride;
    float* scales;  // [rows]; NaN, with zeros for codes, where a row is not finite
    int32_t* sums;  // [rows, groups] of the codes of 128 columns each
};

struct QuantizeRowsCall {
    Type type;
    const void* x;  // [rows, columns], rows x_stride elements apart
    int64_t x_stride;
    QuantizedRowsOut out;
    int64_t rows, columns;
    int threads;
};

void quantize_rows(const QuantizeRowsCall& call);

struct QuantizedNormCall {
    Type type;
    const void* x;  // [rows, columns], rows x_stride elements apart
    int64_t x_stride;
    const float* weight;  // [columns]
    QuantizedRowsOut out;
    int64_t rows, columns;
    float eps;
    int threads;
};

void rms_norm_quantized(const QuantizedNormCall& call);

struct QuantizedSiluCall {
    Type type;
    const void* gate_up;  // [rows, 2 * columns]
    QuantizedRowsOut out;
    int64_t rows, columns;
    int threads;
};

void silu_multiply_quantized(const QuantizedSiluCall& call);

// Does 12 * kLanes * 4 multiplications of bytes and as many additions in each round, in registers.
int64_t vnni_peak(int64_t rounds, int threads);

}  // namespace lapidist
