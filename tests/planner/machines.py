"""Hardware models simple enough to work out by hand."""

from collections.abc import Sequence
from dataclasses import dataclass

from lapidist.hardware.estimate import Estimate
from lapidist.models.config import ModelConfig
from lapidist.workload.operators import Operator
from lapidist.workload.recipe import Recipe

TINY_SHAPE = ModelConfig.of_shape("qwen2.5-0.5b")
BF16 = Recipe.named("bf16")


@dataclass(frozen=True)
class Roofline:
    """Every operator takes its bytes or its FLOPs, whichever is longer, and every step ``overhead_seconds`` on top."""

    speed: float = 1.0
    overhead_seconds: float = 1e-4
    name: str = "roofline"

    def step(self, operators: Sequence[Operator]) -> Estimate:
        breakdown: dict[str, float] = {"overhead": self.overhead_seconds / self.speed}
        for each in operators:
            seconds = each.count * max(each.flops / 1e14, each.minimum_bytes / 1e12) / self.speed
            breakdown[each.name] = breakdown.get(each.name, 0.0) + seconds
        seconds = sum(breakdown.values())
        return Estimate(seconds, 300 * seconds, "memory", breakdown, (0.9 * seconds, 1.2 * seconds))


@dataclass(frozen=True)
class Metronome:
    """Every step takes a second."""

    name: str = "metronome"

    def step(self, operators: Sequence[Operator]) -> Estimate:
        return Estimate(1.0, 100.0, "overhead")
