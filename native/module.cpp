// Python bindings. Tensors are addresses; nothing here keeps the interpreter's lock while it computes.
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "kernels.h"
#include "quantized_rows.h"

#define LAPIDIST_STRING_(x) #x
#define LAPIDIST_STRING(x) LAPIDIST_STRING_(x)

namespace nb = nanobind;
using namespace nb::literals;

namespace lapidist {
namespace {

template <typename T>
T* pointer(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

#if defined(__x86_64__)
// Not every compiler's __builtin_cpu_supports knows it.
bool has_avx_vnni() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}
#endif

// The builds of this library that the processor and the operating system can run, best first.
std::vector<std::string> supported() {
    std::vector<std::string> names;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    const bool avx512_vnni = avx512 && __builtin_cpu_supports("avx512vnni");
    if (avx512_vnni && __builtin_cpu_supports("avx512bf16")) names.push_back("avx512_bf16");
    if (avx512_vnni) names.push_back("avx512_vnni");
    if (avx512) names.push_back("avx512");
    if (avx2 && has_avx_vnni()) names.push_back("avx_vnni");
    if (avx2) names.push_back("avx2");
#endif
    names.push_back("portable");
    return names;
}

int64_t bind_attention(int type, uintptr_t query, int64_t query_stride, uintptr_t keys, uintptr_t values, uintptr_t output,
                       uintptr_t query_starts, uintptr_t kv_lengths, uintptr_t page_table, int64_t page_table_stride,
                       int sequences, int heads, int kv_heads, int head_dim, int page_size, float scale, float softcap,
                       int window, int mode, uintptr_t phi, int split_tokens, int threads, int kv_bits) {
    const AttentionCall call{static_cast<Type>(type), pointer<const void>(query), query_stride, pointer<const void>(keys),
                             pointer<const void>(values), pointer<void>(output), pointer<const int32_t>(query_starts),
                             pointer<const int32_t>(kv_lengths), pointer<const int32_t>(page_table), page_table_stride,
                             sequences, heads, kv_heads, head_dim, page_size, scale, softcap, window,
                             static_cast<SoftmaxMode>(mode), pointer<const float>(phi), split_tokens, threads, kv_bits};
    nb::gil_scoped_release release;
    return attention(call);
}

void bind_kv_write(int type, uintptr_t key, uintptr_t value, int64_t key_stride, int64_t value_stride, uintptr_t keys,
                   uintptr_t values, uintptr_t slots, int64_t tokens, int kv_heads, int head_dim, int page_size, int threads,
                   int kv_bits) {
    const KvWriteCall call{static_cast<Type>(type), pointer<const void>(key), pointer<const void>(value), key_stride, value_stride,
                           pointer<void>(keys), pointer<void>(values), pointer<const int64_t>(slots), tokens, kv_heads,
                           head_dim, page_size, threads, kv_bits};
    nb::gil_scoped_release release;
    kv_write(call);
}

void bind_pack(int type, uintptr_t weight, uintptr_t packed, int64_t columns, int64_t outputs, int threads) {
    const PackCall call{static_cast<Type>(type), pointer<const void>(weight), pointer<void>(packed), columns, outputs, threads};
    nb::gil_scoped_release release;
    pack_weight(call);
}

template <void (*kKernel)(const LinearCall&)>
void bind_linear(int type, uintptr_t x, int64_t x_stride, uintptr_t weight, uintptr_t bias, uintptr_t y, int64_t rows,
                 int64_t columns, int64_t outputs, int threads) {
    const LinearCall call{static_cast<Type>(type), pointer<const void>(x), x_stride, pointer<const void>(weight),
                          pointer<const void>(bias), pointer<void>(y), rows, columns, outputs, threads};
    nb::gil_scoped_release release;
    kKernel(call);
}

void bind_rms_norm(int type, uintptr_t x, int64_t token_stride, uintptr_t weight, bool weight_per_head, uintptr_t y,
                   int64_t tokens, int64_t heads, int64_t columns, float eps, int threads) {
    const RmsNormCall call{static_cast<Type>(type), pointer<const void>(x), token_stride, pointer<const float>(weight),
                           weight_per_head, pointer<void>(y), tokens, heads, columns, eps, threads};
    nb::gil_scoped_release release;
    rms_norm(call);
}

void bind_rope(int type, uintptr_t x, int64_t token_stride, uintptr_t cos, uintptr_t sin, int64_t tokens, int64_t heads,
               int64_t head_dim, int64_t rotary_dim, int threads) {
    const RopeCall call{static_cast<Type>(type), pointer<void>(x), token_stride, pointer<const void>(cos),
                        pointer<const void>(sin), tokens, heads, head_dim, rotary_dim, threads};
    nb::gil_scoped_release release;
    rope(call);
}

void bind_silu_multiply(int type, uintptr_t gate_up, uintptr_t y, int64_t tokens, int64_t columns, int threads) {
    const SiluCall call{static_cast<Type>(type), pointer<const void>(gate_up), pointer<void>(y), tokens, columns, threads};
    nb::gil_scoped_release release;
    silu_multiply(call);
}

double bind_read_memory(uintptr_t data, int64_t bytes, int threads) {
    nb::gil_scoped_release release;
    return read_memory(pointer<const void>(data), bytes, threads);
}

void bind_pack_quantized(int form, uintptr_t codes, uintptr_t scales, uintptr_t zeros, uintptr_t group_scales, uintptr_t group_zeros,
                         uintptr_t bias, uintptr_t packed, int64_t columns, int64_t outputs, int threads) {
    const QuantizedPackCall call{static_cast<WeightForm>(form), pointer<const uint8_t>(codes), pointer<const float>(scales),
                                 pointer<const float>(zeros), pointer<const uint8_t>(group_scales), pointer<const int8_t>(group_zeros),
                                 pointer<const float>(bias), pointer<void>(packed), columns, outputs, threads};
    nb::gil_scoped_release release;
    pack_quantized_weight(call);
}

// A packed weight and what is known before a call; Python keeps its memory. The call takes few arguments by position alone:
// after a weight has gone through the caches, every object and line of code on the way to the next one comes from far away.
struct QuantizedLayer {
    WeightForm form;
    Type type;
    const void* weight;
    int64_t columns, outputs;

