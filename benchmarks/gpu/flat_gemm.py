"""Few rows times a weight: share of the read bandwidth, and the time beside cuBLAS, with cold weights.

python -m benchmarks.gpu.flat_gemm

Claims to check, for the better of GEMV and flat GEMM: at least 80 % of the read bandwidth on every shape, no slower
than cuBLAS in the geometric mean, and 1.05 times as fast for one and two rows.
"""

import statistics
from typing import Any

import torch

from benchmarks.gpu.gpu_timing import describe_gpu, require_gpu
from benchmarks.gpu.linear_contenders import LLAMA_2_7B, ColdWeights
from benchmarks.gpu.read_bandwidth import read_bandwidth
from benchmarks.result_file import write_result

ROWS = (1, 2, 4, 8, 16)


def main() -> None:
    device = require_gpu()
    bandwidth = read_bandwidth(device)
    measured = [row for n, k in LLAMA_2_7B for row in _measure(n, k, device, bandwidth)]
    for row in measured:
        print(row)
    speedup = statistics.geometric_mean(row["speedup_over_cublas"] for row in measured)
    of_few = statistics.geometric_mean(row["speedup_over_cublas"] for row in measured if row["rows"] <= 2)
    least_share = min(row["share_of_read_bandwidth"] for row in measured)
    result = {
        **describe_gpu(device),
        "read_bytes_per_second": bandwidth,
        "measured": measured,
        "speedup_geomean": speedup,
        "speedup_geomean_of_1_and_2_rows": of_few,
        "least_share_of_read_bandwidth": least_share,
        "claim": "least share >= 0.8, speedup >= 1, of 1 and 2 rows >= 1.05",
        "met": least_share >= 0.8 and speedup >= 1 and of_few >= 1.05,
    }
    print(f"written to {write_result('gpu_flat_gemm', result)}")


def _measure(n: int, k: int, device: torch.device, bandwidth: float) -> list[dict[str, Any]]:
    weights = ColdWeights(n, k, device)
    measured = []
    for rows in ROWS:
        seconds = weights.seconds(rows)
        ours = min(time for name, time in seconds.items() if name != "cublas")
        measured.append(
            {
                "n": n,
                "k": k,
                "rows": rows,
                "seconds": seconds,
                "share_of_read_bandwidth": weights.bytes_each / ours / bandwidth,
                "speedup_over_cublas": seconds["cublas"] / ours,
            }
        )
    return measured


if __name__ == "__main__":
    main()
