"""What can be planned on: a hardware model with the price and the memory of its device."""

from dataclasses import dataclass

from lapidist.hardware.estimate import Hardware
from lapidist.planner.arrival_cost import NO_ARRIVAL_COST, ArrivalCost
from lapidist.planner.batching import MIXED, Batching


@dataclass(frozen=True)
class Machine:
    """A device, of which a tensor-parallel group has several.

    Attributes
    ----------
    memory_bytes : of one device, all of it.
    dollars_per_hour : of one device; None where nobody said.
    idle_watts : what one device draws while it waits for requests.
    price_source : where the price comes from.
    request_seconds : once per request before the scheduler sees it.
    arrival : what requests cost the machine's other work.
    batching : how the engine on it fills its steps.
    """

    hardware: Hardware
    memory_bytes: int
    dollars_per_hour: float | None = None
    idle_watts: float = 0.0
    price_source: str | None = None
    request_seconds: float = 0.0
    arrival: ArrivalCost = NO_ARRIVAL_COST
    batching: Batching = MIXED

    @property
    def name(self) -> str:
        return self.hardware.name
