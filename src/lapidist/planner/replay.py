"""Recorded steps on a virtual clock: what each would take on another machine, prompt filters' work included."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from lapidist.hardware.estimate import Hardware
from lapidist.workload.lowering import DecoderShape, lower
from lapidist.workload.recipe import Recipe
from lapidist.workload.step import Step


def replay_steps(
    steps: Iterable[Step],
    hardware: Hardware,
    config: DecoderShape,
    recipe: Recipe,
    tensor_parallel: int = 1,
) -> Iterator[Step]:
    """The same steps with the durations that ``hardware`` forecasts, one after the other from second 0.

    Raises
    ------
    ValueError : the machine cannot run an operator, or a step is not of such a model.
    """
    now = 0.0
    for step in steps:
        seconds = hardware.step(lower(config, recipe, step, tensor_parallel)).seconds
        yield replace(step, duration_seconds=seconds, start_seconds=now)
        now += seconds
