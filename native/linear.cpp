// y = x W^T + b by weights that are packed once, in the order in which the kernels read them.
//
// Packed, the weights of 64 outputs form a panel: column after column, the 64 outputs side by side (for 16-bit floats
// that the processor multiplies in pairs, pairs of columns). A panel is read from front to back, in one stream. A tile of
// rows x outputs stays in registers while the columns go by: the flat GEMM of FlashDecoding++ (arXiv 2311.01282,
// section 4) for a CPU, where no row need be padded.
//
// Every sum runs over the columns in the same order, whatever the number of rows and whichever function is called: a
// row's result does not depend on the batch that it is in, to the last bit.

#include <omp.h>

#include <algorithm>
#include <type_traits>

#include "kernels.h"
#include "scratch.h"
#include "simd.h"
#include "work_ranges.h"

namespace lapidist {
namespace {

constexpr int kPanel = kPanelOutputs;
constexpr int kVectors = 4;                          // vectors of outputs in a tile
constexpr int kTileRows = kLanes == 16 ? 6 : 2;
constexpr int64_t kAhead = 4096;                     // elements; nearer or farther streams more slowly
constexpr int64_t kFlatColumns = 256;                // 32 KiB of 16-bit weights
constexpr int64_t kBlockRows = 192;                  // 48 KiB of sums
constexpr int kTileOutputs = kVectors * kLanes;      // a panel has one to four tiles side by side

// bfloat16 is packed in pairs of columns on every processor, so that the format is one.
template <typename T>
constexpr int kPair = std::is_same_v<T, bfloat16> ? 2 : 1;

int64_t padded_columns(int64_t columns) { return (columns + 1) / 2 * 2; }

// sums[r] += x[r] . w for a tile: kRows rows of x, kTileOutputs outputs, `columns` columns (an even number).
// While it runs, vectors `ahead_begin` to `ahead_end` of the weights `ahead` elements further on are fetched.
template <typename T, int kRows>
inline void multiply_tile(const Factor<T>* x, int64_t x_stride, const T* w, int64_t columns, float* sums, int64_t ahead,
                          int ahead_begin, int ahead_end) {
    FloatVector acc[kRows][kVectors];
    for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v) acc[r][v] = load(sums + r * kPanel + v * kLanes);
    for (int64_t c = 0; c < columns; c += kPair<T>, w += kPair<T> * kPanel) {
        for (int v = ahead_begin; v < ahead_end; ++v) prefetch(w + ahead + v * kPair<T> * kLanes);
        if constexpr (kInPairs<T>) {
#if defined(__AVX512BF16__)
            IntVector weight[kVectors];
            for (int v = 0; v < kVectors; ++v) std::memcpy(&weight[v], w + v * 2 * kLanes, sizeof(IntVector));
            for (int r = 0; r < kRows; ++r) {
                int32_t pair;
                std::memcpy(&pair, x + r * x_stride + c, 4);
                const IntVector factor = IntVector{} + pair;
                for (int v = 0; v < kVectors; ++v) acc[r][v] = dot_pairs(acc[r][v], factor, weight[v]);
            }
#endif
        } else if constexpr (kPair<T> == 2) {
            for (int v = 0; v < kVectors; ++v) {
                IntVector both;
                std::memcpy(&both, w + v * 2 * kLanes, sizeof both);
                const FloatVector even = reinterpret_cast<FloatVector>(both << 16);
                const FloatVector odd = reinterpret_cast<FloatVector>(both & static_cast<int32_t>(0xffff0000u));
                for (int r = 0; r < kRows; ++r) {
                    acc[r][v] += x[r * x_stride + c] * even;
                    acc[r][v] += x[r * x_stride + c + 1] * odd;
                }
            }
        } else {
            for (int v = 0; v < kVectors; ++v) {
                const FloatVector weight = load(w + v * kLanes);
                for (int r = 0; r < kRows; ++r) acc[r][v] += x[r * x_stride + c] * weight;
            }
        }
    }
    for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v) store(sums + r * kPanel + v * kLanes, acc[r][v]);
}

// The same for any number of rows and a whole panel's outputs, in tiles of like size. The fetching of weights is spread
// over the tiles: the memory works also while later tiles are multiplied by weights that are in the cache.
template <typename T>
void multiply_panel(const Factor<T>* x, int64_t x_stride, const T* w, int64_t rows, int64_t columns, float* sums, int64_t ahead) {
    const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
    int64_t r = 0;
    for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t count = rows / tiles + (tile < rows % tiles);
        const int begin = ahead ? kVectors * tile / tiles : 0, end = ahead ? kVectors * (tile + 1) / tiles : 0;
        for (int o = 0; o < kPanel; o += kTileOutputs) {
            const auto run = [&](auto size) {
                constexpr int kRows = std::min(decltype(size)::value, kTileRows);
                multiply_tile<T, kRows>(x + r * x_stride, x_stride, w + o * kPair<T>, columns, sums + r * kPanel + o, ahead, begin, end);
            };
            switch (count) {
                case 1: run(std::integral_constant<int, 1>{}); break;
                case 2: run(std::integral_constant<int, 2>{}); break;
                case 3: run(std::integral_constant<int, 3>{}); break;
                case 4: run(std::integral_constant<int, 4>{}); break;
                case 5: run(std::integral_constant<int, 5>{}); break;
                default: run(std::integral_constant<int, 6>{});
            }
        }
        r += count;
    }
}

