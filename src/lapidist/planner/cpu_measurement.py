"""Measuring a model's operators, and what the engine adds to them, on this machine."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch

from lapidist.hardware.cpu.operator_key import operator_key, operator_rows
from lapidist.hardware.cpu.profile import NO_OVERHEAD, AttentionPoint, CPUProfile, OperatorPoint
from lapidist.kernels.machine import last_level_cache_bytes, machine_name
from lapidist.kernels.passing_thread import in_passing_thread
from lapidist.models.config import ModelConfig
from lapidist.planner.engine_overhead import measure_overhead
from lapidist.planner.machine_watch import MachineWatch
from lapidist.planner.operator_run import OperatorRun
from lapidist.planner.recipes import checkpoint_recipe
from lapidist.workload.lowering import lower
from lapidist.workload.operators import Attention
from lapidist.workload.recipe import Recipe
from lapidist.workload.step import SequenceStep, Step

Progress = Callable[[str, int, int], None]  # what is measured, how much is done, and all

_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_CONTEXTS = (16, 128, 512, 1024, 2048, 4096, 8192)
_QUERIES = (2, 16, 64, 128, 256, 512)
_BEFORE = (0, 512, 1536, 6144)
_OTHER_ROWS = (3, 6, 12, 24, 48, 96, 192, 384)
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 25
# A step that takes longer pays no heed to what the caches held when it began.
_SHORT_SECONDS = 0.02


@dataclass(frozen=True)
class MeasuredOperators:
    """Lower quartiles over all layers and rounds: what disturbs a machine only slows it down, and a virtual one may be
    half as fast for seconds."""

    operators: tuple[OperatorPoint, ...]
    attention: tuple[AttentionPoint, ...]


def measure_cpu(
    checkpoint: Path,
    *,
    model: str,
    budget_seconds: float = 90.0,
    max_context: int = 2048,
    watts: float | None = None,
    with_engine: bool = True,
    progress: Progress = lambda label, done, total: None,
) -> CPUProfile:
    """Measure a checkpoint's operators and the engine around them.

    Parameters
    ----------
    checkpoint : directory whose weights the engine runs; the operators are measured on random weights.
    model : its name, for people.
    budget_seconds : for the operators, of which three rounds are run however long they take; and for the engine.
    max_context : the longest context that attention is measured on.
    watts : of the processor under load, where the user knows.
    with_engine : or the operators alone.

    Raises
    ------
    CheckpointError, ValueError : the checkpoint cannot be used.
    """
    config = ModelConfig.from_directory(checkpoint)
    recipe = checkpoint_recipe(config)
    watch = MachineWatch()
    # The engine runs in another thread, then.
    found = in_passing_thread(
        lambda: measure_operators(config, recipe, budget_seconds, max_context, progress)
    )
    profile = CPUProfile(
        machine=machine_name(torch.device("cpu")),
        model=model,
        shape=shape_of(config),
        recipe=recipe.name,
        operators=found.operators,
        attention=found.attention,
        overhead=NO_OVERHEAD,
        memory_bytes=psutil.virtual_memory().total,
        watts=watts,
        cache_bytes=last_level_cache_bytes(),
    )
    if with_engine:
        profile = measure_overhead(checkpoint, profile, budget_seconds, progress)
    return replace(profile, others_cores=watch.others_cores())


def shape_of(config: ModelConfig) -> dict[str, int]:
    """The numbers that decide what is measured."""
    names = (
        "num_layers",
        "hidden_size",
        "intermediate_size",
        "num_heads",
        "num_kv_heads",
        "head_dim",
        "vocab_size",
    )
    return {name: getattr(config, name) for name in names}


def measure_operators(
    config: ModelConfig,
    recipe: Recipe,
    budget_seconds: float,
    max_context: int,
    progress: Progress = lambda label, done, total: None,
    clock: Callable[[], float] = time.perf_counter,
) -> MeasuredOperators:
    """Run a grid of steps in rounds, so that what disturbs the machine disturbs all of them.

    Raises
    ------
    ValueError : ``max_context`` is below 16 tokens, or beyond what memory holds.
    """
    context = min(max_context, config.max_position_embeddings)
    if context < _CONTEXTS[0]:
        raise ValueError(f"attention is measured on contexts from {_CONTEXTS[0]} tokens, got {context}")
    steps = list(step_grid(context))
    most = max(sum(sequence.kv_length for sequence in step.sequences) for step in steps)
    progress("building operators", 0, len(steps))
    run = OperatorRun(config, recipe, most, clock)
    samples: list[dict[str, list[float]]] = [defaultdict(list) for _ in steps]
    end = clock() + budget_seconds
    for done in range(1 + _MOST_ROUNDS):
        if done > _LEAST_ROUNDS and clock() >= end:
            break
        for index, step in enumerate(steps):
            if done > _LEAST_ROUNDS and clock() >= end:
                break
            begun = clock()
            found = run.run(step)
            if clock() - begun < _SHORT_SECONDS:
                # Now the caches hold what they do in the engine, where a step is much like the one before.
                found = run.run(step)
            if done:  # the first round sets things up
                for name, seconds in found.items():
                    samples[index][name] += seconds
            progress("operators", done * len(steps) + index, (1 + _MOST_ROUNDS) * len(steps))
    return _points(config, recipe, steps, samples)


def step_grid(context: int) -> Iterator[Step]:
    """Decodes by batch and context, prefill chunks by queries and what is before them, and other numbers of tokens."""
    for batch in _BATCHES:
        for kv_length in _within(_CONTEXTS, context):
            yield Step((SequenceStep(1, kv_length),) * batch, batch)
    queries = [query for query in _QUERIES if query <= context]
    for query in queries:
        for before in _within(_BEFORE, context - queries[-1]):
            yield Step((SequenceStep(query, query + before),), 1)
    for rows in _OTHER_ROWS:
        if rows <= context:
            yield Step((SequenceStep(rows, rows),), rows if rows <= _BATCHES[-1] else 1)


def _within(values: Sequence[int], limit: int) -> list[int]:
    """Those up to a limit, and the limit itself."""
    return sorted({value for value in values if value < limit} | {limit})


def _points(
    config: ModelConfig, recipe: Recipe, steps: Sequence[Step], samples: Sequence[dict[str, list[float]]]
) -> MeasuredOperators:
    operators: list[OperatorPoint] = []
    attention: list[AttentionPoint] = []
    for step, by_name in zip(steps, samples, strict=True):
        typical = {name: float(np.quantile(seconds, 0.25)) for name, seconds in by_name.items()}
        for each in lower(config, recipe, step):
            if not isinstance(each, Attention):
                work = each.flops, each.minimum_bytes
                operators.append(
                    OperatorPoint(operator_key(each), operator_rows(each), *work, typical[each.name])
                )
        first, batch = step.sequences[0], len(step.sequences)
        if first.query_length == 1 or first.query_length in _QUERIES:
            attention.append(AttentionPoint(batch, first.query_length, first.kv_length, typical["attention"]))
    return MeasuredOperators(tuple(operators), tuple(attention))
