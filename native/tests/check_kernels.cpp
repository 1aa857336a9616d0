// Checks the kernels without Python, so that sanitizers see every byte they touch: buffers of exactly the size that is
// needed, over random shapes, against a plain loop in double.
//
//     check_kernels [seed [rounds]]
//
// Prints the seed; returns 1 if anything differs. Addresses beyond a buffer are fetched ahead on purpose: that is no read.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels.h"
#include "quantized_page.h"
#include "simd.h"

using namespace lapidist;

namespace {

std::mt19937_64 generator;
int failures = 0;

int draw(int least, int most) { return std::uniform_int_distribution<int>(least, most)(generator); }

int pick(std::initializer_list<int> choices) { return choices.begin()[draw(0, static_cast<int>(choices.size()) - 1)]; }

template <typename T>
constexpr Type type_of() {
    return std::is_same_v<T, float> ? Type::kFloat32 : std::is_same_v<T, bfloat16> ? Type::kBfloat16 : Type::kFloat16;
}

// Rounding of the result, and of sums in float where the result is a float.
template <typename T>
constexpr double tolerance() {
    return std::is_same_v<T, float> ? 1e-5 : std::is_same_v<T, bfloat16> ? 0x1p-8 : 0x1p-10;
}

template <typename T>
T converted(double x) {
    T value;
    from_float(static_cast<float>(x), &value);
    return value;
}

// A vector's memory is as long as the vector: whatever is read or written past it is found.
template <typename T>
std::vector<T> normal(size_t count) {
    std::normal_distribution<float> distribution;
    std::vector<T> values(count);
    for (T& value : values) value = converted<T>(distribution(generator));
    return values;
}

template <typename T>
std::vector<T> nans(size_t count) {
    return std::vector<T>(count, converted<T>(std::numeric_limits<double>::quiet_NaN()));
}

void expect_close(const char* what, double found, double expected, double error) {
    if (std::fabs(found - expected) <= error) return;
    if (failures++ < 20) std::printf("%s: found %.9g, expected %.9g, to within %.3g\n", what, found, expected, error);
}

// Sequences with keys and values in shuffled pages; what no token owns is NaN (all bits are set; of codes the scale is),
// what no page owns is out of bounds.
template <typename T>
struct Batch {
    const int kv_heads = draw(1, 3);
    const int group = pick({1, 2, 3, 4, 5, 7, 8, 9, 17, 71});
    const int heads = kv_heads * group;
    const int head_dim = pick({1, 2, 3, 8, 16, 20, 31, 32, 33, 64, 80, 96, 127, 128});
    const int page_size = pick({1, 2, 3, 5, 16, 64});
    const int kv_bits = head_dim % 8 ? 16 : pick({16, 8, 4});
    const int window = draw(0, 2) ? 0 : draw(1, 50);
    const float softcap = draw(0, 2) ? 0.0f : 5.0f;
    const float scale = 1 / std::sqrt(static_cast<float>(head_dim));
    std::vector<int32_t> query_starts{0}, kv_lengths, page_table;
    int64_t columns = 0;
    std::vector<uint8_t> keys, values;

    Batch() {
        std::vector<int> pages_of;
        for (int s = draw(0, 4); s > 0; --s) {
            const int queries = draw(0, 1) ? 1 : pick({0, 2, 7, 8, 9, 30, 64, 65});
            query_starts.push_back(query_starts.back() + queries);
            kv_lengths.push_back(queries + (draw(0, 1) ? 0 : draw(0, 150)));
            pages_of.push_back((kv_lengths.back() + page_size - 1) / page_size);
            columns = std::max<int64_t>(columns, pages_of.back() + draw(0, 2));
        }
        deal_pages(pages_of);
    }

    int sequences() const { return static_cast<int>(kv_lengths.size()); }

