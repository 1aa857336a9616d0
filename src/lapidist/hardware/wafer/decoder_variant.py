"""What a decoder computes beyond or instead of Llama's layer, as far as it changes what cores do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from lapidist.hardware.wafer.activations import ACTIVATIONS
from lapidist.workload.lowering import DecoderShape


class ModelShape(DecoderShape, Protocol):
    """What a forecast needs of a model; every ``models.config.ModelConfig`` has it."""

    @property
    def attention_softcap(self) -> float | None: ...


@dataclass(frozen=True)
class DecoderVariant:
    """Where a decoder differs from Llama; by default nowhere.

    Attributes
    ----------
    activation : of the gate: ``silu``, ``gelu`` or ``gelu_pytorch_tanh``.
    qkv_bias, o_bias, mlp_bias : which projections have a bias (Qwen2; options of Llama, Qwen3 and Gemma-2).
    qk_norm : queries and keys are normalized per head (Qwen3).
    sandwich_norms : attention and feed-forward block have a norm behind them too (Gemma-2).
    attention_softcap, final_softcap : scores and logits are capped (Gemma-2).
    rotary_dim : channels of a head that are rotated, 0 for all (Phi-3's partial rotation).
    """

    activation: str = "silu"
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sandwich_norms: bool = False
    attention_softcap: bool = False
    final_softcap: bool = False
    rotary_dim: int = 0

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"the wafer does not know the activation {self.activation!r}; known are {', '.join(ACTIVATIONS)}"
            )

    @staticmethod
    def of(model: ModelShape, rotary_dim: int = 0) -> "DecoderVariant":
        """The model's; raises ValueError for an activation that is unknown."""
        return DecoderVariant(
            model.hidden_act,
            model.qkv_bias,
            model.o_bias,
            model.mlp_bias,
            model.qk_norm,
            model.sandwich_norms,
            model.attention_softcap is not None,
            model.final_softcap is not None,
            rotary_dim,
        )

    def vectors(self) -> Mapping[str, str]:
        """Norms and biases of a layer by their names in prefill, each with the channels along which it lies."""
        found = {"norm1": "hidden", "norm2": "hidden"}
        if self.qkv_bias:
            found |= {"bq": "queries", "bk": "keys", "bv": "values"}
        if self.o_bias:
            found["bo"] = "hidden"
        if self.mlp_bias:
            found |= {"bgate": "intermediate", "bup": "intermediate", "bdown": "hidden"}
        if self.qk_norm:
            found |= {"q norm": "head", "k norm": "head"}
        if self.sandwich_norms:
            found |= {"post norm1": "hidden", "post norm2": "hidden"}
        return found


LLAMA = DecoderVariant()


class LayerWidths(Protocol):
    """A plan of a layer: channels of each kind that a core holds."""

    @property
    def hidden(self) -> int: ...
    @property
    def queries(self) -> int: ...
    @property
    def keys(self) -> int: ...
    @property
    def values(self) -> int: ...
    @property
    def intermediate(self) -> int: ...


def channels_of(plan: LayerWidths) -> dict[str, int]:
    """How many channels a core holds, by the names of ``DecoderVariant.vectors``, but for those of a head."""
    return {
        "hidden": plan.hidden,
        "queries": plan.queries,
        "keys": plan.keys,
        "values": plan.values,
        "intermediate": plan.intermediate,
    }


FUSED_BY_DECODE = {
    "wq": "wqkv",
    "wk": "wqkv",
    "wv": "wqkv",
    "wgate": "wgateup",
    "wup": "wgateup",
    "bq": "bqkv",
    "bk": "bqkv",
    "bv": "bqkv",
    "bgate": "bgateup",
    "bup": "bgateup",
}
"""Parameters that lie side by side in decode, by their names in prefill; all others have one name."""
