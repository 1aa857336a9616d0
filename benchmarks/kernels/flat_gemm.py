"""Linear layers with few rows against PyTorch's fastest, and against the memory's bandwidth.

    python -m benchmarks.kernels.flat_gemm

The weight shapes of Llama-3.2-1B and Llama-3-8B, bf16, M = 1 to 32 rows. As in a model, weights are multiplied one
after the other: a measurement goes through copies of more than 256 MiB, so that each comes from memory. The peers, both
oneDNN through PyTorch: `torch.nn.functional.linear` on the plain weight, which is what PyTorch programs call, and
PyTorch's prepacked linear operator (`mkldnn::_linear_pointwise`), which `torch.compile` calls after freezing. Every
round runs all of them and a pure read of 512 MiB in turn.

Claims: at least 85 % of the read bandwidth for M <= 4; at least 1.0x of the faster peer everywhere; over all
shapes and M a geometric mean of at least 1.3x.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.kernels.interleaved import MemoryReader, median_ratio, medians, time_in_turn
from benchmarks.result_file import write_result
from lapidist.kernels.linear import Linear
from lapidist.models.config import DTYPES, ModelConfig
from lapidist.workload.linear_shapes import linear_shapes

ROWS = (1, 2, 4, 8, 16, 24, 32)
_COLD_BYTES = 256 << 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--like", nargs="+", default=["llama-3.2-1b", "llama-3-8b"], help="public shapes")
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    shapes = {
        f"{name} {layer}": shape
        for name in args.like
        for layer, shape in linear_shapes(ModelConfig.of_shape(name)).items()
    }
    reader, rows = MemoryReader(), []
    with torch.inference_mode():
        for name, (outputs, columns) in shapes.items():
            rows += measure(name, outputs, columns, DTYPES[args.dtype], args.rows, args.rounds, reader)
    result = {"dtype": args.dtype, "threads": torch.get_num_threads(), "rows": rows} | summarize(rows)
    print({key: value for key, value in result.items() if key != "rows"})
    print(f"written to {write_result(f'flat_gemm_{args.dtype}', result)}")


def measure(
    name: str,
    outputs: int,
    columns: int,
    dtype: torch.dtype,
    rows: list[int],
    rounds: int,
    reader: MemoryReader,
) -> list[dict[str, Any]]:
    weight = torch.randn(outputs, columns).to(dtype)
    copies = 1 + _COLD_BYTES // weight.nbytes
    ours = [Linear(weight) for _ in range(copies)]
    plain = [weight.clone() for _ in range(copies)]
    packed = [torch.ops.mkldnn._reorder_linear_weight(weight) for _ in range(copies)]
    measured = []
    for count in rows:
        x = torch.randn(count, columns).to(dtype)
        functions: dict[str, Callable[[], Any]] = {
            "lapidist": partial(_call_each, ours, x),
            "torch_linear": partial(_call_each, [partial(F.linear, weight=each) for each in plain], x),
            "onednn_packed": partial(_call_each, [partial(_packed, weight=each) for each in packed], x),
            "read": reader,
        }
        seconds = time_in_turn(functions, rounds)
        found = {
            name: seconds if name == "read" else seconds / copies
            for name, seconds in medians(seconds).items()
        }
        fastest = min(("torch_linear", "onednn_packed"), key=found.__getitem__)
        bandwidth = reader.bytes_per_second(found["read"])
        row = {
            "layer": name, "n": outputs, "k": columns, "m": count,
            "seconds": {key: found[key] for key in functions if key != "read"},
            "read_bytes_per_second": bandwidth,
            "share_of_read_bandwidth": weight.nbytes / found["lapidist"] / bandwidth,
            "over_torch_linear": median_ratio(seconds["torch_linear"], seconds["lapidist"]),
            "over_fastest": median_ratio(seconds[fastest], seconds["lapidist"]),
        }  # fmt: skip
        print(
            f"{name:24} M {count:2d}: {1e3 * found['lapidist']:8.3f} ms, "
            f"{weight.nbytes / found['lapidist'] / 1e9:5.1f} of {bandwidth / 1e9:.1f} GB/s, "
            f"{row['over_torch_linear']:.2f}x torch linear, {row['over_fastest']:.2f}x fastest",
            flush=True,
        )
        measured.append(row)
    return measured


def _call_each(layers: Sequence[Callable[[Tensor], Tensor]], x: Tensor) -> None:
    for layer in layers:
        layer(x)


def _packed(x: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    few = [row["share_of_read_bandwidth"] for row in rows if row["m"] <= 4]
    summary = {
        "least_share_of_read_bandwidth_m_up_to_4": min(few, default=math.nan),
        "least_over_fastest": min(row["over_fastest"] for row in rows),
        "geomean_over_fastest": geomean([row["over_fastest"] for row in rows]),
        "geomean_over_torch_linear": geomean([row["over_torch_linear"] for row in rows]),
    }
    claims = {
        "share of read bandwidth >= 0.85 for M <= 4": min(few, default=0) >= 0.85,
        "over fastest >= 1.0 everywhere": summary["least_over_fastest"] >= 1,
        "geomean over fastest >= 1.3": summary["geomean_over_fastest"] >= 1.3,
    }
    return {"summary": summary, "claims": claims, "met": all(claims.values())}


def geomean(values: list[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


if __name__ == "__main__":
    main()