    // A channel of the cache as a number; of codes with the most by which it was rounded.
    double read(const std::vector<uint8_t>& pages, int sequence, int token, int kv_head, int channel, double* error = nullptr) const {
        const uint8_t* page = pages.data() + page_table[sequence * columns + token / page_size] * page_bytes();
        const int row = kv_head * page_size + token % page_size;
        if (error) *error = 0;
        if (kv_bits == 16) {
            T number;
            std::memcpy(&number, page + (row * head_dim + channel) * sizeof(T), sizeof(T));
            return to_float(number);
        }
        const QuantizedPage layout{kv_heads * page_size, head_dim, kv_bits};
        uint16_t word;
        float16 scale;
        std::memcpy(&word, page + layout.code_offset(row) + 2 * (channel % layout.words()), sizeof word);
        std::memcpy(&scale, page + layout.scale_offset(row), sizeof scale);
        const uint8_t zero = page[layout.zero_offset(row)];
        // Of four bits an end may have given up half a step, one of a grid up to 15/14 as wide.
        if (error) *error = (kv_bits == 4 ? 0.58 : 0.501) * std::fabs(to_float(scale));
        const int code = word >> channel / layout.words() * kv_bits & ((1 << kv_bits) - 1);
        return (code - double{zero} / layout.zero_steps()) * to_float(scale);
    }

  private:
    size_t page_bytes() const {
        const int rows = kv_heads * page_size;
        return kv_bits == 16 ? rows * head_dim * sizeof(T) : QuantizedPage{rows, head_dim, kv_bits}.bytes();
    }

