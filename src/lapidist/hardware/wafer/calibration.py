"""Fits the constants of the cost model to measured cycles, and says which of them the measurements cannot tell."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
from scipy.optimize import least_squares

from lapidist.hardware.wafer.cost import CostModel
from lapidist.hardware.wafer.cost_constants import CONSTANT_NAMES
from lapidist.hardware.wafer.cost_terms import CostTerms, Numbers, Program, cost_terms
from lapidist.hardware.wafer.first_guess import first_guess

RELATIVE_NOISE = 0.01
"""How far a repeated measurement is off, as a share. Errors up to it count squared, those beyond it linearly (Huber),
so a few runs of an odd configuration do not bend the fit; priors are weighed against it."""

CONDITION_LIMIT = 100.0
"""Beyond it, noise of 1 % in the cycles means noise of order 1 in some combination of constants."""

_SHARE_OF_DIRECTION = 0.2
_NEGLIGIBLE = 1e-3
_PULL_TO_START = 1e-3


class IdentifiabilityWarning(UserWarning):
    """Measurements that leave some constants open; their values are not worth more than where the fit began."""


@dataclass(frozen=True)
class Measurement:
    """Cycles that a program took; ``label`` names it in reports."""

    label: str
    program: Program
    cycles: float

    def __post_init__(self) -> None:
        if not 0 < self.cycles < float("inf"):
            raise ValueError(f"{self.label}: measured cycles must be above 0, got {self.cycles}")


@dataclass(frozen=True)
class Prior:
    """What is known of a constant beforehand: a value, and how far off it may be as a share of it."""

    cycles: float
    deviation: float


@dataclass(frozen=True)
class Accuracy:
    """Relative errors of predictions, ``predicted / measured - 1``; ``[measurements]``."""

    labels: tuple[str, ...]
    predicted: Numbers
    measured: Numbers

    @property
    def errors(self) -> Numbers:
        return self.predicted / self.measured - 1

    @property
    def mape(self) -> float:
        """Mean absolute relative error, as a share."""
        return float(np.abs(self.errors).mean())

    @property
    def largest(self) -> float:
        """Largest absolute relative error, as a share."""
        return float(np.abs(self.errors).max())

    @property
    def bias(self) -> float:
        """Mean relative error: above 0, predictions are too slow."""
        return float(self.errors.mean())

    @property
    def worst(self) -> str:
        """Label of the largest error."""
        return self.labels[int(np.abs(self.errors).argmax())]


@dataclass(frozen=True)
class Calibration:
    """A fitted model.

    Attributes
    ----------
    model : with the fitted constants.
    fitted : names of the constants that were fitted.
    deviations : standard error of each fitted constant in cycles, from the scatter of the measurements alone; infinite
        for one that they leave open.
    condition : of the design matrix, its columns scaled to one length.
    open_groups : constants that the measurements cannot tell apart, or a single one that they do not touch enough.
    accuracy : on the measurements of the fit.
    """

    model: CostModel
    fitted: tuple[str, ...]
    deviations: Mapping[str, float]
    condition: float
    open_groups: tuple[tuple[str, ...], ...]
    accuracy: Accuracy

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each group of constants that is not identifiable."""
        return tuple(_sentence(group) for group in self.open_groups)


def calibrate(
    measurements: Sequence[Measurement],
    start: CostModel | None = None,
    *,
    fixed: Sequence[str] = (),
    priors: Mapping[str, Prior] | None = None,
    source: str = "calibrated",
) -> Calibration:
    """Relative least squares of all constants that the measurements touch, none below zero.

    Parameters
    ----------
    start : where the fit begins, by default at orders of magnitude; constants that no measurement touches keep their
        values.
    fixed : constants that keep their values in any case.
    priors : knowledge that is weighed against the measurements; a relative error of ``RELATIVE_NOISE`` counts as much
        as one deviation of a prior.
    source : noted as the source of each fitted constant.

    Warns
    -----
    IdentifiabilityWarning : the design matrix is so badly conditioned that some constants stay open.

    Raises
    ------
    ValueError : there are no measurements, or a name in ``fixed`` or ``priors`` is unknown.
    """
    if not measurements:
        raise ValueError("a calibration needs at least one measurement")
    start = start or first_guess()
    priors = dict(priors or {})
    for name in (*fixed, *priors):
        if name not in CONSTANT_NAMES:
            raise ValueError(f"unknown cost constant {name!r}; known are {', '.join(CONSTANT_NAMES)}")
    terms = cost_terms([each.program for each in measurements])
    measured = np.array([each.cycles for each in measurements])
    names = _touched(start, terms, [name for name in CONSTANT_NAMES if name not in fixed])
    if not names:
        raise ValueError("the measurements touch no constant that may be fitted")
    values = _solve(start, terms, measured, names, priors)
    model = _with(start, {name: float(value) for name, value in zip(names, values, strict=True)}, source)
    design = _elasticities(model, terms, measured, names, _scales(start, names))
    condition, groups = _open_groups(design, names)
    accuracy = Accuracy(tuple(each.label for each in measurements), model.cycles(terms), measured)
    scales = np.where(values > _NEGLIGIBLE * _scales(start, names), values, _scales(start, names))
    deviations = _deviations(design, accuracy.errors, names, scales, groups)
    found = Calibration(model, tuple(names), deviations, condition, groups, accuracy)
    for sentence in found.warnings:
        warnings.warn(sentence, IdentifiabilityWarning, stacklevel=2)
    return found


