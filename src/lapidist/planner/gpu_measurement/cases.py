"""What is measured: kernels over grids of sizes, each with the row of the table that its time goes to."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lapidist.planner.gpu_measurement.device_timer import Call

_WIDTH = {"bf16": 2, "fp16": 2, "fp8": 1, "sq": 1}
GEMM_DTYPES = tuple(_WIDTH)
_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192)
# Output and input channels as public models have them, on one GPU and split over two and four, and squares.
_SITES = (
    (1024, 1024), (2048, 2048), (4096, 4096), (8192, 8192),
    (3072, 2048), (16384, 2048), (2048, 8192),
    (6144, 4096), (28672, 4096), (4096, 14336), (14336, 4096), (4096, 7168), (7168, 4096), (4096, 3584),
    (10240, 8192), (57344, 8192), (8192, 28672), (28672, 8192), (8192, 14336), (14336, 8192), (8192, 7168),
    (32000, 4096), (128256, 4096),
)  # fmt: skip
_HEADS = ((32, 8, 64), (32, 8, 128), (32, 32, 128), (64, 8, 128), (16, 4, 128), (8, 1, 128), (28, 4, 128))
_DECODES = [(batch, kv) for batch in (1, 4, 16, 64, 128) for kv in (128, 512, 2048, 8192, 32768)]
_PREFILLS = [(batch, query) for batch in (1, 4) for query in (128, 512, 1024, 2048, 4096, 8192)]
_COLUMNS = (1024, 4096, 8192, 14336)
_MOST_BYTES = 8 << 30


@dataclass(frozen=True)
class Case:
    """One kernel.

    Attributes
    ----------
    table : gemm, attention or element_wise.
    key : the columns of its row that tell it from others.
    data_bytes : of one copy of what it reads and writes.
    make : from a device to a call on fresh data.
    is_long : whether its power is worth measuring: it runs for 0.2 ms or so on any GPU of today.
    """

    table: str
    key: dict[str, Any]
    data_bytes: int
    make: Callable[[torch.device], Call] = field(compare=False)
    is_long: bool = False


def gemm_cases(
    dtypes: Sequence[str], sites: Sequence[tuple[int, int]] = _SITES, rows: Sequence[int] = _ROWS
) -> Iterator[Case]:
    """GEMMs of every number of rows at every site ``(n, k)``, in formats of ``hardware.gpu.gemm_format``."""
    for dtype in dtypes:
        width = _WIDTH[dtype]
        for n, k in sites:
            for m in rows:
                if width > 1 or m > 16:  # PyTorch's 8-bit products want more than 16 rows
                    yield Case(
                        "gemm",
                        {"dtype": dtype, "m": m, "n": n, "k": k},
                        width * (m * k + n * k) + 2 * m * n,
                        _gemm(dtype, m, n, k),
                        is_long=2 * m * n * k > 1e11,
                    )


def attention_cases(heads: Sequence[tuple[int, int, int]] = _HEADS) -> Iterator[Case]:
    """PyTorch's attention in bf16: decodes over a context, and prefills of whole prompts."""
    sizes = [("decode", batch, 1, kv) for batch, kv in _DECODES]
    sizes += [("prefill", batch, query, query) for batch, query in _PREFILLS]
    for query_heads, kv_heads, head_dim in heads:
        for phase, batch, query, kv in sizes:
            data_bytes = 2 * batch * head_dim * (2 * query_heads * query + 2 * kv_heads * kv)
            if data_bytes <= _MOST_BYTES:
                key = {"phase": phase, "batch": batch, "query_length": query, "kv_length": kv}
                key |= {"heads": query_heads, "kv_heads": kv_heads, "head_dim": head_dim, "window": 0}
                key |= {"compute_bytes": 2.0, "kv_bytes": 2.0}
                shape = batch, query, kv, query_heads, kv_heads, head_dim
                yield Case("attention", key, data_bytes, _attention(*shape), is_long=False)


def element_wise_cases(columns: Sequence[int] = _COLUMNS, rows: Sequence[int] = _ROWS) -> Iterator[Case]:
    """Norms, gated activations and additions in bf16."""
    for operator, make in (("rms_norm", _norm), ("silu_multiply", _silu), ("add", _add)):
        for width in columns:
            for count in rows:
                key = {"operator": operator, "rows": count, "columns": width, "dtype": "bf16"}
                yield Case("element_wise", key, 3 * 2 * count * width, make(count, width))


def all_cases(gemm_dtypes: Sequence[str]) -> list[Case]:
    """The whole grid; a smaller budget takes an even sample of it."""
    return [*gemm_cases(gemm_dtypes), *attention_cases(), *element_wise_cases()]


def _gemm(dtype: str, m: int, n: int, k: int) -> Callable[[torch.device], Call]:
    def make(device: torch.device) -> Call:
        x, weight = _random(m, k, device=device), _random(n, k, device=device)
        if dtype == "sq":
            x8, w8 = (each.mul(16).clamp(-127, 127).to(torch.int8) for each in (x, weight))
            return lambda: torch._int_mm(x8, w8.t())
        if dtype == "fp8":
            x8, w8 = x.to(torch.float8_e4m3fn), weight.to(torch.float8_e4m3fn)
            one = torch.ones((), device=device)
            return lambda: torch._scaled_mm(x8, w8.t(), one, one, out_dtype=torch.bfloat16)
        kind = torch.bfloat16 if dtype == "bf16" else torch.float16
        x, weight = x.to(kind), weight.to(kind)
        return lambda: F.linear(x, weight)

    return make


def _attention(
    batch: int, query: int, kv: int, heads: int, kv_heads: int, head_dim: int
) -> Callable[[torch.device], Call]:
    def make(device: torch.device) -> Call:
        q = _random(batch, heads, query, head_dim, device=device)
        k, v = (_random(batch, kv_heads, kv, head_dim, device=device) for _ in range(2))
        return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=query == kv, enable_gqa=True)

    return make


def _norm(rows: int, columns: int) -> Callable[[torch.device], Call]:
    def make(device: torch.device) -> Call:
        x, weight = _random(rows, columns, device=device), _random(columns, device=device)
        return lambda: F.rms_norm(x, (columns,), weight)

    return make


def _silu(rows: int, columns: int) -> Callable[[torch.device], Call]:
    def make(device: torch.device) -> Call:
        gate, up = (_random(rows, columns, device=device) for _ in range(2))
        return lambda: F.silu(gate) * up

    return make


def _add(rows: int, columns: int) -> Callable[[torch.device], Call]:
    def make(device: torch.device) -> Call:
        one, other = (_random(rows, columns, device=device) for _ in range(2))
        return lambda: one + other

    return make


def _random(*shape: int, device: torch.device) -> Tensor:
    return torch.randn(shape, device=device, dtype=torch.bfloat16)
