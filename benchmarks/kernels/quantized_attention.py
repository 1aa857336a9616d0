"""Decode attention over a KV cache of 8 and of 4 bits, against bf16.

    python -m benchmarks.kernels.quantized_attention

One new token per sequence, in the shapes of llama-3.2-1b (32 query heads, 8 KV heads of 64) and llama-3-8b (32, 8,
128), over batch sizes and contexts. Sequences got their pages of 16 tokens in turn, as when they are decoded together.
Every round runs all three caches and a pure read of 512 MiB in turn. The bytes of a cache are those of its codes,
scales and zeros, once.

Claim: 4 bits are at least 1.5x as fast as bf16 wherever the bf16 cache is larger than 64 MiB.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.interleaved import MemoryReader, median_ratio, medians, time_in_turn
from benchmarks.result_file import write_result
from lapidist.kernels.attention import paged_attention
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.kv_quantization import KV_BITS
from lapidist.kernels.paged_layout import PagedLayout

PAGE = 16
BATCHES = (1, 4, 16, 32)
CONTEXTS = (512, 2048, 8192)
_LARGE = 64 << 20


@dataclass(frozen=True)
class Shape:
    model: str
    heads: int
    kv_heads: int
    head_dim: int


SHAPES = (Shape("llama-3.2-1b", 32, 8, 64), Shape("llama-3-8b", 32, 8, 128))


class Case:
    """``batch`` sequences of ``context`` tokens, in a cache of each width."""

    def __init__(self, shape: Shape, batch: int, context: int) -> None:
        self.shape, self.batch, self.context = shape, batch, context
        count = -(-context // PAGE)
        pages = torch.arange(batch * count).view(count, batch).T.tolist()
        self.layout = PagedLayout.build([], [1] * batch, [context] * batch, pages)
        self.query = torch.randn(batch, shape.heads, shape.head_dim).bfloat16()
        self.caches = {bits: self._cache(bits, batch * count) for bits in KV_BITS}

    def _cache(self, bits: int, num_pages: int) -> PagedKVCache:
        shape = self.shape
        cache = PagedKVCache(1, num_pages, PAGE, shape.kv_heads, shape.head_dim, torch.bfloat16, bits=bits)
        tokens = 4096
        # The same ones again and again: what they are costs no time, and drawing them would take longer than all else.
        keys, values = torch.randn(2, tokens, shape.kv_heads, shape.head_dim).bfloat16()
        for first in range(0, num_pages * PAGE, tokens):
            slots = torch.arange(first, min(first + tokens, num_pages * PAGE))
            cache.write(0, slots, keys[: len(slots)], values[: len(slots)])
        return cache

    def attend(self, bits: int) -> Tensor:
        return paged_attention(self.query, self.caches[bits], 0, self.layout, self.shape.head_dim**-0.5)

    def bytes_read(self, bits: int) -> int:
        return self.caches[bits].keys[0].nbytes + self.caches[bits].values[0].nbytes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--contexts", type=int, nargs="+", default=list(CONTEXTS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--max-tokens", type=int, default=1 << 17, help="leave out larger batch x context")
    args = parser.parse_args()
    reader = MemoryReader()
    rows = [
        measure(Case(shape, batch, context), reader, args.rounds)
        for shape in SHAPES
        for batch in args.batches
        for context in args.contexts
        if batch * context <= args.max_tokens
    ]
    large = [row["over_bf16"]["4"] for row in rows if row["bytes"]["16"] > _LARGE]
    claims = {"4 bits >= 1.5x of bf16 beyond 64 MiB": all(ratio >= 1.5 for ratio in large)}
    result = {
        "page_size": PAGE, "threads": torch.get_num_threads(), "rows": rows,
        "claims": claims, "met": all(claims.values()),
    }  # fmt: skip
    print(claims)
    print(f"written to {write_result('quantized_attention', result)}")


def measure(case: Case, reader: MemoryReader, rounds: int) -> dict[str, Any]:
    functions: dict[str, Callable[[], Any]] = {str(bits): partial(case.attend, bits) for bits in KV_BITS}
    seconds = time_in_turn(functions | {"read": reader}, rounds)
    found = medians(seconds)
    row: dict[str, Any] = {
        "model": case.shape.model,
        "batch": case.batch,
        "context": case.context,
        "bytes": {str(bits): case.bytes_read(bits) for bits in KV_BITS},
        "seconds": {name: found[name] for name in functions},
        "over_bf16": {name: median_ratio(seconds["16"], seconds[name]) for name in functions if name != "16"},
        "read_bytes_per_second": reader.bytes_per_second(found["read"]),
    }
    times = ", ".join(f"{name} bits {1e3 * found[name]:8.3f} ms" for name in functions)
    gains = ", ".join(f"{name} bits {ratio:.2f}x" for name, ratio in row["over_bf16"].items())
    print(f"{case.shape.model:12} {case.batch:3d} x {case.context:5d}: {times}; {gains}", flush=True)
    return row


if __name__ == "__main__":
    main()