def accuracy(model: CostModel, measurements: Sequence[Measurement]) -> Accuracy:
    """How well a model predicts measurements, those it was fitted to or others."""
    if not measurements:
        raise ValueError("no measurements to compare with")
    terms = cost_terms([each.program for each in measurements])
    measured = np.array([each.cycles for each in measurements])
    return Accuracy(tuple(each.label for each in measurements), model.cycles(terms), measured)


def _with(model: CostModel, values: Mapping[str, float], source: str) -> CostModel:
    return replace(model, constants=model.constants.with_values(values, source))


def _solve(
    start: CostModel, terms: CostTerms, measured: Numbers, names: list[str], priors: Mapping[str, Prior]
) -> Numbers:
    first = _scales(start, names)
    held = [(names.index(name), prior) for name, prior in priors.items() if name in names]

    def residuals(values: Numbers) -> Numbers:
        predicted = _with(start, dict(zip(names, values, strict=True)), "").cycles(terms)
        parts = [(predicted / measured - 1) / RELATIVE_NOISE, _PULL_TO_START * (values / first - 1)]
        parts.append(np.array([(values[i] / p.cycles - 1) / p.deviation for i, p in held]))
        return np.concatenate(parts)

    found = least_squares(
        residuals, first, bounds=(0, np.inf), x_scale=first, loss="huber", xtol=1e-12, ftol=1e-12
    )
    return np.asarray(found.x)


def _scales(model: CostModel, names: Sequence[str]) -> Numbers:
    """Start values; one cycle where a constant is zero, so that it can grow."""
    values = np.array([getattr(model.constants, name) for name in names], dtype=float)
    return np.where(values > 0, values, 1.0)


def _touched(start: CostModel, terms: CostTerms, names: Sequence[str]) -> list[str]:
    """Constants that change a prediction when they double; those that begin at zero are set to one first."""
    positive = _with(start, dict(zip(names, _scales(start, names), strict=True)), "")
    before = positive.cycles(terms)
    changed = []
    for name in names:
        doubled = _with(positive, {name: 2 * getattr(positive.constants, name)}, "").cycles(terms)
        changed.append(bool(np.any(doubled != before)))
    return list(compress(names, changed))


def _elasticities(
    model: CostModel, terms: CostTerms, measured: Numbers, names: Sequence[str], first: Numbers
) -> Numbers:
    """Design matrix: relative change of each prediction for a relative change of each constant; ``[runs, names]``.

    The scale of a constant that was fitted to about zero is where the fit began, ``first``.
    """
    columns = []
    for name, begun in zip(names, first, strict=True):
        value = getattr(model.constants, name)
        scale = value if value > _NEGLIGIBLE * begun else begun
        low, high = max(0.0, value - _NEGLIGIBLE * scale), value + _NEGLIGIBLE * scale
        change = _with(model, {name: high}, "").cycles(terms) - _with(model, {name: low}, "").cycles(terms)
        columns.append(change / (high - low) * scale / measured)
    return np.stack(columns, axis=1)


def _open_groups(design: Numbers, names: Sequence[str]) -> tuple[float, tuple[tuple[str, ...], ...]]:
    """Condition number of the design matrix with columns of one length, and what its weak directions consist of."""
    lengths = np.linalg.norm(design, axis=0)
    flat = lengths <= 1e-9
    groups: list[tuple[str, ...]] = [(name,) for name in compress(names, flat)]
    kept = list(compress(names, ~flat))
    if not kept:
        return float("inf"), tuple(groups)
    _, singular, directions = np.linalg.svd(design[:, ~flat] / lengths[~flat], full_matrices=True)
    singular = np.concatenate([singular, np.zeros(len(kept) - len(singular))])
    for size, direction in zip(singular, directions, strict=True):
        if size * CONDITION_LIMIT < singular[0]:
            share = np.abs(direction) / np.abs(direction).max()
            groups.append(tuple(compress(kept, share >= _SHARE_OF_DIRECTION)))
    smallest = float(singular[-1])
    return (float(singular[0]) / smallest if smallest > 0 else float("inf")), tuple(groups)


def _deviations(
    design: Numbers,
    errors: Numbers,
    names: Sequence[str],
    scales: Numbers,
    groups: tuple[tuple[str, ...], ...],
) -> dict[str, float]:
    """Standard errors of the constants, ``scales`` being what a relative change in ``design`` is relative to."""
    spare = max(1, len(errors) - len(names))
    variances = np.diag(np.linalg.pinv(design.T @ design)) * float(errors @ errors) / spare
    is_open = {name for group in groups for name in group}
    return {
        name: float("inf") if name in is_open else float(np.sqrt(max(0.0, variance)) * scale)
        for name, variance, scale in zip(names, variances, scales, strict=True)
    }


def _sentence(group: tuple[str, ...]) -> str:
    if len(group) == 1:
        return f"the measurements say too little about {group[0]}: its value is where the fit began"
    listed = f"{', '.join(group[:-1])} and {group[-1]}"
    return (
        f"the measurements cannot tell {listed} apart: only a combination of them is known; "
        "vary mesh size, groups and tile sides independently"
    )
