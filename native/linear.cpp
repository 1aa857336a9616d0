// y = x W^T + b by weights that are packed once, in the order in which the kernels read them.
//
// Packed, the weights of 64 outputs form a panel: column after column, the 64 outputs side by side (for 16-bit floats
// that the processor multiplies in pairs, pairs of columns). A panel is read from front to back, in one stream. A tile of
// rows x outputs stays in registers while the columns go by: the flat GEMM of FlashDecoding++ (arXiv 2311.01282,
// section 4) for a CPU, where no row need be padded.
//
// Every sum runs over the columns in the same order, whatever the number of rows and whichever function is called: a
// row's result does not depend on the batch that it is in, to the last bit.

#include <algorithm>

#include "kernels.h"
#include "linear_tile.h"
#include "scratch.h"
#include "work_ranges.h"

namespace lapidist {
namespace {

constexpr int kPanel = kPanelOutputs;
constexpr int64_t kAhead = 4096;                     // elements; nearer or farther streams more slowly
// Of weights in a pass of the flat GEMM. Up to 16 rows memory is the limit: the pass, the next one, which is on its way, the
// rows and their sums fit into the first-level cache together. Then it is arithmetic, and longer passes end less often.
constexpr int64_t kFlatRows = 16, kFewRowsBytes = 16 << 10, kManyRowsBytes = 24 << 10;
constexpr int64_t kBlockRows = 192;                  // 48 KiB of sums

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
        x_ = factor_rows<T>(call_.x, call_.x_stride, call_.rows, call_.columns);
        const int64_t panels = (call_.outputs + kPanel - 1) / kPanel;
        const int64_t row_blocks = (call_.rows + blocking_.rows - 1) / blocking_.rows;
        share_pieces(panels * row_blocks, call_.threads, [&](auto take) {
            static thread_local Scratch scratch;
            float* sums = scratch.reserve<float>(blocking_.rows * kPanel);
            for (int64_t i; (i = take()) >= 0;) block(i / row_blocks, i % row_blocks * blocking_.rows, sums);
        });
    }

  private:
    void block(int64_t panel, int64_t row, float* sums) const {
        const int64_t rows = std::min(blocking_.rows, call_.rows - row);
        const T* w = static_cast<const T*>(call_.weight) + panel * kPanel * columns_;
        std::fill(sums, sums + rows * kPanel, 0.0f);
        for (int64_t c = 0; c < columns_; c += blocking_.columns) {
            const int64_t columns = std::min(blocking_.columns, columns_ - c);
            // The weights are in the cache after the first rows.
            const int64_t ahead = row > 0 ? 0 : blocking_.ahead;
            multiply_panel<T>(x_.x + row * x_.stride + c, x_.stride, w + c * kPanel, rows, columns, sums, ahead);
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
    FactorRows<T> x_{};
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

void flat_gemm(const LinearCall& call) {
    const int64_t rows = std::max<int64_t>(1, call.rows), column_bytes = kPanel * (call.type == Type::kFloat32 ? 4 : 2);
    const int64_t columns = (rows <= kFlatRows ? kFewRowsBytes : kManyRowsBytes) / column_bytes;
    // Weights that one tile of rows is multiplied by once are fetched as GEMV does it; for several, a pass ahead.
    run(call, {rows, columns, rows <= kTileRows ? kAhead : columns * kPanel});
}

void gemm(const LinearCall& call) { run(call, {kBlockRows, padded_columns(call.columns), kAhead}); }

}  // namespace lapidist
