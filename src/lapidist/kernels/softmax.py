"""How attention keeps its exponentials in range.

``softmax(x) = exp(x - c) / sum(exp(x - c))`` for every ``c``. The three modes choose ``c`` differently and agree but
for rounding; on a CPU, where ``c`` is rounded to a power of four, to the last bit:

- ``online``: ``c`` is the running maximum of the row; each new maximum rescales what was summed (Milakov and
  Gimelshein, 2018, arXiv 1805.02867).
- ``lazy``: as online, but a new maximum is adopted only when it exceeds the old by 8 in base-2 logarithm.
- ``unified``: ``c`` is one number known beforehand, ``phi``; partial sums of a row need no maximum, never rescale and
  are merged by addition (FlashDecoding++, arXiv 2311.01282). A row whose sums leave the range of float32 is found by a
  look at its result and computed again in mode online.
"""

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor


class SoftmaxMode(IntEnum):
    """The numbers are those of the native library."""

    ONLINE = 0
    LAZY = 1
    UNIFIED = 2


# A unified row is trusted while its denominator is at least this, which holds with denormals flushed too: below it
# the row's largest terms are so small that others may have underflowed.
LEAST_DENOMINATOR = 2.0**-80
# Growth of the maximum, in base-2 logarithm, from which mode lazy rescales (FlashAttention-4's threshold).
LAZY_THRESHOLD = 8.0


@dataclass(frozen=True)
class Softmax:
    """Mode of one attention layer.

    Attributes
    ----------
    phi : float32 ``[heads]``, the constant of mode unified in units of the scaled (and capped) scores; None is zero.
    recomputed : int64 ``[1]``, to which each call adds the rows (token, head) of mode unified that it had to compute
        again; None does not count.
    """

    mode: SoftmaxMode = SoftmaxMode.LAZY
    phi: Tensor | None = None
    recomputed: Tensor | None = None