    QuantizedLayer(int form, int type, uintptr_t weight, int64_t columns, int64_t outputs)
        : form(static_cast<WeightForm>(form)), type(static_cast<Type>(type)), weight(pointer<const void>(weight)), columns(columns), outputs(outputs) {}

    void multiply(uintptr_t x, int64_t rows, uintptr_t y, int threads) const {
        const QuantizedRowsOut from = quantized_rows_at(pointer<void>(x), rows, columns);
        const QuantizedLinearCall call{form, type, from.codes, from.codes_stride, from.scales, from.sums, weight, pointer<void>(y), nullptr,
                                       rows, columns, outputs, threads};
        nb::gil_scoped_release release;
        quantized_linear(call);
    }
};

void bind_quantized_sums(int form, uintptr_t weight, int64_t columns, int64_t outputs, uintptr_t x, int64_t rows, uintptr_t sums,
                         int threads) {
    const QuantizedRowsOut from = quantized_rows_at(pointer<void>(x), rows, columns);
    const QuantizedLinearCall call{static_cast<WeightForm>(form), Type::kFloat32, from.codes, from.codes_stride, from.scales, from.sums,
                                   pointer<const void>(weight), nullptr, pointer<int32_t>(sums), rows, columns, outputs, threads};
    nb::gil_scoped_release release;
    quantized_linear(call);
}

void bind_weight_only_linear(int form, int type, uintptr_t x, int64_t x_stride, uintptr_t weight, uintptr_t y, int64_t rows,
                             int64_t columns, int64_t outputs, int threads) {
    const WeightOnlyLinearCall call{static_cast<WeightForm>(form), static_cast<Type>(type), pointer<const void>(x), x_stride,
                                    pointer<const void>(weight), pointer<void>(y), rows, columns, outputs, threads};
    nb::gil_scoped_release release;
    weight_only_linear(call);
}

void bind_quantize_rows(int type, uintptr_t x, int64_t x_stride, int64_t rows, int64_t columns, uintptr_t out, int threads) {
    const QuantizeRowsCall call{static_cast<Type>(type), pointer<const void>(x), x_stride, quantized_rows_at(pointer<void>(out), rows, columns),
                                rows, columns, threads};
    nb::gil_scoped_release release;
    quantize_rows(call);
}

void bind_rms_norm_quantized(int type, uintptr_t x, int64_t x_stride, int64_t rows, int64_t columns, uintptr_t weight, float eps,
                             uintptr_t out, int threads) {
    const QuantizedNormCall call{static_cast<Type>(type), pointer<const void>(x), x_stride, pointer<const float>(weight),
                                 quantized_rows_at(pointer<void>(out), rows, columns), rows, columns, eps, threads};
    nb::gil_scoped_release release;
    rms_norm_quantized(call);
}

void bind_silu_multiply_quantized(int type, uintptr_t gate_up, int64_t rows, int64_t columns, uintptr_t out, int threads) {
    const QuantizedSiluCall call{static_cast<Type>(type), pointer<const void>(gate_up), quantized_rows_at(pointer<void>(out), rows, columns),
                                 rows, columns, threads};
    nb::gil_scoped_release release;
    silu_multiply_quantized(call);
}

void define_quantized(nb::module_& m) {
    m.def("quantized_panel_bytes", [](int form, int64_t columns) { return quantized_panel_bytes(static_cast<WeightForm>(form), columns); },
          "form"_a, "columns"_a);
    m.def("pack_quantized_weight", &bind_pack_quantized, "form"_a, "codes"_a, "scales"_a, "zeros"_a, "group_scales"_a, "group_zeros"_a,
          "bias"_a, "packed"_a, "columns"_a, "outputs"_a, "threads"_a);
    nb::class_<QuantizedLayer>(m, "QuantizedLayer")
        .def(nb::init<int, int, uintptr_t, int64_t, int64_t>(), "form"_a, "type"_a, "weight"_a, "columns"_a, "outputs"_a)
        .def("multiply", &QuantizedLayer::multiply);
    m.def("quantized_sums", &bind_quantized_sums, "form"_a, "weight"_a, "columns"_a, "outputs"_a, "x"_a, "rows"_a, "sums"_a, "threads"_a);
    m.def("weight_only_linear", &bind_weight_only_linear, "form"_a, "type"_a, "x"_a, "x_stride"_a, "weight"_a, "y"_a, "rows"_a,
          "columns"_a, "outputs"_a, "threads"_a);
    m.def("row_codes_bytes", &row_codes_bytes, "columns"_a);
    m.def("quantize_rows", &bind_quantize_rows, "type"_a, "x"_a, "x_stride"_a, "rows"_a, "columns"_a, "out"_a, "threads"_a);
    m.def("rms_norm_quantized", &bind_rms_norm_quantized, "type"_a, "x"_a, "x_stride"_a, "rows"_a, "columns"_a, "weight"_a, "eps"_a,
          "out"_a, "threads"_a);
    m.def("silu_multiply_quantized", &bind_silu_multiply_quantized, "type"_a, "gate_up"_a, "rows"_a, "columns"_a, "out"_a, "threads"_a);
    m.def("vnni_peak", [](int64_t rounds, int threads) { nb::gil_scoped_release release; return vnni_peak(rounds, threads); }, "rounds"_a,
          "threads"_a);
}

}  // namespace
}  // namespace lapidist

