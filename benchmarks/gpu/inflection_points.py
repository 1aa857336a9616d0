"""From how many rows on flat GEMM beats GEMV (M1) and cuBLAS beats flat GEMM (M2), and what the table loses.

python -m benchmarks.gpu.inflection_points

Claim to check: a regret of at most 5 % over 1 to 64 rows, against timings taken anew (FlashDecoding++, section 5).
"""

from dataclasses import asdict
from typing import Any

import torch

from benchmarks.gpu.gpu_timing import describe_gpu, require_gpu
from benchmarks.gpu.linear_contenders import DTYPE, LLAMA_2_7B, LLAMA_3_1_8B, ColdWeights
from benchmarks.result_file import write_result
from lapidist.kernels.dispatch import DispatchTable, WeightShape
from lapidist.kernels.dispatch_regret import regret
from lapidist.kernels.dispatch_search import search, two_inflections

_NAMES = ("gemv", "flat", "cublas")
_MOST_ROWS = 64

Curves = dict[str, dict[int, float]]


def main() -> None:
    device = require_gpu()
    entries, again, rows = {}, {}, []
    for n, k in dict.fromkeys(LLAMA_2_7B + LLAMA_3_1_8B):
        shape, weights = WeightShape(n, k, DTYPE), ColdWeights(n, k, device)
        entries[shape] = search(_curves(weights))
        again[shape] = _curves(weights)
        rows.append(_row(shape, entries[shape]))
        print(rows[-1])
    lost = regret(DispatchTable(entries), again)
    result = {
        **describe_gpu(device),
        "table": rows,
        "regret": {**asdict(lost), "worst": [str(lost.worst[0]), lost.worst[1]]},
        "claim": "regret.max <= 0.05 over 1 to 64 rows",
        "met": lost.max <= 0.05,
    }
    print(f"written to {write_result('gpu_inflection_points', result)}")


def _curves(weights: ColdWeights) -> Curves:
    """Seconds by implementation and number of rows."""
    curves: Curves = {name: {} for name in _NAMES}
    for rows in range(1, _MOST_ROWS + 1):
        for name, seconds in weights.seconds(rows, repeats=11).items():
            curves[name][rows] = seconds
    torch.cuda.empty_cache()
    return curves


def _row(shape: WeightShape, inflections: tuple[tuple[int, str], ...]) -> dict[str, Any]:
    return {
        "shape": str(shape),
        "inflections": inflections,
        "m1_m2": two_inflections(inflections, _NAMES),
    }


if __name__ == "__main__":
    main()
