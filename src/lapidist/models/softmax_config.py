"""What a checkpoint's ``quantization_config`` says about the softmax of attention."""

from dataclasses import dataclass

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
