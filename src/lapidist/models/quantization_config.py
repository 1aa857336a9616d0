"""What a checkpoint's ``quantization_config`` says about the numbers that the model is stored and computed in."""

from dataclasses import dataclass
from typing import Any

from lapidist.kernels.quantized_weight import GROUP_SIZE
from lapidist.models.config_fields import ConfigFields
from lapidist.models.softmax_config import QUANT_METHOD

FORMAT_VERSION = 1
FLOAT_BITS = 16
"""Stands for whatever floating-point type the checkpoint has."""


@dataclass(frozen=True)
class WeightFormat:
    """How a matrix is stored: 4 bits in groups or per output channel, 8 bits per output channel, or 16: floats."""

    bits: int
    group_size: int | None = None

    @property
    def is_float(self) -> bool:
        return self.bits == FLOAT_BITS

    def __str__(self) -> str:
        if self.is_float:
            return "float"
        return f"{self.bits} bits" + (f" in groups of {self.group_size}" if self.group_size else "")


FLOAT = WeightFormat(FLOAT_BITS)


@dataclass(frozen=True)
class QuantizationConfig:
    """Formats of a quantized checkpoint.

    Attributes
    ----------
    recipe : name of the recipe that made it.
    weights, lm_head : of the layers' linear projections, and of the output head.
    activation_bits : 8 or 16, of the inputs of all quantized projections.
    kv_bits : 4, 8 or 16, of keys and values in the cache.
    """

    recipe: str
    weights: WeightFormat = FLOAT
    lm_head: WeightFormat = FLOAT
    activation_bits: int = FLOAT_BITS
    kv_bits: int = FLOAT_BITS


def read_quantization(fields: ConfigFields) -> QuantizationConfig | None:
    """``quantization_config`` of a ``config.json``; None if it tells nothing about formats.

    Raises
    ------
    CheckpointError : it is not ours, of a newer format, or a field is wrong.
    """
    if not fields.has("quantization_config"):
        return None
    section = fields.section("quantization_config")
    method = section.text("quant_method", "unknown")
    if method != QUANT_METHOD:
        raise fields.error(
            "quantization_config",
            f"asks for quantization method {method!r}, which is not supported: use the unquantized checkpoint",
        )
    if not section.has("recipe"):
        return None
    version = section.integer("format")
    if version > FORMAT_VERSION:
        raise section.error("format", f"is {version}, newer than this Lapidist's {FORMAT_VERSION}: update it")
    config = QuantizationConfig(
        section.text("recipe"),
        _weight_format(section.section("weights")),
        _weight_format(section.section("lm_head")),
        _bits(section.section("activations"), (8, FLOAT_BITS)),
        _bits(section.section("kv_cache"), (4, 8, FLOAT_BITS)),
    )
    if config.activation_bits == 8 and config.weights.is_float:
        raise section.error("activations.bits", "is 8, but the weights are floats: quantize both")
    return config


def foreign_method(fields: ConfigFields) -> str | None:
    """``quant_method`` of a checkpoint that others quantized; None of ours and of floats."""
    method = fields.section("quantization_config").text("quant_method", QUANT_METHOD)
    return None if method == QUANT_METHOD else method


def quantization_section(config: QuantizationConfig) -> dict[str, Any]:
    """What ``read_quantization`` reads ``config`` from."""
    return {
        "quant_method": QUANT_METHOD,
        "format": FORMAT_VERSION,
        "recipe": config.recipe,
        "weights": {"bits": config.weights.bits, "group_size": config.weights.group_size},
        "lm_head": {"bits": config.lm_head.bits, "group_size": config.lm_head.group_size},
        "activations": {"bits": config.activation_bits},
        "kv_cache": {"bits": config.kv_bits},
    }


def _weight_format(section: ConfigFields) -> WeightFormat:
    bits = _bits(section, (4, 8, FLOAT_BITS))
    group_size = section.optional_integer("group_size")
    if group_size not in (None, GROUP_SIZE) or (group_size and bits != 4):
        raise section.error(
            "group_size", f"is {group_size} for {bits} bits; supported is {GROUP_SIZE}, for 4 bits, or null"
        )
    return WeightFormat(bits, group_size)


def _bits(section: ConfigFields, choices: tuple[int, ...]) -> int:
    bits = section.integer("bits", FLOAT_BITS)
    if bits not in choices:
        raise section.error("bits", f"is {bits}; supported are {', '.join(map(str, choices))}")
    return bits
