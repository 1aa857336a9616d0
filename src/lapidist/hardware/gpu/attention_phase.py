"""Attention of one phase (prefill or decode) on one GPU as fitted: a law per regime, trees for the rest, a spread."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import lightgbm
import numpy as np
from numpy.typing import NDArray

from lapidist.hardware.gpu.attention_law import (
    AttentionShapes,
    LawParameters,
    Terms,
    decode_regime,
    decode_terms,
    prefill_terms,
)
from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.hardware.gpu.packed_trees import pack, unpack

FloatArray = NDArray[np.float64]
Phase = Literal["prefill", "decode"]
Regime = tuple[float, float, float]
# How far apart regimes are, to borrow the nearest one's law for a number type or head size that was never measured.
_REGIME_WEIGHTS = np.array([100.0, 10.0, 1.0])
_WIDTH_PER_OCTAVE = 1.0


def terms_of(phase: Phase, shapes: AttentionShapes, sheet: DataSheet) -> Terms:
    return prefill_terms(shapes, sheet) if phase == "prefill" else decode_terms(shapes, sheet)


def regimes_of(phase: Phase, shapes: AttentionShapes) -> FloatArray:
    """``[rows, 3]``: number types and head size in prefill; cache type and group regime in decoding."""
    cache = np.where(shapes.kv_bytes > 1.5, 2.0, 1.0)
    if phase == "prefill":
        return np.column_stack([np.log2(shapes.compute_bytes), np.log2(cache), np.log2(shapes.head_dim)])
    return np.column_stack([decode_regime(shapes), np.log2(cache), np.zeros(cache.shape)])


def extent_of(shapes: AttentionShapes) -> FloatArray:
    """``[rows, 7]``: octaves along which a kernel can lie outside what was measured."""
    sizes = (
        shapes.batch * shapes.kv_length,
        shapes.batch,
        shapes.query_length,
        shapes.kv_length,
        shapes.heads,
        shapes.group,
        shapes.head_dim,
    )
    return np.log2(np.column_stack(sizes))


@dataclass(frozen=True)
class FittedPhase:
    """What was learned from one GPU's kernels of one phase.

    Attributes
    ----------
    laws : parameters by regime.
    residual : trees of ``ln(measured / law)``; None leaves the law alone.
    spread : trees of the 90 % quantile of ``|ln(measured / predicted)|`` on kernels of unseen models.
    spread_scale : makes the interval cover 90 % of calibration kernels that the spread was not fitted on (conformal).
    extent : lowest and highest measured value of each column of :func:`extent_of`.
    """

    phase: Phase
    laws: Mapping[Regime, LawParameters]
    residual: lightgbm.Booster | None
    spread: lightgbm.Booster | None
    spread_scale: float
    extent: tuple[tuple[float, ...], tuple[float, ...]]
    _keys: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_keys", np.array(list(self.laws)))

    def seconds(self, shapes: AttentionShapes, sheet: DataSheet) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Expected time, half width of a 90 % interval of its logarithm, and octaves outside what was measured."""
        terms = terms_of(self.phase, shapes, sheet)
        log_seconds = np.log(self.law_seconds(shapes, terms))
        if self.residual is not None:
            log_seconds += self.residual.predict(terms.features, num_threads=1)
        low, high = np.array(self.extent)
        position = extent_of(shapes)
        beyond = np.maximum(np.maximum(low - position, position - high), 0.0).max(axis=1)
        width = self.half_width(terms) * (1 + _WIDTH_PER_OCTAVE * beyond)
        return np.exp(log_seconds), width, beyond

    def half_width(self, terms: Terms) -> FloatArray:
        if self.spread is None:
            return np.full(terms.tensor.shape, self.spread_scale)
        return np.maximum(self.spread.predict(terms.features, num_threads=1), 1e-3) * self.spread_scale

    def law_seconds(self, shapes: AttentionShapes, terms: Terms) -> FloatArray:
        wanted, inverse = np.unique(regimes_of(self.phase, shapes), axis=0, return_inverse=True)
        laws = list(self.laws.values())
        found = np.empty(terms.tensor.shape)
        for number, regime in enumerate(wanted):
            nearest = int(np.argmin(np.abs(self._keys - regime) @ _REGIME_WEIGHTS))
            rows = inverse.ravel() == number
            found[rows] = laws[nearest].seconds(
                terms.tensor[rows], terms.memory[rows], terms.exponential[rows]
            )
        return found

    def to_law(self) -> dict[str, Any]:
        """All but the trees, as what JSON can hold."""
        return {
            "phase": self.phase,
            "spread_scale": self.spread_scale,
            "extent": self.extent,
            "laws": [{"regime": regime, **asdict(law)} for regime, law in self.laws.items()],
        }

    def to_trees(self) -> dict[str, bytes]:
        """Packed trees by name."""
        named = {"residual": self.residual, "spread": self.spread}
        return {name: pack(trees) for name, trees in named.items() if trees is not None}

    @staticmethod
    def from_files(law: Mapping[str, Any], residual: bytes | None, spread: bytes | None) -> "FittedPhase":
        laws = {}
        for entry in law["laws"]:
            values = dict(entry)
            first, second, third = values.pop("regime")
            laws[first, second, third] = LawParameters(**values)
        low, high = law["extent"]
        return FittedPhase(
            phase=law["phase"],
            laws=laws,
            residual=unpack(residual) if residual is not None else None,
            spread=unpack(spread) if spread is not None else None,
            spread_scale=law["spread_scale"],
            extent=(tuple(low), tuple(high)),
        )
