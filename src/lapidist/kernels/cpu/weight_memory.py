"""Memory for packed weights, side by side in pages of 2 MiB.

Streaming through small pages can cost 200 ns a page under virtualization. A weight alone has small ones at both ends,
and a 4-bit one may have no others: k and v of a small model have half a megabyte. What is packed together is used and
freed together, too.
"""

import mmap
from threading import Lock

import torch
from torch import Tensor

from lapidist.kernels.cpu.library import in_huge_pages

_LINE = 64
_HUGE_PAGE = 2 << 20
_BLOCK = 64 << 20

_lock = Lock()
_rest = torch.empty(0, dtype=torch.uint8)  # of the last block


def allocate(bytes: int) -> Tensor:
    """uint8 ``[bytes]``, not yet written, from the start of a cache line on. A block of 64 MiB goes back to the system
    with the last of its tensors; until it is written it takes up no memory.
    """
    global _rest
    with _lock:
        if bytes > len(_rest):
            _rest = _block(max(bytes, _BLOCK))
        found, _rest = _rest[:bytes], _rest[-(-bytes // _LINE) * _LINE :]
    return found


def _block(bytes: int) -> Tensor:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(bytes, dtype=torch.uint8)
    memory = mmap.mmap(-1, bytes + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with torch.inference_mode(False):  # later tensors of the block may be changed outside that mode
        whole = torch.frombuffer(memory, dtype=torch.uint8)
    return in_huge_pages(whole[-whole.data_ptr() % _HUGE_PAGE :])
