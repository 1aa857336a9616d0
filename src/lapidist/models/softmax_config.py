"""What a checkpoint's ``quantization_config`` says about the softmax of attention."""

from dataclasses import dataclass
from typing import Any

from lapidist.kernels.softmax import SoftmaxMode
from lapidist.models.config_fields import ConfigFields

QUANT_METHOD = "lapidist"
SECTION = "attention_softmax"
MODES = {mode.name.lower(): mode for mode in SoftmaxMode}


@dataclass(frozen=True)
class SoftmaxConfig:
    """Mode of all layers.

    Attributes
    ----------
    phi : for mode unified, per layer and head, in units of the scaled (and capped) scores.
    """

    mode: SoftmaxMode
    phi: tuple[tuple[float, ...], ...]

    @classmethod
    def uncalibrated(cls, num_layers: int, num_heads: int) -> "SoftmaxConfig":
        """Mode lazy, which suits any model."""
        return cls(SoftmaxMode.LAZY, ((0.0,) * num_heads,) * num_layers)


def read_softmax(fields: ConfigFields, num_layers: int, num_heads: int) -> SoftmaxConfig | None:
    """``quantization_config.attention_softmax``: ``{"mode": ..., "phi": a number, or a list of one per head for each
    layer}``; None where it is absent.

    Raises
    ------
    CheckpointError : a field is wrong.
    """
    quantization = fields.section("quantization_config")
    if not quantization.has(SECTION):
        return None
    section = quantization.section(SECTION)
    mode = section.choice("mode", MODES)
    return SoftmaxConfig(mode, section.numbers("phi", (num_layers, num_heads), default=0.0))


def softmax_section(config: SoftmaxConfig) -> dict[str, Any]:
    """What ``read_softmax`` reads ``config`` from."""
    mode = config.mode.name.lower()
    if config.mode != SoftmaxMode.UNIFIED:
        return {"mode": mode}
    values = {value for layer in config.phi for value in layer}
    return {"mode": mode, "phi": values.pop() if len(values) == 1 else [list(layer) for layer in config.phi]}


def resolve_softmax_mode(name: str) -> SoftmaxMode | None:
    """The mode of an option: "auto" is None, which ``load_decoder`` takes as the checkpoint's.

    Raises
    ------
    ValueError : there is no such mode.
    """
    if name == "auto":
        return None
    if name not in MODES:
        raise ValueError(f"attention_softmax must be auto, {', '.join(MODES)}, got {name!r}")
    return MODES[name]
