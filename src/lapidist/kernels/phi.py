"""Choosing phi, the constant that mode unified of attention subtracts from the scores.

A row of scores with maximum M is exact to rounding as long as D = M - phi lies in a band: above it the sums overflow,
below it the largest weights are so small that others underflow, and the row is computed again. Everything is in units
of natural logarithm ("nats"), as scores are. What the published method (FlashDecoding++, arXiv 2311.01282) leaves open
is how phi is found; here it follows from the maxima seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lapidist.kernels.softmax import LEAST_DENOMINATOR

# Room that is kept to both ends of the band: so far may maxima of other text lie outside what calibration saw, and
# likewise the logarithm of the largest value. A change of 10 is a factor of 22,000 in a row's weights.
MARGIN = 10.0

_OVERFLOW = 88.72  # float32 holds exp(88.72)
_UNDERFLOW = -87.33  # the smallest float32 that is no denormal is exp(-87.336)
_PRECISION = 24 * math.log(2)  # a weight that much below the sum does not change it

Table = tuple[tuple[float, ...], ...]  # per layer and head


@dataclass(frozen=True)
class Band:
    """Where ``row maximum - phi`` may lie."""

    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low

    def narrowed(self, margin: float) -> "Band":
        return Band(self.low + margin, self.high - margin)

    def slack(self, lowest: float, highest: float, phi: float) -> float:
        """How far inside the band the maxima from ``lowest`` to ``highest`` stay; negative outside."""
        return min(lowest - phi - self.low, self.high - (highest - phi))


@dataclass(frozen=True)
class Misfit:
    """A head whose row maxima no constant brings into the band."""

    layer: int
    head: int
    lowest: float
    highest: float
    room: float

    def __str__(self) -> str:
        spread = self.highest - self.lowest
        return (
            f"layer {self.layer} head {self.head}: row maxima from {self.lowest:.1f} to {self.highest:.1f}, "
            f"{spread:.1f} apart where {self.room:.1f} fit"
        )


@dataclass(frozen=True)
class PhiChoice:
    """The outcome: ``phi`` per layer and head, or None and the heads that are in the way."""

    phi: Table | None
    misfits: tuple[Misfit, ...] = ()


def safe_band(context: int, largest_value: float) -> Band:
    """The band for rows that see up to ``context`` keys, whose values do not exceed ``largest_value`` in magnitude.

    Upper end: no sum of ``context`` weights times values overflows. Lower end: the denominator, at least ``exp(D)``,
    passes the kernels' guard, and a weight small enough to be lost would not have changed the sum.

    Examples
    --------
    >>> band = safe_band(131072, 1.0)
    >>> round(band.low, 1), round(band.high, 1)
    (-55.5, 76.9)
    """
    keys = math.log(context)
    high = _OVERFLOW - keys - max(0.0, math.log(largest_value) if largest_value > 0 else 0.0)
    low = max(math.log(LEAST_DENOMINATOR), _UNDERFLOW + keys + _PRECISION)
    return Band(low, high)


def choose_phi(
    lowest: Sequence[Sequence[float]],
    highest: Sequence[Sequence[float]],
    bands: Sequence[Band],
    margin: float = MARGIN,
) -> PhiChoice:
    """The simplest phi that keeps every row maximum seen in its band, ``margin`` from the ends.

    Zero if it does; else one number for the model, in the middle of those that do; else one per layer and head, in
    the middle of those that do for that head. A head without any is a misfit, and then there is no phi at all.

    Parameters
    ----------
    lowest, highest : ``[layers][heads]``, of the row maxima seen. Not a number or infinite is a misfit.
    bands : of each layer.
    """
    # Which phi suit a head: those from highest - band.high to lowest - band.low.
    suits: list[list[tuple[float, float]]] = []
    misfits = []
    for layer, (lows, highs, band) in enumerate(zip(lowest, highest, bands, strict=True)):
        inner = band.narrowed(margin)
        suits.append([(high - inner.high, low - inner.low) for low, high in zip(lows, highs, strict=True)])
        for head, (first, last) in enumerate(suits[-1]):
            if not (math.isfinite(first) and math.isfinite(last) and first <= last):
                misfits.append(Misfit(layer, head, lows[head], highs[head], inner.width))
    if misfits:
        return PhiChoice(None, tuple(misfits))
    first = max(first for layer in suits for first, _ in layer)
    last = min(last for layer in suits for _, last in layer)
    if first > last:
        return PhiChoice(tuple(tuple(_middle(*suit) for suit in layer) for layer in suits))
    common = 0.0 if first <= 0 <= last else _middle(first, last)
    return PhiChoice(tuple((common,) * len(layer) for layer in suits))


def _middle(first: float, last: float) -> float:
    # Rounded for the reader of config.json.
    return round((first + last) / 2, 2)
