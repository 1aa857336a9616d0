"""What a model takes of the cores of a region, how many regions it needs, and how long its KV cache can grow."""

from dataclasses import dataclass
from typing import Literal

from lapidist.hardware.wafer.decode_layer import DecodePlan, decode_layer
from lapidist.hardware.wafer.decoder_variant import DecoderVariant, ModelShape
from lapidist.hardware.wafer.description import Description
from lapidist.hardware.wafer.device import Device
from lapidist.hardware.wafer.kv_capacity import concat_capacity, shift_capacity
from lapidist.hardware.wafer.prefill_layer import PrefillPlan, prefill_layer
from lapidist.hardware.wafer.regions import (
    Grid,
    layers_of_a_region,
    regions_on_wafer,
    require_on_wafer,
)

Phase = Literal["prefill", "decode"]


@dataclass(frozen=True)
class RegionFill:
    """Regions that all layers need, and the bytes of a core in a full one, code not counted."""

    regions: int
    bytes_per_core: int


@dataclass(frozen=True)
class CacheCapacity:
    """Tokens for which a decode grid has room, prompt included.

    Attributes
    ----------
    per_row : on each row of cores, as a fraction: free memory by what one token takes of it.
    concat, shift : in all, if new tokens always go to the last row, and if rows are kept even (WaferLLM section 4.5).
    """

    regions: int
    per_row: float
    concat: int
    shift: int


@dataclass(frozen=True)
class LLMMemory:
    """A decoder's weights, caches and buffers on a wafer's cores.

    Parameters
    ----------
    code_bytes : that programs take on a core beyond what the device reserves; a decode kernel needs some 10 KB.
    element_bytes : of weights, activations and KV cache.
    """

    shape: ModelShape
    device: Device
    code_bytes: int = 0
    element_bytes: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.code_bytes < self.device.usable_bytes_per_core:
            raise ValueError(
                f"code_bytes must be from 0 to below {self.device.usable_bytes_per_core}, the memory for data "
                f"of a core of {self.device.title}, got {self.code_bytes}"
            )

    @property
    def limit(self) -> int:
        """Bytes of a core for data."""
        return self.device.usable_bytes_per_core - self.code_bytes

    @property
    def wafer_bytes(self) -> int:
        """Bytes of all cores for data."""
        return self.device.rows * self.device.cols * self.limit

    @property
    def weight_bytes(self) -> int:
        """All layers' matrices."""
        shape = self.shape
        queries, keys = shape.num_heads * shape.head_dim, 2 * shape.num_kv_heads * shape.head_dim
        layer = shape.hidden_size * (2 * queries + keys + 3 * shape.intermediate_size)
        return shape.num_layers * layer * self.element_bytes

    def kv_bytes(self, tokens: int) -> int:
        """Keys and values of so many tokens in all layers."""
        width = 2 * self.shape.num_kv_heads * self.shape.head_dim
        return tokens * width * self.shape.num_layers * self.element_bytes

    def fill(self, phase: Phase, grid: Grid, tokens: int) -> RegionFill:
        """As many layers in each region as fit with a prompt, or room in the cache, of ``tokens``.

        Raises
        ------
        ValueError : not even one layer fits.
        """
        one, two = (self._peak_bytes(phase, grid, tokens, layers) for layers in (1, 2))
        layers = layers_of_a_region(one, two, self.limit, self.shape.num_layers)
        if layers == 0:
            raise ValueError(
                f"one layer with {tokens} tokens in {phase} needs {one} bytes on a core of a region of {grid}, where "
                f"{self.device.title} has {self.limit} for data; use a larger region or fewer tokens"
            )
        return RegionFill(-(-self.shape.num_layers // layers), one + (layers - 1) * (two - one))

    def cache_capacity(self, grid: Grid, regions: int | None = None) -> CacheCapacity:
        """How long an output can get when layers are spread over ``regions``, by default all for which there is room.

        Raises
        ------
        ValueError : the grid does not fit on the wafer, or a region's layers leave no room for any token.
        """
        require_on_wafer(self.device, grid)
        regions = min(self.shape.num_layers, regions or regions_on_wafer(self.device, grid))
        layers = -(-self.shape.num_layers // regions)
        held = self._peak_bytes("decode", grid, grid.rows, layers)
        if held > self.limit:
            raise ValueError(
                f"{layers} layers in each of {regions} regions of {grid} leave no room for a KV cache: they need "
                f"{held} bytes on a core with one token a row, where {self.device.title} has {self.limit} for data"
            )
        tokens = self._tokens_of_a_row(grid, layers)
        return CacheCapacity(regions, tokens, concat_capacity(tokens), shift_capacity(tokens, grid.rows))

    def _tokens_of_a_row(self, grid: Grid, layers: int) -> float:
        """Tokens on each row with which a core's memory reaches its limit, as a fraction; one token fits."""

        def held(tokens: int) -> int:
            return self._peak_bytes("decode", grid, tokens * grid.rows, layers)

        fits, too_many = 1, 2
        while held(too_many) <= self.limit:
            fits, too_many = too_many, 2 * too_many
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            fits, too_many = (middle, too_many) if held(middle) <= self.limit else (fits, middle)
        return fits + (self.limit - held(fits)) / (held(too_many) - held(fits))

    def _peak_bytes(self, phase: Phase, grid: Grid, tokens: int, layers: int) -> int:
        described: Description
        variant = DecoderVariant.of(self.shape)
        if phase == "prefill":
            plan = PrefillPlan(self.shape, grid.rows, grid.cols, tokens, variant)
            described = prefill_layer(plan, layers, self.element_bytes)
        else:
            room = DecodePlan(self.shape, grid.rows, grid.cols, -(-tokens // grid.rows), variant=variant)
            described = decode_layer(room, layers, self.element_bytes)
        return described.summary().peak_bytes
