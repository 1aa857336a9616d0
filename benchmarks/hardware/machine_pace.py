"""How fast the machine is from moment to moment: a reference operator that is timed while an engine runs.

A virtual machine's processors are moved and shared by its host. The same decode step of a model of 1.2 billion
parameters was seen to take 32 ms for some seconds and 49 ms for the next ones, a prompt 18 % longer, and neither says
anything about a forecast. So the thread that runs the engine reads 64 MiB four times a second, between two steps.
Calibration and traces are compared at equal pace: how strongly decode steps and steps with prompts follow the reference
(an exponent each), and how far a profile is off for each of the two, is found from the calibration's steps alone.
"""

import math
import statistics
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.stats import theilslopes

from lapidist.engine.async_llm import AsyncLLM
from lapidist.planner.arrival_overhead import start_seconds
from lapidist.planner.step_cost import Cost, Floats, StepCost
from lapidist.workload.step import SequenceStep, Step

_EVERY_SECONDS = 0.25
_BYTES = 64 << 20
_SHORT_SECONDS = 0.1
_MOST_POINTS = 1500  # of a slope


@dataclass
class MachinePace:
    """Logarithms of the reference's seconds, by time."""

    times: list[float] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)

    def watch(self, llm: AsyncLLM) -> None:
        """Time the reference in the engine's thread from now on."""
        # By NumPy: PyTorch would leave this thread a team of OpenMP's, see ``kernels.passing_thread``.
        numbers = torch.from_numpy(np.ones(_BYTES // 4, dtype=np.float32))
        engine = llm._engine
        step = engine.step

        def watched() -> list[object]:
            if not self.times or time.monotonic() >= self.times[-1] + _EVERY_SECONDS:
                begun = time.monotonic()
                numbers.sum()
                self.logs.append(math.log(time.monotonic() - begun))
                self.times.append(begun)
            return step()  # type: ignore[return-value]

        engine.step = watched  # type: ignore[assignment,method-assign]

    def at(self, when: float) -> float:
        """The median of the three samples around a moment: one may have been interrupted."""
        place = bisect_left(self.times, when)
        return float(np.median(self.logs[max(0, place - 2) : place + 2]))

    def disturbs(self, step: Step) -> bool:
        """Whether the reference was timed between a step, which lasts until the next one, and that one, and the step is
        so short that it matters."""
        begin, seconds = start_seconds(step), step.duration_seconds or 0.0
        timed = bisect_right(self.times, begin + seconds) - bisect_right(self.times, begin)
        return timed > 0 and seconds < _SHORT_SECONDS

    def mean(self, begin: float, end: float) -> float:
        """Over a stretch of time."""
        return float(np.mean([self.at(when) for when in self.times if begin <= when <= end]))


@dataclass(frozen=True)
class Sensitivity:
    """Exponents of the reference's time in that of decode steps and of steps with prompts: 0 where it does not matter,
    1 where all waits for memory."""

    decode: float
    prefill: float

    def at_pace(self, steps: Sequence[Step], paces: MachinePace, wanted: float) -> list[Step]:
        """The steps as they would have lasted at another pace."""
        found = []
        for step in steps:
            exponent = self.prefill if step.has_prompt else self.decode
            factor = math.exp(exponent * (wanted - paces.at(start_seconds(step))))
            found.append(replace(step, duration_seconds=factor * (step.duration_seconds or 0.0)))
        return found


def sensitivity(steps: Sequence[Step], paces: MachinePace, seconds: Callable[[Step], float]) -> Sensitivity:
    """From how far steps are off, each less the mean of its kind, which a forecast may misjudge."""
    rows: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    kinds: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for step in steps:
        off = math.log((step.duration_seconds or 0.0) / seconds(step))
        # Steps of as many sequences and tokens.
        kinds[len(step.sequences), step.tokens].append((paces.at(start_seconds(step)), off))
    for (sequences, tokens), own in kinds.items():
        centre = np.median(own, axis=0)
        rows[tokens > sequences] += [(pace - centre[0], off - centre[1]) for pace, off in own]
    return Sensitivity(_slope(rows[False]), _slope(rows[True]))


def bias(steps: Sequence[Step], seconds: Callable[[Step], float]) -> tuple[float, float]:
    """Measured over forecast seconds of decode steps and of those with prompts: the median of the octaves' medians,
    by their sequences."""
    kinds: dict[tuple[bool, int], list[float]] = defaultdict(list)
    for step in steps:
        kinds[step.has_prompt, len(step.sequences).bit_length()].append(
            (step.duration_seconds or 0.0) / seconds(step)
        )
    medians = {kind: statistics.median(own) for kind, own in kinds.items()}
    decode, prefill = (
        [own for (prompt, _), own in medians.items() if prompt == each] for each in (False, True)
    )
    return statistics.median(decode or [1.0]), statistics.median(prefill or [1.0])


def _slope(rows: Sequence[tuple[float, float]]) -> float:
    """Theil and Sen's, from 0 to 1; 0 where the reference never moved."""
    chosen = np.array(rows[:: 1 + len(rows) // _MOST_POINTS])
    if len(chosen) < 2 or np.ptp(chosen[:, 0]) == 0:
        return 0.0
    return float(np.clip(theilslopes(chosen[:, 1], chosen[:, 0])[0], 0.0, 1.0))


@dataclass(frozen=True)
class PacedStepCost:
    """Step costs, corrected for decode steps and for those with prompts; see :func:`bias`."""

    cost: StepCost
    decode: float
    prefill: float

    def step(self, decodes: Sequence[int], chunks: Sequence[SequenceStep], logit_rows: int) -> Cost:
        seconds, joules = self.cost.step(decodes, chunks, logit_rows)
        return seconds * (self.prefill if chunks else self.decode), joules

    def decode_run(self, kv_lengths: Sequence[int], steps: int) -> tuple[Floats, Floats]:
        seconds, joules = self.cost.decode_run(kv_lengths, steps)
        return seconds * self.decode, joules