NB_MODULE(LAPIDIST_MODULE, m) {
    using namespace lapidist;
    m.attr("isa") = LAPIDIST_STRING(LAPIDIST_ISA);
    m.def("supported", &supported);
    m.def("attention", &bind_attention, "type"_a, "query"_a, "query_stride"_a, "keys"_a, "values"_a, "output"_a,
          "query_starts"_a, "kv_lengths"_a, "page_table"_a, "page_table_stride"_a, "sequences"_a, "heads"_a, "kv_heads"_a,
          "head_dim"_a, "page_size"_a, "scale"_a, "softcap"_a, "window"_a, "mode"_a, "phi"_a, "split_tokens"_a, "threads"_a,
          "kv_bits"_a);
    m.def("kv_write", &bind_kv_write, "type"_a, "key"_a, "value"_a, "key_stride"_a, "value_stride"_a, "keys"_a,
          "values"_a, "slots"_a, "tokens"_a, "kv_heads"_a, "head_dim"_a, "page_size"_a, "threads"_a, "kv_bits"_a);
    m.def("pack_weight", &bind_pack, "type"_a, "weight"_a, "packed"_a, "columns"_a, "outputs"_a, "threads"_a);
    const auto linear = [&](const char* name, auto kernel) {
        m.def(name, kernel, "type"_a, "x"_a, "x_stride"_a, "weight"_a, "bias"_a, "y"_a, "rows"_a, "columns"_a, "outputs"_a, "threads"_a);
    };
    linear("gemv", &bind_linear<gemv>);
    linear("flat_gemm", &bind_linear<flat_gemm>);
    linear("gemm", &bind_linear<gemm>);
    m.def("advise_huge_pages", [](uintptr_t data, int64_t bytes) { advise_huge_pages(pointer<void>(data), bytes); }, "data"_a, "bytes"_a);
    m.def("rms_norm", &bind_rms_norm, "type"_a, "x"_a, "token_stride"_a, "weight"_a, "weight_per_head"_a, "y"_a, "tokens"_a,
          "heads"_a, "columns"_a, "eps"_a, "threads"_a);
    m.def("rope", &bind_rope, "type"_a, "x"_a, "token_stride"_a, "cos"_a, "sin"_a, "tokens"_a, "heads"_a, "head_dim"_a,
          "rotary_dim"_a, "threads"_a);
    m.def("silu_multiply", &bind_silu_multiply, "type"_a, "gate_up"_a, "y"_a, "tokens"_a, "columns"_a, "threads"_a);
    define_quantized(m);
    m.def("read_memory", &bind_read_memory, "data"_a, "bytes"_a, "threads"_a);
}
