"""The namespace of our own operators in PyTorch: so registered, its FLOP counter and profiler see them."""

import torch
from torch.autograd import profiler
from torch.utils import _python_dispatch

LIBRARY = torch.library.Library("lapidist", "DEF")


def is_watched() -> bool:
    """Whether anything looks on that sees PyTorch's operators only: a mode such as ``FlopCounterMode``, or a profiler.

    If not, a layer may do at once what its operator does: PyTorch's way there costs some microseconds, and more after a
    weight has driven the code for it out of the caches. For the same reason these are PyTorch's flags themselves, not
    the functions that read them.
    """
    return _python_dispatch._is_in_torch_dispatch_mode or profiler._is_profiler_enabled
