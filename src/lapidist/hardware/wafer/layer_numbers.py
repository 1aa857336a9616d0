"""The numbers that a layer's element-wise steps compute with, beside its weights."""

from dataclasses import dataclass

from lapidist.hardware.wafer.rope import Rope


@dataclass(frozen=True)
class LayerNumbers:
    """Alike in all layers.

    Attributes
    ----------
    norm_eps : added to mean squares.
    attention_scale : factor on scores, often ``head_dim ** -0.5``.
    attention_softcap, final_softcap : caps of scores and logits, None for none.
    """

    rope: Rope
    norm_eps: float
    attention_scale: float
    attention_softcap: float | None = None
    final_softcap: float | None = None