    void deal_pages(const std::vector<int>& pages_of) {
        std::vector<int32_t> pages(std::accumulate(pages_of.begin(), pages_of.end(), 0));
        std::iota(pages.begin(), pages.end(), 0);
        std::shuffle(pages.begin(), pages.end(), generator);
        page_table.assign(sequences() * columns, std::numeric_limits<int32_t>::max());
        keys.assign(pages.size() * page_bytes(), 0xff);
        values = keys;
        for (int s = 0; s < sequences(); ++s) {
            std::copy(pages.end() - pages_of[s], pages.end(), page_table.begin() + s * columns);
            pages.resize(pages.size() - pages_of[s]);
        }
    }
};

// New tokens into the cache, from rows that lie apart.
template <typename T>
void fill_cache(Batch<T>& batch) {
    std::vector<int64_t> slots;
    for (int s = 0; s < batch.sequences(); ++s)
        for (int t = 0; t < batch.kv_lengths[s]; ++t)
            slots.push_back(int64_t{batch.page_table[s * batch.columns + t / batch.page_size]} * batch.page_size + t % batch.page_size);
    const int64_t tokens = slots.size(), width = batch.kv_heads * batch.head_dim, stride = width + draw(0, 3);
    const std::vector<T> key = normal<T>(tokens ? (tokens - 1) * stride + width : 0);
    const std::vector<T> value = normal<T>(tokens * width);
    kv_write({type_of<T>(), key.data(), value.data(), stride, width, batch.keys.data(), batch.values.data(), slots.data(), tokens,
              batch.kv_heads, batch.head_dim, batch.page_size, draw(1, 3), batch.kv_bits});
    for (int64_t token = 0, s = 0; s < batch.sequences(); ++s) {
        for (int t = 0; t < batch.kv_lengths[s]; ++t, ++token) {
            for (int64_t i = 0; i < width; ++i) {
                const int head = i / batch.head_dim, channel = i % batch.head_dim;
                double error;
                const double key_written = batch.read(batch.keys, s, t, head, channel, &error);
                expect_close("key written", key_written, to_float(key[token * stride + i]), error);
                const double value_written = batch.read(batch.values, s, t, head, channel, &error);
                expect_close("value written", value_written, to_float(value[token * width + i]), error);
            }
        }
    }
}

template <typename T>
std::vector<double> expected_attention(const Batch<T>& batch, const T* query, int sequence, int position, int head) {
    const int kv_head = head / batch.group, first = batch.window ? std::max(0, position - batch.window + 1) : 0;
    std::vector<double> scores;
    for (int t = first; t <= position; ++t) {
        double score = 0;
        for (int c = 0; c < batch.head_dim; ++c) score += to_float(query[c]) * batch.read(batch.keys, sequence, t, kv_head, c);
        score *= batch.scale;
        scores.push_back(batch.softcap > 0 ? batch.softcap * std::tanh(score / batch.softcap) : score);
    }
    const double most = *std::max_element(scores.begin(), scores.end());
    double denominator = 0;
    std::vector<double> sums(batch.head_dim);
    for (int t = first; t <= position; ++t) {
        const double weight = std::exp(scores[t - first] - most);
        denominator += weight;
        for (int c = 0; c < batch.head_dim; ++c) sums[c] += weight * batch.read(batch.values, sequence, t, kv_head, c);
    }
    for (double& sum : sums) sum /= denominator;
    return sums;
}

template <typename T>
void check_attention() {
    Batch<T> batch;
    fill_cache(batch);
    const int64_t tokens = batch.query_starts.back(), width = batch.heads * batch.head_dim, stride = width + draw(0, 3);
    const std::vector<T> query = normal<T>(tokens ? (tokens - 1) * stride + width : 0);
    std::vector<T> output = nans<T>(tokens * width);
    // The second constant is out of reach of any row: all of them are computed again.
    std::vector<float> phi(batch.heads, draw(0, 1) ? 3.0f : 300.0f);
    const SoftmaxMode mode = static_cast<SoftmaxMode>(draw(0, 2));
    const int64_t repeated = attention(
        {type_of<T>(), query.data(), stride, batch.keys.data(), batch.values.data(), output.data(), batch.query_starts.data(),
         batch.kv_lengths.data(), batch.page_table.data(), batch.columns, batch.sequences(), batch.heads, batch.kv_heads,
         batch.head_dim, batch.page_size, batch.scale, batch.softcap, batch.window, mode, phi.data(), pick({16, 32, 512}), draw(1, 3), batch.kv_bits});
    const bool repeats = mode == SoftmaxMode::kUnified && phi[0] > 100;
    expect_close("rows computed again", repeated, repeats ? tokens * batch.heads : 0, 0);
    for (int s = 0; s < batch.sequences(); ++s) {
        const int queries = batch.query_starts[s + 1] - batch.query_starts[s];
        for (int q = 0; q < queries; ++q) {
            const int64_t token = batch.query_starts[s] + q;
            for (int head = 0; head < batch.heads; head += draw(1, 4)) {
                const T* row = &query[token * stride + head * batch.head_dim];
                const auto expected = expected_attention(batch, row, s, batch.kv_lengths[s] - queries + q, head);
                for (int c = 0; c < batch.head_dim; ++c) {
                    const double found = to_float(output[token * width + head * batch.head_dim + c]);
                    expect_close("attention", found, expected[c], tolerance<T>() * 4);
                }
            }
        }
    }
}

template <typename T>
void check_linear() {
    const int64_t rows = draw(0, 1) ? draw(1, 20) : draw(0, 400), columns = draw(1, 300), outputs = draw(1, 200);
    const int64_t stride = columns + draw(0, 3), threads = draw(1, 3);
    const std::vector<T> x = normal<T>(rows ? (rows - 1) * stride + columns : 0);
    const std::vector<T> weight = normal<T>(outputs * columns), bias = normal<T>(outputs);
    std::vector<T> packed = nans<T>((outputs + 63) / 64 * 64 * ((columns + 1) / 2 * 2));
    pack_weight({type_of<T>(), weight.data(), packed.data(), columns, outputs, static_cast<int>(threads)});
    const T* added = draw(0, 1) ? bias.data() : nullptr;
    std::vector<T> found[3];
    void (*const functions[])(const LinearCall&) = {gemv, flat_gemm, gemm};
    for (int i = 0; i < 3; ++i) {
        found[i] = nans<T>(rows * outputs);
        functions[i]({type_of<T>(), x.data(), stride, packed.data(), added, found[i].data(), rows, columns, outputs, static_cast<int>(threads)});
    }
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t o = 0; o < outputs; ++o) {
            double sum = added ? to_float(bias[o]) : 0, size = 1;
            for (int64_t c = 0; c < columns; ++c) {
                const double product = double{to_float(x[r * stride + c])} * to_float(weight[o * columns + c]);
                sum += product;
                size += std::fabs(product);
            }
            const size_t at = r * outputs + o;
            expect_close("linear", to_float(found[0][at]), sum, tolerance<T>() * std::fabs(sum) + 1e-6 * size);
            expect_close("flat_gemm and gemv", to_float(found[1][at]), to_float(found[0][at]), 0);
            expect_close("gemm and gemv", to_float(found[2][at]), to_float(found[0][at]), 0);
        }
    }
}

