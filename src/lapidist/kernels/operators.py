"""The namespace of our own operators in PyTorch: so registered, its FLOP counter and profiler see them."""

import torch

# How many modes intercept operators, such as ``torch.utils.flop_counter.FlopCounterMode``.
from torch._C import _len_torch_dispatch_stack
from torch.autograd import _profiler_enabled

LIBRARY = torch.library.Library("lapidist", "DEF")


def is_watched() -> bool:
    """Whether anything looks on that sees PyTorch's operators only.

    If not, a layer may do at once what its operator does: PyTorch's way there costs some microseconds, and more after a
    weight has driven the code for it out of the caches.
    """
    return _len_torch_dispatch_stack() > 0 or _profiler_enabled()
