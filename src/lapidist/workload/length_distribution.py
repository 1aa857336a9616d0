"""How long prompts and answers are, as distributions over token counts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Fixed:
    """Always ``tokens``."""

    tokens: int

    def __post_init__(self) -> None:
        _require(self.tokens >= 1, f"a fixed length must be at least 1, got {self.tokens}")

    def sample(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        return np.full(count, self.tokens, dtype=np.int64)


@dataclass(frozen=True)
class Uniform:
    """Every length from ``low`` to ``high`` equally likely, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _require(
            1 <= self.low <= self.high,
            f"a uniform length needs 1 <= low <= high, got {self.low}, {self.high}",
        )

    def sample(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        return rng.integers(self.low, self.high, count, endpoint=True)


@dataclass(frozen=True)
class LogNormal:
    """Log-normal with ``median`` tokens and ``sigma`` of the logarithm, rounded, from 1 to ``maximum``."""

    median: float
    sigma: float
    maximum: int = 1 << 20

    def __post_init__(self) -> None:
        _require(
            1 <= self.median <= self.maximum and 0 <= self.sigma <= 10,
            f"a log-normal length needs 1 <= median <= {self.maximum} and 0 <= sigma <= 10, "
            f"got {self.median}, {self.sigma}",
        )

    def sample(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        lengths = rng.lognormal(np.log(self.median), self.sigma, count)
        return np.clip(np.rint(lengths), 1, self.maximum).astype(np.int64)


@dataclass(frozen=True)
class Empirical:
    """Drawn with replacement from observed ``lengths``."""

    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        _require(
            len(self.lengths) > 0 and min(self.lengths) >= 1,
            "an empirical length needs at least one observed length, all of at least 1",
        )

    def sample(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        return rng.choice(np.asarray(self.lengths, dtype=np.int64), count)


LengthDistribution = Fixed | Uniform | LogNormal | Empirical


def parse_length(text: str) -> LengthDistribution:
    """A distribution from its short form: ``128``, ``uniform:LOW:HIGH`` or ``lognormal:MEDIAN:SIGMA``.

    >>> parse_length("uniform:16:64")
    Uniform(low=16, high=64)

    Raises
    ------
    ValueError : the text has none of these forms, or a number out of range.
    """
    kind, *numbers = text.split(":")
    try:
        if kind == "uniform" and len(numbers) == 2:
            return Uniform(int(numbers[0]), int(numbers[1]))
        if kind == "lognormal" and len(numbers) == 2:
            return LogNormal(float(numbers[0]), float(numbers[1]))
        return Fixed(int(text))
    except ValueError as error:
        raise ValueError(
            f"length {text!r} is none of N, uniform:LOW:HIGH and lognormal:MEDIAN:SIGMA ({error})"
        ) from None


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