template <typename T>
std::vector<T> integers(size_t count, int least, int most) {
    std::vector<T> values(count);
    for (T& value : values) value = static_cast<T>(draw(least, most));
    return values;
}

// A quantized weight of any form, and what its integers are.
struct IntegerWeight {
    const WeightForm form = static_cast<WeightForm>(draw(0, 2));
    const int64_t columns = pick({draw(1, 30), draw(100, 300), 128, 256}), outputs = draw(1, 150);
    const int64_t groups = (columns + 127) / 128, row_bytes = form == WeightForm::kChannel8 ? columns : (columns + 1) / 2;
    const std::vector<uint8_t> codes = integers<uint8_t>(outputs * row_bytes, 0, 255);
    const std::vector<uint8_t> group_scales = integers<uint8_t>(form == WeightForm::kGroups4 ? outputs * groups : 0, 1, 16);
    const std::vector<int8_t> group_zeros = sound_zeros(group_scales);
    const std::vector<float> scales = normal<float>(outputs), bias = normal<float>(outputs);
    const std::vector<float> zeros = normal<float>(form == WeightForm::kChannel4 ? outputs : 0);

    std::vector<uint8_t> packed(int threads) const {
        std::vector<uint8_t> packed((outputs + 63) / 64 * quantized_panel_bytes(form, columns), 0xff);
        pack_quantized_weight({form, codes.data(), scales.data(), zeros.data(), group_scales.data(), group_zeros.data(), bias.data(),
                               packed.data(), columns, outputs, threads});
        return packed;
    }

    // With which every code stands for an integer of eight signed bits.
    static std::vector<int8_t> sound_zeros(const std::vector<uint8_t>& group_scales) {
        std::vector<int8_t> zeros;
        for (int scale : group_scales) zeros.push_back(static_cast<int8_t>(draw(std::max(-127, 15 * scale - 127), 127)));
        return zeros;
    }

    int integer(int64_t output, int64_t column) const {
        if (form == WeightForm::kChannel8) return static_cast<int8_t>(codes[output * columns + column]);
        const int code = codes[output * row_bytes + column / 2] >> column % 2 * 4 & 15;
        const int64_t group = output * groups + column / 128;
        return form == WeightForm::kGroups4 ? code * group_scales[group] - group_zeros[group] : code;
    }
};

// Rows of integers, and the memory they are written to.
struct IntegerRows {
    IntegerRows(int64_t rows, int64_t columns)
        : stride((columns + 7) / 8 * 8 + draw(0, 20)), groups((columns + 127) / 128), codes(rows * stride, 99), scales(rows, -1), sums(rows * groups, -1) {}

    QuantizedRowsOut out() { return {codes.data(), stride, scales.data(), sums.data()}; }

    const int64_t stride, groups;
    std::vector<int8_t> codes;
    std::vector<float> scales;
    std::vector<int32_t> sums;
};

