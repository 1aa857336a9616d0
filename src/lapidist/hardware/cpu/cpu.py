"""The CPU at hand as a hardware model.

An operator's time is a law, the roofline of the machine's best measured rates plus the time of the smallest run,
multiplied by how far the measurements around the wanted number of rows are from the law; the factor is interpolated
between measurements in the logarithms of both, and kept beyond the last one.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lapidist.hardware.cpu.attention_table import AttentionTable
from lapidist.hardware.cpu.operator_key import OperatorKey, operator_key, operator_rows
from lapidist.hardware.cpu.profile import CPUProfile, OperatorPoint
from lapidist.hardware.estimate import Bound, Estimate
from lapidist.workload.operators import GEMM, Attention, Collective, Embedding, Operator

# What an idle system uses now and then.
QUIET_CORES = 0.15


@dataclass(frozen=True)
class _Law:
    """``smallest + max(flops / flops_per_second, bytes / bytes_per_second)``."""

    smallest_seconds: float
    flops_per_second: float
    bytes_per_second: float

    def seconds(self, flops: float, byte_count: float) -> float:
        return self.smallest_seconds + max(flops / self.flops_per_second, byte_count / self.bytes_per_second)


@dataclass(frozen=True)
class _Curve:
    """The factor between law and measurement along the rows of one key."""

    law: _Law
    log_rows: np.ndarray
    log_factors: np.ndarray

    def seconds(self, rows: int, flops: float, byte_count: float) -> float:
        factor = math.exp(float(np.interp(math.log(rows), self.log_rows, self.log_factors)))
        return self.law.seconds(flops, byte_count) * factor

    @property
    def most_rows(self) -> float:
        return math.exp(self.log_rows[-1])


class CPU:
    """Costs steps on the machine of a profile.

    Parameters
    ----------
    profile : measurements of one model in one recipe; other models are answered too, with low confidence.
    """

    name = "cpu"

    def __init__(self, profile: CPUProfile) -> None:
        self.profile = profile
        self._attention = AttentionTable(profile.attention)
        points: dict[OperatorKey, list[OperatorPoint]] = defaultdict(list)
        for point in profile.operators:
            points[point.key].append(point)
        rates = _best_rates(profile.operators)
        self._curves = {key: _curve(own, rates) for key, own in points.items()}

    @cached_property
    def _watts(self) -> float:
        return math.nan if self.profile.watts is None else self.profile.watts

    def step(self, operators: Sequence[Operator]) -> Estimate:
        """Cost of a step; attention of all sequences in a layer is one call, as the engine makes it.

        Raises
        ------
        ValueError : the step exchanges data between devices.
        """
        breakdown: dict[str, float] = {}
        notes: set[str] = set()
        if self.profile.others_cores > QUIET_CORES:
            notes.add(
                f"other processes kept {self.profile.others_cores:.1f} cores busy while this machine was measured: "
                "run lapidist cpu measure again when it is quiet"
            )
        compute_seconds = 0.0
        for operator in operators:
            if isinstance(operator, Collective):
                raise ValueError("a CPU has no other devices to exchange with: use --tensor-parallel 1")
            if not isinstance(operator, Attention):
                seconds = operator.count * self._operator_seconds(operator, notes)
                breakdown[operator.name] = breakdown.get(operator.name, 0.0) + seconds
                compute_seconds += seconds if isinstance(operator, GEMM) and operator.m > 8 else 0.0
        attention = [each for each in operators if isinstance(each, Attention)]
        if attention:
            breakdown["attention"] = self._attention_seconds(attention)
        slowdown = self.profile.overhead.slowdown
        breakdown = {name: slowdown * seconds for name, seconds in breakdown.items()}
        breakdown["step"] = self._overhead_seconds(operators, attention)
        total = sum(breakdown.values())
        bound: Bound = "compute" if compute_seconds > total / 2 else "memory"
        if breakdown["step"] > total / 2:
            bound = "overhead"
        return Estimate(total, total * self._watts, bound, breakdown, low_confidence=tuple(sorted(notes)))

    def _operator_seconds(self, operator: Operator, notes: set[str]) -> float:
        key, rows = operator_key(operator), operator_rows(operator)
        curve = self._curves.get(key)
        if curve is None:
            curve = self._nearest(key)
            notes.add(f"{operator.name} {_shape(key)} was not measured on this machine")
        if rows > 2 * curve.most_rows:
            notes.add(f"{operator.name} was measured up to {curve.most_rows:.0f} rows only")
        return curve.seconds(rows, operator.flops, operator.minimum_bytes)

    def _nearest(self, key: OperatorKey) -> _Curve:
        """Of the same kind the one nearest in formats, then in size; of none, of any kind."""

        def distance(other: OperatorKey) -> tuple[bool, bool, float]:
            size = (
                math.log((key.columns + 1) / (other.columns + 1)),
                math.log((key.inputs + 1) / (other.inputs + 1)),
            )
            return other.kind != key.kind, other.formats != key.formats, math.hypot(*size)

        return self._curves[min(self._curves, key=lambda other: (distance(other), other))]

    def _attention_seconds(self, attention: Iterable[Attention]) -> float:
        by_call: dict[tuple[int | None, int], list[Attention]] = defaultdict(list)
        for each in attention:
            by_call[each.window, each.count].append(each)
        return sum(count * self._attention.seconds(own) for (_, count), own in by_call.items())

    def _overhead_seconds(self, operators: Sequence[Operator], attention: Sequence[Attention]) -> float:
        overhead = self.profile.overhead
        # Every sequence is there once per window length.
        windows = max(1, len({each.window for each in attention}))
        tokens = sum(each.tokens for each in operators if isinstance(each, Embedding))
        sizes = overhead.step + overhead.sequence * len(attention) / windows + overhead.token * tokens
        return sizes + overhead.cold * self.coldness(attention)

    def coldness(self, attention: Iterable[Attention]) -> float:
        """How much of what a step uses beside its context must come from memory again: from 0 to 1, half where the
        contexts would just fill the last cache. Reading keys and values drives all else out, the interpreter included.
        """
        read = sum(each.kv_read_bytes * each.count for each in attention)
        return read / (read + self.profile.cache_bytes)


def _best_rates(points: Iterable[OperatorPoint]) -> tuple[float, float]:
    """FLOPs and bytes per second of the best measured run."""
    points = list(points)
    flops = max(point.flops / point.seconds for point in points)
    return max(flops, 1.0), max(point.bytes / point.seconds for point in points)


def _curve(points: Sequence[OperatorPoint], rates: tuple[float, float]) -> _Curve:
    law = _Law(min(point.seconds for point in points), *rates)
    by_rows: dict[int, list[float]] = defaultdict(list)
    for point in points:
        by_rows[point.rows].append(math.log(point.seconds / law.seconds(point.flops, point.bytes)))
    rows = sorted(by_rows)
    return _Curve(
        law, np.log(np.array(rows, dtype=float)), np.array([float(np.mean(by_rows[each])) for each in rows])
    )


def _shape(key: OperatorKey) -> str:
    inputs = f" x {key.inputs}" if key.inputs else ""
    return f"({key.columns}{inputs}, {key.formats})"
