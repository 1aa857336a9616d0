"""The native library: the best of its builds that this processor can run.

``LAPIDIST_ISA`` names another build, for tests and comparisons: ``portable``, ``avx2``, ``avx_vnni``, ``avx512``,
``avx512_vnni`` or ``avx512_bf16``.
"""

import os
from functools import cache
from importlib import import_module
from types import ModuleType

# PyTorch first: the library then finds its OpenMP symbols in PyTorch's runtime and shares its threads.
import torch
from torch import Tensor

_PACKAGE = __package__
# The numbers of the native library's ``Type``.
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


class NativeLibraryError(RuntimeError):
    """The native library is missing or cannot run here."""


@cache
def native(isa: str | None = None) -> ModuleType:
    """The library built for ``isa``; by default the one that ``LAPIDIST_ISA`` names, else the best.

    Raises
    ------
    NativeLibraryError : it was not built, or the processor lacks the instructions.
    """
    portable = _build("portable")
    supported = portable.supported()
    wanted = isa or os.environ.get("LAPIDIST_ISA") or supported[0]
    if wanted not in supported:
        raise NativeLibraryError(
            f"LAPIDIST_ISA is {wanted!r}, and this processor runs {', '.join(supported)}: choose one of them"
        )
    return portable if wanted == "portable" else _build(wanted)


def _build(isa: str) -> ModuleType:
    try:
        return import_module(f"{_PACKAGE}._native_{isa}")
    except ImportError as error:
        raise NativeLibraryError(
            f"Lapidist's native library ({isa}) cannot be loaded ({error}): install Lapidist with pip on a machine "
            "with a C++ compiler (Debian: apt-get install g++)"
        ) from None


def in_huge_pages(tensor: Tensor) -> Tensor:
    """The tensor, whose memory is fetched in pages of 2 MiB where the system has them: reading scattered rows then
    misses the address cache less often. Call before it is first written.
    """
    native().advise_huge_pages(tensor.data_ptr(), tensor.nbytes)
    return tensor


def with_whole_rows(x: Tensor) -> Tensor:
    """``[tokens, heads, columns]`` with each token's heads side by side; the tokens may lie apart."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()