void check_rows(const IntegerRows& found, const std::vector<double>& expected, int64_t columns) {
    for (size_t r = 0; r < found.scales.size(); ++r) {
        std::vector<int32_t> sums(found.groups);
        for (int64_t c = 0; c < found.stride; ++c) {
            const int code = found.codes[r * found.stride + c];
            if (c < columns) {
                sums[c / 128] += code;
                expect_close("quantized row", static_cast<double>(code) * found.scales[r], expected[r * columns + c], found.scales[r] * 0.501);
            } else {
                expect_close("code beyond the columns", code, 0, 0);
            }
        }
        for (int64_t g = 0; g < found.groups; ++g) expect_close("sum of codes", found.sums[r * found.groups + g], sums[g], 0);
    }
}

template <typename T>
void check_quantized_rows() {
    const int64_t rows = draw(0, 9), columns = pick({draw(1, 40), draw(100, 300)}), stride = columns + draw(0, 3);
    const int threads = draw(1, 3);
    IntegerRows plain(rows, columns), norm(rows, columns), silu(rows, columns);
    const std::vector<T> x = normal<T>(rows ? (rows - 1) * stride + columns : 0), gate_up = normal<T>(rows * 2 * columns);
    const std::vector<float> weight = normal<float>(columns);
    quantize_rows({type_of<T>(), x.data(), stride, plain.out(), rows, columns, threads});
    rms_norm_quantized({type_of<T>(), x.data(), stride, weight.data(), norm.out(), rows, columns, 1e-5f, threads});
    silu_multiply_quantized({type_of<T>(), gate_up.data(), silu.out(), rows, columns, threads});
    std::vector<double> copied, normalized, activated;
    for (int64_t r = 0; r < rows; ++r) {
        double squares = 0;
        for (int64_t c = 0; c < columns; ++c) squares += std::pow(to_float(x[r * stride + c]), 2.0);
        for (int64_t c = 0; c < columns; ++c) {
            const double gate = to_float(gate_up[r * 2 * columns + c]), up = to_float(gate_up[(r * 2 + 1) * columns + c]);
            copied.push_back(to_float(x[r * stride + c]));
            normalized.push_back(copied.back() / std::sqrt(squares / columns + 1e-5) * weight[c]);
            activated.push_back(gate / (1 + std::exp(-gate)) * up);
        }
    }
    check_rows(plain, copied, columns);
    check_rows(norm, normalized, columns);
    check_rows(silu, activated, columns);
}

template <typename T>
void check_quantized_linear() {
    const IntegerWeight weight;
    const int64_t rows = draw(0, 1) ? draw(1, 20) : draw(0, 400), columns = weight.columns, outputs = weight.outputs;
    const int threads = draw(1, 3);
    const std::vector<uint8_t> packed = weight.packed(threads);
    IntegerRows x(rows, columns);
    const std::vector<T> given = normal<T>(rows * columns);
    quantize_rows({type_of<T>(), given.data(), columns, x.out(), rows, columns, threads});
    std::vector<T> y = nans<T>(rows * outputs);
    std::vector<int32_t> sums(rows * outputs, -1);
    QuantizedLinearCall call{weight.form, type_of<T>(), x.codes.data(), x.stride, x.scales.data(), x.sums.data(), packed.data(),
                             y.data(), nullptr, rows, columns, outputs, threads};
    quantized_linear(call);
    call.sums = sums.data();
    quantized_linear(call);
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t row_sum = std::accumulate(&x.sums[r * x.groups], &x.sums[(r + 1) * x.groups], int64_t{0});
        for (int64_t o = 0; o < outputs; o += draw(1, 3)) {
            int64_t sum = 0;
            for (int64_t c = 0; c < columns; ++c) sum += int64_t{x.codes[r * x.stride + c]} * weight.integer(o, c);
            expect_close("integers", sums[r * outputs + o], static_cast<double>(sum), 0);
            const double product = double{weight.scales[o]} * sum * x.scales[r];
            const double zero = weight.zeros.empty() ? 0 : double{weight.zeros[o]} * row_sum * x.scales[r];
            const double size = std::fabs(product) + std::fabs(zero) + std::fabs(weight.bias[o]);
            const double expected = product - zero + weight.bias[o];
            expect_close("quantized linear", to_float(y[r * outputs + o]), expected, tolerance<T>() * std::fabs(expected) + 1e-6 * size);
        }
    }
}

