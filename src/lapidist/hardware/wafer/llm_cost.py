"""What prefill, decode and whole requests of a decoder cost on a wafer, at full scale and without running them.

Two accountings: ``complete`` costs the layers that the functional simulator computes with (grouped-query attention, a
softmax for every head, the activation over the whole feed-forward block, norms and biases of the model's family;
sliding windows save nothing, as the simulated cores keep and score all tokens); ``released`` costs the kernels that the
paper timed, which skip some of that (:mod:`released_kernels`). Layers that do not fit into one region are spread over
several, one after the other; one request uses one region at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from lapidist.hardware.wafer.cost import COMPONENTS, Component, Cost, CostModel
from lapidist.hardware.wafer.decode_layer import DecodePlan, decode_head, decode_layer
from lapidist.hardware.wafer.decoder_variant import DecoderVariant, ModelShape
from lapidist.hardware.wafer.device import Device
from lapidist.hardware.wafer.llm_memory import LLMMemory, Phase
from lapidist.hardware.wafer.prefill_layer import PrefillPlan, prefill_layer
from lapidist.hardware.wafer.published import released_groups
from lapidist.hardware.wafer.regions import Grid, regions_on_wafer, require_on_wafer
from lapidist.hardware.wafer.released_kernels import (
    ReleasedLayer,
    released_decode_layer,
    released_prefill_layer,
)

Kernels = Literal["complete", "released"]
KERNELS: tuple[Kernels, ...] = ("complete", "released")


_COPIES_OF_A_RELAYOUT = 2  # out of the old order into messages, out of messages into the new order
_BISECTION_SHARE = 4  # half of what moves at random crosses the middle, half of that in each direction


@dataclass(frozen=True)
class PhaseCost:
    """One pass through the model: the prefill of a prompt, or the decode of one token.

    Attributes
    ----------
    layer, head : cycles of one layer and of the output head by component.
    hand_over_cycles : hidden states on their way from region to region, all of them.
    regions : that the layers need, ``regions_on_wafer`` that there are.
    bytes_per_core : of the fullest core, code not counted.
    """

    phase: Phase
    grid: Grid
    layers: int
    layer: Cost
    head: Cost
    hand_over_cycles: float
    regions: int
    regions_on_wafer: int
    bytes_per_core: int

    @property
    def cycles(self) -> float:
        return self.layers * self.layer.cycles + self.head.cycles + self.hand_over_cycles

    @property
    def fits(self) -> bool:
        """Whether the wafer has room for all regions."""
        return self.regions <= self.regions_on_wafer

    @cached_property
    def by_component(self) -> Mapping[str, float]:
        """Cycles of the whole pass; they add up to ``cycles``."""
        found: dict[str, float] = {
            name: self.layers * self.layer.by_component[name] + self.head.by_component[name]
            for name in COMPONENTS
        }
        return {**found, "hand-over between regions": self.hand_over_cycles}


@dataclass(frozen=True)
class Transition:
    """From the placement of prefill to that of decode.

    Attributes
    ----------
    moved_bytes : KV cache, and weights if two copies of them do not fit on the wafer.
    cycles : through the middle of the smaller grid, and copies on each core before and after.
    """

    moved_bytes: int
    weights_move: bool
    cycles: float


@dataclass(frozen=True)
class RequestCost:
    """One request alone on the wafer; ``interval_seconds`` is a 90 % interval of ``seconds`` where one is known."""

    prompt: int
    output: int
    prefill: PhaseCost
    transition: Transition
    decode: PhaseCost
    clock_hz: float
    watts: float | None
    interval_seconds: tuple[float, float] | None = None

    @property
    def cycles(self) -> float:
        """Of the whole request, with a decode for each output token, as the paper counts."""
        return self.prefill.cycles + self.transition.cycles + self.output * self.decode.cycles

    @property
    def seconds(self) -> float:
        return self.cycles / self.clock_hz

    @property
    def time_to_first_token_seconds(self) -> float:
        """Prefill, the way to the decode mesh, and the output head there."""
        return (self.prefill.cycles + self.transition.cycles + self.decode.head.cycles) / self.clock_hz

    @property
    def output_tokens_per_second(self) -> float:
        """Output tokens by the time of the whole request, WaferLLM's TPR."""
        return self.output / self.seconds

    @property
    def joules(self) -> float | None:
        """The whole device's power for the whole time; None if its power is not stated."""
        return None if self.watts is None else self.watts * self.seconds


