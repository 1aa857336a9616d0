"""Decode attention of one long sequence against PyTorch's, and against the memory's bandwidth.

    python -m benchmarks.kernels.decode_attention --plot decode_attention.png

One new token, 32 query and 8 KV heads of 128, bf16 keys and values in pages of 16 tokens, in the order in which the
page pool hands them to one sequence and, from 8,192 tokens on, scattered at random too; fp32 at one length. Peers are
`scaled_dot_product_attention` with `enable_gqa`, and the same operator with the four query heads of a group passed as
four queries ("packed"), both on contiguous keys and values, which spares them the pages. Every round runs all of them
and a pure read of 512 MiB in turn.

Claims: at least 3x of `enable_gqa`, at least 1.2x of packed, at least 60 % of the read bandwidth from 8,192 tokens on,
unified at least as fast as lazy, lazy as online. The merge of the partial sums is measured apart: what mode
online's merge (maxima, exponentials) costs over unified's additions.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.kernels.interleaved import MemoryReader, median_ratio, medians, time_in_turn
from benchmarks.result_file import write_result
from lapidist.kernels.cpu.attention import SPLIT_TOKENS, paged_attention
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.softmax import Softmax, SoftmaxMode

HEADS, KV_HEADS, HEAD_DIM, PAGE = 32, 8, 128, 16
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
# A tie within what the machine's noise allows.
_SLACK = 1.03


class Case:
    """One sequence of ``length`` tokens, in pages for us and contiguous for the peers."""

    def __init__(self, length: int, dtype: torch.dtype, scattered: bool = False) -> None:
        self.length = length
        count = -(-length // PAGE)
        pages = torch.randperm(count) if scattered else torch.arange(count)
        cache = PagedKVCache(1, len(pages), PAGE, KV_HEADS, HEAD_DIM, dtype)
        self.keys, self.values = cache.keys[0].normal_(), cache.values[0].normal_()
        self.layout = PagedLayout.build([0], [1], [length], [pages.tolist()])
        self.query = torch.randn(1, HEADS, HEAD_DIM).to(dtype)
        self.plain = [self._contiguous(tensor, pages) for tensor in (self.keys, self.values)]
        self.bytes = 2 * length * KV_HEADS * HEAD_DIM * dtype.itemsize

    def _contiguous(self, paged: Tensor, pages: Tensor) -> Tensor:
        """``[1, kv_heads, length, head_dim]``."""
        return (
            paged[pages].transpose(0, 1).reshape(1, KV_HEADS, -1, HEAD_DIM)[:, :, : self.length].contiguous()
        )

    def ours(self, mode: SoftmaxMode, split_tokens: int = SPLIT_TOKENS) -> Tensor:
        arguments = (self.query, self.keys, self.values, self.layout, HEAD_DIM**-0.5, None, None)
        return paged_attention(*arguments, Softmax(mode), split_tokens)[0]

    def sdpa(self) -> Tensor:
        keys, values = self.plain
        query = self.query.view(1, HEADS, 1, HEAD_DIM)
        return F.scaled_dot_product_attention(query, keys, values, enable_gqa=True)

    def packed_sdpa(self) -> Tensor:
        rows = self.query.view(1, KV_HEADS, HEADS // KV_HEADS, HEAD_DIM)
        keys, values = self.plain
        return F.scaled_dot_product_attention(rows, keys, values)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--plot", type=Path, help="draw the bandwidths: .png or .svg")
    args = parser.parse_args()
    reader = MemoryReader()
    rows = [measure(Case(length, torch.bfloat16), reader, args.rounds) for length in args.lengths]
    scattered = [
        measure(Case(length, torch.bfloat16, scattered=True), reader, args.rounds)
        for length in args.lengths
        if length >= 8192
    ]
    fp32 = measure(Case(32768, torch.float32), reader, args.rounds)
    result: dict[str, Any] = {
        "heads": HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM, "page_size": PAGE,
        "threads": torch.get_num_threads(),
        "bf16": rows, "bf16_scattered_pages": scattered, "fp32": fp32, "merge": merge_cost(args.rounds),
        "claims": claims([*rows, fp32]),
    }  # fmt: skip
    result["met"] = all(result["claims"].values())
    print(result["merge"], result["claims"])
    if args.plot:
        plot(rows, args.plot)
    print(f"written to {write_result('decode_attention', result)}")


def measure(case: Case, reader: MemoryReader, rounds: int) -> dict[str, Any]:
    functions: dict[str, Callable[[], Any]] = {
        mode.name.lower(): partial(case.ours, mode) for mode in SoftmaxMode
    }
    functions |= {"sdpa_gqa": case.sdpa, "sdpa_packed": case.packed_sdpa, "read": reader}
    seconds = time_in_turn(functions, rounds)
    found = medians(seconds)
    bandwidth = reader.bytes_per_second(found["read"])
    row = {
        "length": case.length,
        "seconds": {name: found[name] for name in functions if name != "read"},
        "read_bytes_per_second": bandwidth,
        "share_of_read_bandwidth": case.bytes / found["unified"] / bandwidth,
        "over_sdpa_gqa": median_ratio(seconds["sdpa_gqa"], seconds["unified"]),
        "over_sdpa_packed": median_ratio(seconds["sdpa_packed"], seconds["unified"]),
        "unified_over_lazy": median_ratio(seconds["lazy"], seconds["unified"]),
        "lazy_over_online": median_ratio(seconds["online"], seconds["lazy"]),
    }
    print(
        f"{case.length:7d} {str(case.query.dtype)[6:]:9} unified {1e3 * found['unified']:8.3f} ms, "
        f"{case.bytes / found['unified'] / 1e9:5.1f} of {bandwidth / 1e9:.1f} GB/s; "
        f"{row['over_sdpa_gqa']:.1f}x sdpa, {row['over_sdpa_packed']:.2f}x packed, "
        f"{row['unified_over_lazy']:.3f}x lazy; lazy {row['lazy_over_online']:.3f}x online",
        flush=True,
    )
    return row


def merge_cost(rounds: int) -> dict[str, float]:
    """Time of a call with many small partial sums over one with few: the merge, mostly."""
    case = Case(8192, torch.bfloat16)
    functions = {
        f"{mode.name.lower()}_{split}": lambda mode=mode, split=split: case.ours(mode, split)
        for mode in (SoftmaxMode.ONLINE, SoftmaxMode.UNIFIED)
        for split in (16, 4096)
    }
    found = medians(time_in_turn(functions, rounds))
    parts = 8192 // 16
    return {
        "length": 8192,
        "partial_sums": parts,
        "partial_bytes": parts * HEADS * (HEAD_DIM + 2) * 4,
        "online_seconds": found["online_16"] - found["online_4096"],
        "unified_seconds": found["unified_16"] - found["unified_4096"],
    }


def claims(rows: list[dict[str, Any]]) -> dict[str, bool]:
    long = [row for row in rows if row["length"] >= 8192]
    return {
        "over_sdpa_gqa >= 3": all(row["over_sdpa_gqa"] >= 3 for row in rows),
        "over_sdpa_packed >= 1.2": all(row["over_sdpa_packed"] >= 1.2 for row in rows),
        "share_of_read_bandwidth >= 0.6 from 8192 on": all(
            row["share_of_read_bandwidth"] >= 0.6 for row in long
        ),
        "unified >= lazy >= online (within 3 %)": all(
            row["unified_over_lazy"] * _SLACK >= 1 and row["lazy_over_online"] * _SLACK >= 1 for row in rows
        ),
    }


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for name in rows[0]["seconds"]:
        rates = [2 * row["length"] * KV_HEADS * HEAD_DIM * 2 / row["seconds"][name] / 1e9 for row in rows]
        axes.plot([row["length"] for row in rows], rates, marker="o", label=name)
    read = [row["read_bytes_per_second"] / 1e9 for row in rows]
    axes.plot([row["length"] for row in rows], read, color="gray", linestyle="--", label="pure read")
    axes.set(xscale="log", xlabel="tokens of context", ylabel="keys and values read, GB/s", ylim=0)
    axes.set_title("Decode attention, 32 query and 8 KV heads of 128, bf16")
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()
