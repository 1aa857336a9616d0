"""What a step costs on a machine, asked often: the parts of a step are looked up, not computed again.

A step of a decoder falls into parts that depend on few numbers each: projections, norms and element-wise operators on
its tokens, the output head on its logit rows, attention on the lengths of its sequences. Each part is lowered and put
to the hardware model once per point of a grid; between the points of the grid lies a straight line. ``ExactStepCost``
asks the hardware model about every step as it is, and is what the tables are tested against.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate, repeat
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lapidist.hardware.estimate import Hardware
from lapidist.workload.lowering import DecoderShape, lower
from lapidist.workload.operators import Attention, Operator
from lapidist.workload.recipe import Recipe
from lapidist.workload.step import SequenceStep, Step

Cost = tuple[float, float]
"""Seconds and joules of one rank."""

Floats = NDArray[np.float64]

PARTS = ("layers", "head", "prefill_attention", "decode_attention", "step_overhead")

_EXACT_TOKENS = 1024  # up to here every number of tokens is asked for; kernels' tiles make steps there
_TOKENS_PER_OCTAVE = 128
_LENGTHS_PER_OCTAVE = 4
_EXACT_BATCH = 16
_LEAST_CHUNK = 2
_BATCHES_PER_OCTAVE = 8


class StepCost(Protocol):
    """Answers what the simulation asks."""

    def step(self, decodes: Sequence[int], chunks: Sequence[SequenceStep], logit_rows: int) -> Cost:
        """Of one step.

        ``decodes`` are the contexts of sequences that compute one token, itself included; ``chunks`` compute more.
        """

    def decode_run(self, kv_lengths: Sequence[int], steps: int) -> tuple[Floats, Floats]:
        """Seconds and joules ``[steps]`` of steps in which every sequence decodes one token.

        ``kv_lengths`` are of the first step, the new token included; each step adds one.
        """


class ExactStepCost:
    """Lowers and costs every step as it is: slow, and right by definition."""

    def __init__(
        self,
        hardware: Hardware,
        config: DecoderShape,
        recipe: Recipe,
        tensor_parallel: int = 1,
        expert_parallel: int = 1,
    ) -> None:
        self._ask = hardware.step
        self._lower = lambda step: lower(config, recipe, step, tensor_parallel, expert_parallel)
        self.low_confidence: set[str] = set()

    def step(self, decodes: Sequence[int], chunks: Sequence[SequenceStep], logit_rows: int) -> Cost:
        sequences = (*(SequenceStep(1, length) for length in decodes), *chunks)
        estimate = self._ask(self._lower(Step(sequences, logit_rows)))
        self.low_confidence.update(estimate.low_confidence)
        return estimate.seconds, estimate.joules

    def decode_run(self, kv_lengths: Sequence[int], steps: int) -> tuple[Floats, Floats]:
        costs = [
            self.step([length + index for length in kv_lengths], [], len(kv_lengths))
            for index in range(steps)
        ]
        seconds, joules = np.array(costs).T
        return seconds, joules


class TabledStepCost:
    """Costs from tables that fill as they are read.

    What a hardware model charges per step, beside its operators, is what it says of a step without operators.

    Attributes
    ----------
    low_confidence : what the hardware model said against its own answers.
    """

    def __init__(
        self,
        hardware: Hardware,
        config: DecoderShape,
        recipe: Recipe,
        tensor_parallel: int = 1,
        expert_parallel: int = 1,
    ) -> None:
        self._hardware, self._config, self._recipe = hardware, config, recipe
        self._ranks = (tensor_parallel, expert_parallel)
        self._windows = tuple(Counter(config.sliding_windows))
        self.low_confidence: set[str] = set()
        self._seconds_by_part = dict.fromkeys(PARTS, 0.0)
        self._overhead = self._cost([])
        self._prompts = self._ask_prompts()
        self._tokens = cache(self._ask_tokens)
        self._head = cache(self._ask_head)
        self._decode = cache(self._ask_decode)
        self._again = cache(self._ask_again)
        self._prefill = cache(self._ask_prefill)

    def step(self, decodes: Sequence[int], chunks: Sequence[SequenceStep], logit_rows: int) -> Cost:
        seconds, joules = self._prefill_cost(chunks) if chunks else (0.0, 0.0)
        if chunks:
            seconds, joules = seconds + self._prompts[0], joules + self._prompts[1]
        tokens = len(decodes) + sum(chunk.query_length for chunk in chunks)
        self._seconds_by_part["prefill_attention"] += seconds
        fixed = self._fixed(tokens, logit_rows, steps=1)
        seconds, joules = seconds + fixed[0], joules + fixed[1]
        if decodes:
            run_seconds, run_joules = self._decode_attention(decodes, 1)
            seconds, joules = seconds + float(run_seconds[0]), joules + float(run_joules[0])
        return seconds, joules

    def decode_run(self, kv_lengths: Sequence[int], steps: int) -> tuple[Floats, Floats]:
        batch = len(kv_lengths)
        fixed = self._fixed(batch, batch, steps)
        seconds, joules = self._decode_attention(kv_lengths, steps)
        return seconds + fixed[0], joules + fixed[1]

    def take_seconds_by_part(self) -> dict[str, float]:
        """Where the time of all steps since the last call went, by ``PARTS``."""
        taken, self._seconds_by_part = self._seconds_by_part, dict.fromkeys(PARTS, 0.0)
        return taken

    # -- parts, from the tables ------------------------------------------------------------------------------------

    def _fixed(self, tokens: int, logit_rows: int, steps: int) -> Cost:
        """All but attention, of one step; ``steps`` such steps are booked."""
        layers = _along(token_grid(), tokens, self._tokens)
        head = self._head(logit_rows) if logit_rows else (0.0, 0.0)
        for part, cost in (("layers", layers), ("head", head), ("step_overhead", self._overhead)):
            self._seconds_by_part[part] += steps * cost[0]
        return layers[0] + head[0] + self._overhead[0], layers[1] + head[1] + self._overhead[1]

    def _prefill_cost(self, chunks: Sequence[SequenceStep]) -> Cost:
        """Of the chunks' attention; what even the smallest chunk costs is common to them all.

        Where a machine runs several short chunks side by side, a step of them comes out a few percent slow.
        """
        costs = [self._chunk_cost(chunk) for chunk in chunks]
        shared = len(chunks) - 1
        common = [self._prefill(window, _LEAST_CHUNK, 0) for window in self._windows] if shared else []
        seconds, joules = (
            sum(cost[index] for cost in costs) - shared * sum(cost[index] for cost in common)
            for index in range(2)
        )
        return seconds, joules

    def _chunk_cost(self, chunk: SequenceStep) -> Cost:
        """Of one chunk: between four points, whose sides are the query and the visible context."""
        seconds = joules = 0.0
        for window in self._windows:
            past = chunk.kv_length - chunk.query_length
            visible_past = past if window is None else min(past, window - 1)

            def at_query(query: int, past: int = visible_past, window: int | None = window) -> Cost:
                return _along(length_grid(), past + 1, lambda one: self._prefill(window, query, one - 1))

            own = _along(length_grid(), chunk.query_length, at_query)
            seconds, joules = seconds + own[0], joules + own[1]
        return seconds, joules

    def _decode_attention(self, kv_lengths: Sequence[int], steps: int) -> tuple[Floats, Floats]:
        """Sequences of different lengths cost what as many of their mean length do."""
        batch = len(kv_lengths)
        lengths = np.asarray(kv_lengths, dtype=np.float64)
        again = _along(batch_grid(), batch, self._again)
        seconds, joules = np.full(steps, -again[0]), np.full(steps, -again[1])
        for window in self._windows:
            if window is None:
                means = lengths.mean() + np.arange(steps)
            else:
                means = np.minimum(lengths[:, None] + np.arange(steps), window).mean(axis=0)
            for index, out in enumerate((seconds, joules)):
                out += self._at_batch(window, batch, means, index)
        self._seconds_by_part["decode_attention"] += float(seconds.sum())
        return seconds, joules

    def _at_batch(self, window: int | None, batch: int, means: Floats, index: int) -> Floats:
        below, above, weight = _neighbours(batch_grid(), batch)
        low = self._at_lengths(window, below, means, index)
        if weight == 0:
            return low
        return low + weight * (self._at_lengths(window, above, means, index) - low)

    def _at_lengths(self, window: int | None, batch: int, means: Floats, index: int) -> Floats:
        grid = length_grid()
        first = max(0, bisect_right(grid, means[0]) - 1)
        last = bisect_right(grid, means[-1])
        points = grid[first : last + 1]
        return np.interp(means, points, [self._decode(window, batch, point)[index] for point in points])

    # -- the tables' entries ---------------------------------------------------------------------------------------

    def _ask_tokens(self, tokens: int) -> Cost:
        return self._without_overhead(
            [each for each in self._lower(1, tokens, tokens) if not isinstance(each, Attention)]
        )

    def _ask_head(self, rows: int) -> Cost:
        plain = {operator.name for operator in self._lower(1, rows, rows)}
        with_head = self._lower(1, rows, rows, logit_rows=rows)
        return self._without_overhead([each for each in with_head if each.name not in plain])

    def _ask_prompts(self) -> Cost:
        """What a step of prompts costs beyond its parts: engines start experts one by one there, and what a machine
        charges for prompts comes with the attention of every window."""
        whole = self._lower(1, _LEAST_CHUNK, _LEAST_CHUNK)
        parts = [self._ask_tokens(_LEAST_CHUNK), self._overhead]
        parts += [self._ask_prefill(window, _LEAST_CHUNK, 0) for window in self._windows]
        seconds, joules = (
            cost - sum(part[index] for part in parts) for index, cost in enumerate(self._cost(whole))
        )
        return seconds, joules

    def _ask_again(self, batch: int) -> Cost:
        """What every window's decodes cost and all of them together cost once: a machine's charge per sequence."""
        if len(self._windows) == 1:
            return 0.0, 0.0
        every = [each for each in self._lower(batch, 1, 1) if isinstance(each, Attention)]
        together = self._without_overhead(every)
        apart = [self._decode(window, batch, 1) for window in self._windows]
        return sum(cost[0] for cost in apart) - together[0], sum(cost[1] for cost in apart) - together[1]

    def _ask_decode(self, window: int | None, batch: int, kv_length: int) -> Cost:
        return self._without_overhead(self._attention(self._lower(batch, 1, kv_length), window))

    def _ask_prefill(self, window: int | None, query: int, past: int) -> Cost:
        return self._without_overhead(self._attention(self._lower(1, query, query + past), window))

    def _lower(self, batch: int, query: int, kv_length: int, logit_rows: int = 0) -> list[Operator]:
        step = Step((SequenceStep(query, kv_length),) * batch, logit_rows)
        return lower(self._config, self._recipe, step, *self._ranks)

    @staticmethod
    def _attention(operators: Sequence[Operator], window: int | None) -> list[Operator]:
        return [each for each in operators if isinstance(each, Attention) and each.window == window]

    def _without_overhead(self, operators: Sequence[Operator]) -> Cost:
        seconds, joules = self._cost(operators)
        return max(0.0, seconds - self._overhead[0]), joules - self._overhead[1]

    def _cost(self, operators: Sequence[Operator]) -> Cost:
        estimate = self._hardware.step(operators)
        self.low_confidence.update(estimate.low_confidence)
        return estimate.seconds, estimate.joules


@cache
def token_grid() -> tuple[int, ...]:
    """Every number of tokens up to 1024, then about half a percent apart."""
    return _grid(_EXACT_TOKENS, _TOKENS_PER_OCTAVE, 1 << 17)


@cache
def length_grid() -> tuple[int, ...]:
    """Lengths of context or of chunks, about 19 % apart; from 1 to a million."""
    return _grid(4, _LENGTHS_PER_OCTAVE, 1 << 21)


@cache
def batch_grid() -> tuple[int, ...]:
    """Every number of sequences up to 16, then about 9 % apart."""
    return _grid(_EXACT_BATCH, _BATCHES_PER_OCTAVE, 1 << 16)


def _grid(exact: int, per_octave: int, end: int) -> tuple[int, ...]:
    ratio = 2 ** (1 / per_octave)
    count = math.ceil(math.log(end / exact, ratio)) + 1
    beyond = accumulate(repeat(ratio, count), lambda value, factor: value * factor, initial=float(exact))
    return tuple(sorted({*range(1, exact + 1), *(round(value) for value in beyond)}))


def _neighbours(grid: tuple[int, ...], value: float) -> tuple[int, int, float]:
    """The points around a value, and how far from the first to the second it lies."""
    index = bisect_right(grid, value) - 1
    if grid[index] == value:
        return grid[index], grid[index], 0.0
    if index + 1 == len(grid):
        raise ValueError(f"a step of {value:g} tokens is beyond what can be planned (at most {grid[-1]})")
    return grid[index], grid[index + 1], (value - grid[index]) / (grid[index + 1] - grid[index])


def _along(grid: tuple[int, ...], value: int, cost: Callable[[int], Cost]) -> Cost:
    """Cost at ``value``, on the line between its neighbours on the grid."""
    below, above, weight = _neighbours(grid, value)
    low = cost(below)
    if weight == 0:
        return low
    high = cost(above)
    return low[0] + weight * (high[0] - low[0]), low[1] + weight * (high[1] - low[1])