@dataclass(frozen=True)
class LLMCost:
    """A decoder on a wafer.

    Parameters
    ----------
    code_bytes : that programs take on a core beyond what the device reserves; a decode kernel needs some 10 KB.
    element_bytes : of weights, activations and KV cache; the constants were measured with fp16.
    phases : of the K-tree all-reduces in decode (``complete``).
    """

    shape: ModelShape
    device: Device
    model: CostModel
    kernels: Kernels = "complete"
    code_bytes: int = 0
    element_bytes: int = 2
    phases: int = 2

    def __post_init__(self) -> None:
        if self.kernels not in KERNELS:
            raise ValueError(f"unknown kernels {self.kernels!r}; known are {', '.join(KERNELS)}")
        _ = self.memory  # refuses a wrong code_bytes

    @property
    def memory(self) -> LLMMemory:
        """What the model takes of the cores."""
        return LLMMemory(self.shape, self.device, self.code_bytes, self.element_bytes)

    def prefill(self, tokens: int, grid: Grid) -> PhaseCost:
        """The prompt of ``tokens`` in one pass.

        Raises
        ------
        ValueError : the grid does not fit on the wafer, one layer does not fit on the grid, or the released kernels
            are to run on a grid that is not square.
        """
        require_on_wafer(self.device, grid)
        fill = self.memory.fill("prefill", grid, tokens)
        row_bytes = -(-tokens // grid.rows) * self.shape.hidden_size * self.element_bytes
        return PhaseCost(
            "prefill",
            grid,
            self.shape.num_layers,
            self._prefill_layer(tokens, grid),
            Cost(dict.fromkeys(COMPONENTS, 0.0)),  # the first token's logits are those of the decode mesh
            (fill.regions - 1) * self._hand_over(grid, row_bytes),
            fill.regions,
            regions_on_wafer(self.device, grid),
            fill.bytes_per_core,
        )

    def decode(self, context: int, grid: Grid) -> PhaseCost:
        """One token with room for ``context`` tokens in the cache; raises ValueError as :meth:`prefill` does."""
        require_on_wafer(self.device, grid)
        fill = self.memory.fill("decode", grid, context)
        row_bytes = -(-self.shape.hidden_size // grid.rows) * self.element_bytes
        head = decode_head(self._decode_plan(context, grid), self.shape.vocab_size, self.element_bytes)
        return PhaseCost(
            "decode",
            grid,
            self.shape.num_layers,
            self._decode_layer(context, grid),
            self.model.cost(head),
            (fill.regions - 1) * self._hand_over(grid, row_bytes),
            fill.regions,
            regions_on_wafer(self.device, grid),
            fill.bytes_per_core,
        )

    def transition(self, tokens: int, prefill: Grid, decode: Grid) -> Transition:
        """Move the cache of ``tokens``, and the weights if they cannot lie in both places.

        Nobody has published what this costs. Counted are a random permutation through the middle of the smaller grid
        and two copies of what a core holds of it, which others found to weigh more than the wires.
        """
        memory, cache = self.memory, self.memory.kv_bytes(tokens)
        weights_move = 2 * memory.weight_bytes + cache > memory.wafer_bytes
        moved = cache + (memory.weight_bytes if weights_move else 0)
        links = min(prefill.rows, prefill.cols, decode.rows, decode.cols)
        wire = moved / _BISECTION_SHARE / (links * self.model.link_bytes_per_cycle)
        elements = moved / self.element_bytes / min(prefill.cores, decode.cores)
        copies = _COPIES_OF_A_RELAYOUT * elements * self.model.constants.pointwise_operation
        return Transition(moved, weights_move, wire + copies)

    def request(
        self, prompt: int, output: int, prefill: Grid, decode: Grid, context: int | None = None
    ) -> RequestCost:
        """A request alone on the wafer.

        Parameters
        ----------
        context : tokens that the decode kernel has room for; by default half-way through the output, which costs as
            much as the average of all its tokens.

        Raises
        ------
        ValueError : prompt or output are not positive, or a phase fails as :meth:`prefill` does.
        """
        if min(prompt, output) < 1:
            raise ValueError(
                f"a request has at least one token in and one out, got {prompt} in and {output} out"
            )
        cost = RequestCost(
            prompt,
            output,
            self.prefill(prompt, prefill),
            self.transition(prompt, prefill, decode),
            self.decode(context or prompt + -(-output // 2), decode),
            self.device.clock_hz,
            self.device.watts,
        )
        return replace(cost, interval_seconds=self.model.interval(cost.seconds))

    def _prefill_layer(self, tokens: int, grid: Grid) -> Cost:
        if self.kernels == "released":
            return self.model.program_cost(released_prefill_layer(self._released(grid), tokens, grid.rows))
        plan = PrefillPlan(self.shape, grid.rows, grid.cols, tokens, DecoderVariant.of(self.shape))
        return self.model.cost(prefill_layer(plan, 1, self.element_bytes))

    def _decode_layer(self, context: int, grid: Grid) -> Cost:
        if self.kernels == "released":
            groups = released_groups(grid.rows)
            return self.model.program_cost(
                released_decode_layer(self._released(grid), context, grid.rows, groups)
            )
        return self.model.cost(decode_layer(self._decode_plan(context, grid), 1, self.element_bytes))

    def _decode_plan(self, context: int, grid: Grid) -> DecodePlan:
        return DecodePlan(
            self.shape,
            grid.rows,
            grid.cols,
            -(-context // grid.rows),
            phases=self.phases,
            variant=DecoderVariant.of(self.shape),
        )

    def _released(self, grid: Grid) -> ReleasedLayer:
        if grid.rows != grid.cols:
            raise ValueError(f"the released kernels run on square grids, got {grid}; use the complete ones")
        return ReleasedLayer(self.shape.hidden_size, self.shape.intermediate_size)

    def _hand_over(self, grid: Grid, row_bytes: float) -> float:
        """Hidden states across a region and into the next, each row of cores over its own link."""
        constants = self.model.constants
        return (
            constants.step
            + max(grid.rows, grid.cols) * constants.hop
            + row_bytes / self.model.link_bytes_per_cycle
        )


def component_shares(cost: PhaseCost) -> dict[Component | str, float]:
    """Share of each component in a pass, largest first, without those that take no time."""
    total = cost.cycles
    shares = {name: cycles / total for name, cycles in cost.by_component.items() if cycles}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
