"""Other libraries' layers of quantized weights, for ``quantized_gemm``."""

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor


def peers() -> dict[str, Callable[[Tensor], Any]]:
    """By name, what lays out a float32 weight; of the libraries that are installed (``pip install -e ".[peers]"``).

    ggml's types of 4 bits plain and repacked, Q8_0, which has no interleaved layout on x86, and bfloat16; torchao by
    its integer kernel where it was built with it.
    """
    found: dict[str, Callable[[Tensor], Any]] = {}
    if importlib.util.find_spec("llama_cpp") and importlib.util.find_spec("gguf"):
        from benchmarks.kernels.ggml_matmul import GgmlMatmul

        for name in ("Q4_0", "Q4_K"):
            found[f"ggml {name} repacked"] = partial(GgmlMatmul, type_name=name, repack=True)
        for name in ("Q4_0", "Q4_K", "Q8_0", "BF16"):
            found[f"ggml {name}"] = partial(GgmlMatmul, type_name=name)
    if importlib.util.find_spec("torchao"):
        from benchmarks.kernels.torchao_linear import TorchaoLinear, has_integer_kernel

        kind = "da8w4" if has_integer_kernel() else "dequantized"
        found[f"torchao {kind}"] = partial(TorchaoLinear, integer=has_integer_kernel())
    return found
