"""Compile the kernels for GPUs that are not there, as the real calls launch them: a script for ``test_compiles.py``.

The interpreter runs Python and takes more than the compiler does. Prints nothing; ends with an error where a kernel
does not compile or wants more shared memory than the GPU has.
"""

import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as compile_kernel

from lapidist.kernels.softmax import Softmax, SoftmaxMode
from lapidist.kernels.triton import attention, linear
from lapidist.kernels.triton.gpu import GpuLimits
from tests.kernels.triton.paged_case import random_batch

SHARED_BYTES = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10}
TYPES = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


class Compiler:
    """Stands in for a kernel; a launch compiles it for the given compute capability."""

    def __init__(self, kernel: Any, capability: int) -> None:
        self.kernel = kernel
        self.capability = capability

    def __getitem__(self, grid: tuple[int, ...]) -> "Compiler":
        return self

    def __call__(self, *arguments: Any, num_warps: int, num_stages: int = 3, **constants: Any) -> None:
        options = {
            "num_warps": num_warps,
            "num_stages": num_stages,
            "enable_fp_fusion": constants.pop("enable_fp_fusion"),
        }
        named = dict(zip(self.kernel.arg_names, arguments, strict=False)) | constants
        signature, constexprs, aligned = {}, {}, {}
        for place, name in enumerate(self.kernel.arg_names):
            value = named[name]
            if name in constants or value is None:
                signature[name], constexprs[place,] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                signature[name], aligned[place,] = TYPES[value.dtype], [["tt.divisibility", 16]]
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32"
                if name.endswith("stride"):
                    aligned[place,] = [["tt.divisibility", 16]]
        source = ASTSource(self.kernel, signature, constexprs, aligned)
        compiled = compile_kernel(source, target=GPUTarget("cuda", self.capability, 32), options=options)
        if compiled.metadata.shared > SHARED_BYTES[self.capability]:
            raise SystemExit(
                f"{self.kernel.__name__} wants {compiled.metadata.shared} bytes of shared memory"
            )


def main(capability: int) -> None:
    gpu = GpuLimits(multiprocessors=132, shared_bytes=SHARED_BYTES[capability])
    for module, names in ((attention, ["attention_kernel"]), (linear, ["flat_gemm_kernel", "gemv_kernel"])):
        module.limits = lambda device: gpu
        for name in names:
            setattr(module, name, Compiler(getattr(module, name), capability))
    if capability >= 90:
        attend([(1, 900), (90, 90)], 4, 128, torch.bfloat16, SoftmaxMode.UNIFIED)
        multiply(torch.bfloat16)
    else:
        attend([(1, 900)], 8, 256, torch.bfloat16, SoftmaxMode.LAZY, window=50, softcap=30.0)
        attend([(90, 90)], 3, 80, torch.float16, SoftmaxMode.UNIFIED)
        multiply(torch.float32)


def attend(
    lengths: list[tuple[int, int]],
    group: int,
    head_dim: int,
    dtype: torch.dtype,
    mode: SoftmaxMode,
    window: int | None = None,
    softcap: float | None = None,
) -> None:
    batch = random_batch(lengths, 1, group, head_dim, 16, dtype)
    softmax = Softmax(mode, torch.zeros(group))
    attention.paged_attention(
        batch.query, batch.keys, batch.values, batch.layout, 0.1, window, softcap, softmax
    )


def multiply(dtype: torch.dtype) -> None:
    x, weight = torch.randn(64, 4096).to(dtype), torch.empty(64, 4096).to(dtype)
    linear.flat_linear(x, weight, weight[:, 0].contiguous())
    linear.flat_linear(x[:3], weight)
    linear.gemv(x[:3], weight)


if __name__ == "__main__":
    main(int(sys.argv[1]))
