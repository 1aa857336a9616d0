"""The language every other room speaks: operators, steps, request traces, lowering."""

from lapidist.workload.lowering import lower
from lapidist.workload.recipe import Recipe
from lapidist.workload.step import FilterStep, SequenceStep, Step, read_steps, write_steps

__all__ = ["FilterStep", "Recipe", "SequenceStep", "Step", "lower", "read_steps", "write_steps"]
