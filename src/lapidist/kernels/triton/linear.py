"""Linear layers of a few rows on a GPU, where the time goes into reading the weight."""

import torch
from torch import Tensor

from lapidist.kernels.triton.flat_gemm import flat_gemm_kernel
from lapidist.kernels.triton.gemv import gemv_kernel
from lapidist.kernels.triton.gpu import limits
from lapidist.kernels.triton.splits import num_splits
from lapidist.kernels.triton.tile_shape import power_of_two
from lapidist.kernels.triton.workspace import Workspace

MOST_FLAT_ROWS = 64
MOST_GEMV_ROWS = 4
FLAT_COLUMNS = 64
_FLAT_BYTES = 256  # of one weight row, of one step
_PROGRAMS_PER_MULTIPROCESSOR = 2
_MERGED_VALUES = 8192
# With more than two rows, half: every one of them has a sum per thread and channel.
_GEMV_COLUMNS, _GEMV_BYTES = 4, 2048
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def flat_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    out: Tensor | None = None,
    splits: int | None = None,
    workspace: Workspace | None = None,
) -> Tensor:
    """``x W^T + b`` for at most 64 rows, on tensor cores. Sums are float32; results are bitwise repeatable.

    Parameters
    ----------
    x : ``[rows, k]``.
    weight : ``[n, k]`` of the same dtype: bfloat16, float16 or float32.
    bias : ``[n]`` or None.
    out : ``[rows, n]`` to write to; None for a new one. Nothing outside it is written.
    splits : parts that the ``k`` channels are divided into (if there are so many blocks); None chooses.
    workspace : counters to use in place of new ones; saves clearing them.

    Raises
    ------
    ValueError : too many rows, or a shape, stride or dtype is not as described.
    """
    out = _checked_out(x, weight, bias, out, MOST_FLAT_ROWS)
    (rows, k), n = x.shape, len(weight)
    if not out.numel():
        return out
    tile_rows = power_of_two(rows)
    depth = _FLAT_BYTES // x.dtype.itemsize // (1 if tile_rows <= 32 else 2)
    tiles = -(-n // FLAT_COLUMNS)
    slots = limits(x.device).multiprocessors * _PROGRAMS_PER_MULTIPROCESSOR
    splits = splits or num_splits(tiles, -(-k // depth), slots)
    results = tiles if splits > 1 else 0
    with torch.cuda.device_of(x):
        flat_gemm_kernel[(tiles, splits)](
            out,
            x,
            weight,
            bias,
            out.new_empty((results, splits, tile_rows, FLAT_COLUMNS), dtype=torch.float32),
            (workspace or Workspace(results, x.device)).counters(results),
            rows,
            n,
            k,
            splits,
            x.stride(0),
            weight.stride(0),
            out.stride(0),
            HAS_BIAS=bias is not None,
            WHOLE_BLOCKS=k % depth == 0,
            ROWS=tile_rows,
            COLUMNS=FLAT_COLUMNS,
            DEPTH=depth,
            MERGED=_MERGED_VALUES // (tile_rows * FLAT_COLUMNS),
            num_warps=4,
            num_stages=4,
            enable_fp_fusion=True,
        )
    return out


def gemv(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """``x W^T + b`` for at most 4 rows, without tensor cores. Parameters and errors are those of ``flat_linear``."""
    out = _checked_out(x, weight, bias, out, MOST_GEMV_ROWS)
    (rows, k), n = x.shape, len(weight)
    if not out.numel():
        return out
    depth = _GEMV_BYTES // x.dtype.itemsize // (1 if rows <= 2 else 2)
    with torch.cuda.device_of(x):
        gemv_kernel[(-(-n // _GEMV_COLUMNS),)](
            out,
            x,
            weight,
            bias,
            n,
            k,
            x.stride(0),
            weight.stride(0),
            out.stride(0),
            HAS_BIAS=bias is not None,
            WHOLE_BLOCKS=k % depth == 0,
            ROWS=rows,
            COLUMNS=_GEMV_COLUMNS,
            DEPTH=depth,
            num_warps=4,
            enable_fp_fusion=True,
        )
    return out


def _checked_out(
    x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor | None, most_rows: int
) -> Tensor:
    """Where to write to, once everything has been found to fit."""
    rows, n = len(x), len(weight)
    if out is None:
        out = x.new_empty(rows, n)
    if rows > most_rows:
        raise ValueError(f"at most {most_rows} rows can be multiplied, got {rows}")
    if x.dtype not in _DTYPES or weight.dtype != x.dtype or out.dtype != x.dtype:
        raise ValueError(
            f"x, weight and out must share bfloat16, float16 or float32, got {x.dtype}, {weight.dtype} and {out.dtype}"
        )
    if (
        x.dim() != 2
        or x.shape[1] != weight.shape[1]
        or out.shape != (rows, n)
        or (bias is not None and bias.shape != (n,))
    ):
        raise ValueError(
            f"x {list(x.shape)}, weight {list(weight.shape)}, bias and out {list(out.shape)} do not fit together"
        )
    if (
        x.stride(1) != 1
        or weight.stride(1) != 1
        or out.stride(1) != 1
        or (bias is not None and bias.stride(0) != 1)
    ):
        raise ValueError("channels must be contiguous")
    return out