// How the loops are cut.
struct Blocking {
    int64_t rows;     // of x that share a panel's pass
    int64_t columns;  // of a pass: after it come the other rows
    int64_t ahead;    // how far ahead weights are fetched, in elements
};

template <typename T>
class Linear {
  public:
    Linear(const LinearCall& call, const Blocking& blocking)
        : call_(call), blocking_(blocking), columns_(padded_columns(call.columns)) {}

    void run() {
        prepare();
        const int64_t panels = (call_.outputs + kPanel - 1) / kPanel;
        const int64_t row_blocks = (call_.rows + blocking_.rows - 1) / blocking_.rows;
        const int threads = std::max(1, call_.threads);
        WorkRanges work(static_cast<uint32_t>(panels * row_blocks), threads);
#pragma omp parallel num_threads(threads)
        {
            static thread_local Scratch scratch;
            float* sums = scratch.reserve<float>(blocking_.rows * kPanel);
            for (int64_t i; (i = work.take(omp_get_thread_num())) >= 0;) block(i / row_blocks, i % row_blocks * blocking_.rows, sums);
        }
    }

  private:
    // x as the kernels multiply it: taken as it is where it can be, else copied.
    void prepare() {
        if (std::is_same_v<T, Factor<T>> && columns_ == call_.columns) {
            x_ = static_cast<const Factor<T>*>(call_.x);
            x_stride_ = call_.x_stride;
            return;
        }
        static thread_local Scratch scratch;
        Factor<T>* copy = scratch.reserve<Factor<T>>(call_.rows * columns_);
        for (int64_t r = 0; r < call_.rows; ++r) {
            const T* from = static_cast<const T*>(call_.x) + r * call_.x_stride;
            Factor<T>* to = copy + r * columns_;
            to[columns_ - 1] = Factor<T>{};
            for (int64_t c = 0; c < call_.columns; ++c) {
                if constexpr (std::is_same_v<T, Factor<T>>) {
                    to[c] = from[c];
                } else {
                    to[c] = to_float(from[c]);
                }
            }
        }
        x_ = copy;
        x_stride_ = columns_;
    }

    void block(int64_t panel, int64_t row, float* sums) const {
        const int64_t rows = std::min(blocking_.rows, call_.rows - row);
        const T* w = static_cast<const T*>(call_.weight) + panel * kPanel * columns_;
        std::fill(sums, sums + rows * kPanel, 0.0f);
        for (int64_t c = 0; c < columns_; c += blocking_.columns) {
            const int64_t columns = std::min(blocking_.columns, columns_ - c);
            // The weights are in the cache after the first rows.
            const int64_t ahead = row > 0 ? 0 : blocking_.ahead;
            multiply_panel<T>(x_ + row * x_stride_ + c, x_stride_, w + c * kPanel, rows, columns, sums, ahead);
        }
        write(sums, panel * kPanel, row, rows);
    }

    void write(const float* sums, int64_t first, int64_t row, int64_t rows) const {
        const int64_t last = std::min(first + kPanel, call_.outputs);
        const T* bias = static_cast<const T*>(call_.bias);
        for (int64_t r = 0; r < rows; ++r) {
            T* y = static_cast<T*>(call_.y) + (row + r) * call_.outputs;
            for (int64_t o = first; o < last; ++o) {
                const float sum = sums[r * kPanel + o - first];
                from_float(bias ? sum + to_float(bias[o]) : sum, y + o);
            }
        }
    }

    const LinearCall& call_;
    const Blocking blocking_;
    const int64_t columns_;
    const Factor<T>* x_ = nullptr;
    int64_t x_stride_ = 0;
};

template <typename T>
void pack(const PackCall& call) {
    const int64_t columns = padded_columns(call.columns), panels = (call.outputs + kPanel - 1) / kPanel;
#pragma omp parallel for num_threads(std::max(1, call.threads)) schedule(static)
    for (int64_t panel = 0; panel < panels; ++panel) {
        T* packed = static_cast<T*>(call.packed) + panel * kPanel * columns;
        for (int64_t o = 0; o < kPanel; ++o) {
            const int64_t output = panel * kPanel + o;
            const T* row = static_cast<const T*>(call.weight) + output * call.columns;
            for (int64_t c = 0; c < columns; ++c) {
                const bool is_there = output < call.outputs && c < call.columns;
                packed[(c / kPair<T> * kPanel + o) * kPair<T> + c % kPair<T>] = is_there ? row[c] : T{};
            }
        }
    }
}

void run(const LinearCall& call, const Blocking& blocking) {
    switch (call.type) {
        case Type::kBfloat16: return Linear<bfloat16>(call, blocking).run();
        case Type::kFloat16: return Linear<float16>(call, blocking).run();
        default: return Linear<float>(call, blocking).run();
    }
}

}  // namespace

void pack_weight(const PackCall& call) {
    switch (call.type) {
        case Type::kBfloat16: return pack<bfloat16>(call);
        case Type::kFloat16: return pack<float16>(call);
        default: return pack<float>(call);
    }
}

void gemv(const LinearCall& call) { run(call, {std::max<int64_t>(1, call.rows), padded_columns(call.columns), kAhead}); }

void flat_gemm(const LinearCall& call) { run(call, {std::max<int64_t>(1, call.rows), kFlatColumns, kFlatColumns * kPanel}); }

void gemm(const LinearCall& call) { run(call, {kBlockRows, padded_columns(call.columns), kAhead}); }

}  // namespace lapidist
