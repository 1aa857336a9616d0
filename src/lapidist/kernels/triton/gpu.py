"""What the kernels' plans need to know of a GPU."""

from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True)
class GpuLimits:
    """Attributes
    ----------
    shared_bytes : shared memory that one program can have.
    """

    multiprocessors: int
    shared_bytes: int


@cache
def limits(device: torch.device) -> GpuLimits:
    """Of a CUDA device; for any other, where Triton's interpreter runs, those of a small GPU."""
    if device.type != "cuda":
        return GpuLimits(multiprocessors=4, shared_bytes=96 << 10)
    found = torch.cuda.get_device_properties(device)
    # PyTorch's stub lacks this attribute.
    return GpuLimits(found.multi_processor_count, found.shared_memory_per_block_optin)  # type: ignore[attr-defined]