template <typename T>
void check_weight_only() {
    const IntegerWeight weight;
    const int64_t rows = draw(0, 1) ? draw(1, 20) : draw(0, 300), columns = weight.columns, outputs = weight.outputs;
    const int64_t stride = columns + draw(0, 3);
    const int threads = draw(1, 3);
    const std::vector<uint8_t> packed = weight.packed(threads);
    const std::vector<T> x = normal<T>(rows ? (rows - 1) * stride + columns : 0);
    std::vector<T> y = nans<T>(rows * outputs);
    weight_only_linear({weight.form, type_of<T>(), x.data(), stride, packed.data(), y.data(), rows, columns, outputs, threads});
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t o = 0; o < outputs; o += draw(1, 3)) {
            const double zero = weight.zeros.empty() ? 0 : weight.zeros[o];
            double expected = weight.bias[o], size = 1;
            for (int64_t c = 0; c < columns; ++c) {
                const double value = to_float(x[r * stride + c]), product = value * weight.integer(o, c) * weight.scales[o];
                expected += product - value * zero;
                size += std::fabs(product) + std::fabs(value * zero);
            }
            expect_close("weight-only linear", to_float(y[r * outputs + o]), expected, tolerance<T>() * std::fabs(expected) + 1e-6 * size);
        }
    }
}

void check_exp2() {
    for (int i = 0; i < 10000; ++i) {
        const float x = std::uniform_real_distribution<float>(-126, 128)(generator);
        const double exact = std::exp2(double{x});
        if (exact > 0x1p-126) expect_close("exp2", lapidist::exp2(splat(x))[0], exact, exact * 0x1p-23 * 1.5);
        const double angle = x / 10;
        expect_close("tanh", lapidist::tanh(splat(angle))[0], std::tanh(static_cast<float>(angle)), 3e-7);
    }
    const float infinity = std::numeric_limits<float>::infinity();
    expect_close("exp2(-inf)", lapidist::exp2(splat(-infinity))[0], 0, 0);
    if (!(lapidist::exp2(splat(infinity))[0] == infinity)) expect_close("exp2(inf)", 0, 1, 0);
    if (!std::isnan(lapidist::exp2(splat(std::nanf("")))[0])) expect_close("exp2(nan)", 0, 1, 0);
}

template <typename T>
void check_all(int rounds) {
    for (int i = 0; i < rounds; ++i) {
        check_attention<T>();
        check_linear<T>();
        check_quantized_rows<T>();
        check_quantized_linear<T>();
        check_weight_only<T>();
    }
}

}  // namespace

int main(int argc, char** argv) {
    const unsigned long seed = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : std::random_device{}();
    const int rounds = argc > 2 ? std::atoi(argv[2]) : 20;
    std::printf("seed %lu, %d rounds, %d lanes\n", seed, rounds, kLanes);
    std::fflush(stdout);
    generator.seed(seed);
    check_exp2();
    check_all<float>(rounds);
    check_all<bfloat16>(rounds);
    check_all<float16>(rounds);
    std::vector<float> memory = normal<float>(20011);
    read_memory(memory.data(), memory.size() * 4, 2);
    vnni_peak(10, 2);
    advise_huge_pages(memory.data(), memory.size() * 4);
    std::printf("%d differences\n", failures);
    return failures > 0;
}
