"""What a hardware model answers, and the one question that every hardware model is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from lapidist.workload.operators import Operator

Bound = Literal["compute", "memory", "communication", "overhead"]


@dataclass(frozen=True)
class Estimate:
    """Time and energy of one step, and what they are made of.

    Attributes
    ----------
    seconds : expected duration.
    joules : expected energy.
    bound : what most of the time is spent on.
    breakdown : seconds by operator name; they add up to ``seconds``.
    interval_seconds : a 90 % interval of the duration, where the model can state one.
    low_confidence : why the answer should not be trusted far, one sentence each; empty where nothing speaks against it.
    """

    seconds: float
    joules: float
    bound: Bound
    breakdown: Mapping[str, float] = field(default_factory=dict)
    interval_seconds: tuple[float, float] | None = None
    low_confidence: tuple[str, ...] = ()

    @property
    def watts(self) -> float:
        """Average power; energy is time times power by construction."""
        return self.joules / self.seconds if self.seconds else 0.0


class Hardware(Protocol):
    """A machine that can be asked what a step costs."""

    @property
    def name(self) -> str: ...

    def step(self, operators: Sequence[Operator]) -> Estimate:
        """Cost of one step as ``workload.lower`` gives it, each operator run ``count`` times.

        Raises
        ------
        ValueError : the machine cannot run an operator; the sentence names it and the reason.
        """
        ...
