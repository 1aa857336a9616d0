"""Linear layers of a few rows: the shapes of two models, and ours beside cuBLAS on weights that left the cache."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.gpu_timing import Call, cold_copies, interleaved_seconds
from lapidist.kernels.triton.linear import MOST_FLAT_ROWS, MOST_GEMV_ROWS, flat_linear, gemv
from lapidist.kernels.triton.workspace import Workspace

# [n, k] of QKV, output, first and second FFN weights; gate and up of the first are two weights in Llama-2's table.
LLAMA_2_7B = ((12288, 4096), (4096, 4096), (11008, 4096), (4096, 11008))
LLAMA_3_1_8B = ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336))
DTYPE = torch.float16

Multiply = Callable[[Tensor], Tensor]


class ColdWeights:
    """Copies of one weight ``[copies, n, k]``; every call of a graph gets the next."""

    def __init__(self, n: int, k: int, device: torch.device) -> None:
        copies = cold_copies(n * k * DTYPE.itemsize, device)
        self.bytes_each = n * k * DTYPE.itemsize
        self._weights = torch.empty(copies, n, k, dtype=DTYPE, device=device).normal_(std=k**-0.5)
        self._workspace = Workspace(n, device)

    def seconds(self, rows: int, repeats: int = 21) -> dict[str, float]:
        """Median seconds of gemv, flat and cublas for so many rows, as far as they take them."""
        x = torch.randn(rows, self._weights.shape[2], dtype=DTYPE, device=self._weights.device)
        contenders: dict[str, list[Call]] = {}
        if rows <= MOST_GEMV_ROWS:
            contenders["gemv"] = self._calls(lambda weight: gemv(x, weight))
        if rows <= MOST_FLAT_ROWS:
            contenders["flat"] = self._calls(lambda weight: flat_linear(x, weight, workspace=self._workspace))
        contenders["cublas"] = self._calls(lambda weight: F.linear(x, weight))
        return interleaved_seconds(contenders, repeats)

    def _calls(self, multiply: Multiply) -> list[Call]:
        return [partial(multiply, weight) for weight in self._weights]
