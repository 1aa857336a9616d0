"""What the coming of a request costs beside its steps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ArrivalCost:
    """Times of the processor that also runs the model; on machines with a device of their own, none.

    Parameters
    ----------
    seconds, token_seconds : by which the steps under way end later where a request comes while others run, and for
        each token of its prompt: making, checking and copying the prompt need the interpreter, and a core.
    wake_seconds : by which the first token is later where there was nothing to do: threads sleep, caches are cold.
    """

    seconds: float = 0.0
    token_seconds: float = 0.0
    wake_seconds: float = 0.0

    def taken_seconds(self, prompt_tokens: int) -> float:
        """From the steps under way, by a prompt of so many tokens."""
        return self.seconds + self.token_seconds * prompt_tokens


NO_ARRIVAL_COST = ArrivalCost()
