"""The weights of a model as the passes see them: the same seven matrices a layer for every family."""

from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class BlockWeights:
    """One decoder layer, in float32 or float64. Matrices are ``[outputs, inputs]``.

    Norms hold what the normalized vector is multiplied by (Gemma's offset is added already). ``qk_norm`` of Qwen3 are
    ``q_norm`` and ``k_norm`` ``[head_dim]``; norms behind the blocks, of Gemma-2, are ``post_attention_norm`` and
    ``post_mlp_norm``.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor
    input_norm: Tensor
    pre_mlp_norm: Tensor
    q_bias: Tensor | None = None
    k_bias: Tensor | None = None
    v_bias: Tensor | None = None
    o_bias: Tensor | None = None
    gate_bias: Tensor | None = None
    up_bias: Tensor | None = None
    down_bias: Tensor | None = None
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None
    post_attention_norm: Tensor | None = None
    post_mlp_norm: Tensor | None = None

    def with_(self, **changes: Any) -> "BlockWeights":
        """A copy in which some tensors are others."""
        return replace(self, **changes)

    def tensors(self) -> dict[str, Tensor]:
        """Those that there are, by field name."""
        found: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in found.items() if tensor is not None}


LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
"""Fields of ``BlockWeights`` that are quantized."""


@dataclass(frozen=True)
class EndWeights:
    """What is not in a layer. A tied head is a tensor of its own here: folding unties it.

    Attributes
    ----------
    embedding, lm_head : ``[vocab_size, hidden_size]``.
    final_norm : ``[hidden_size]``, what the normalized vector is multiplied by.
    """

    embedding: Tensor
    final_norm: Tensor
    lm_head: Tensor


@dataclass(frozen=True)
class BlockShape:
    """What the passes must know of a model beside its weights."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotary_dim: int

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.num_heads // self.num_kv_heads
