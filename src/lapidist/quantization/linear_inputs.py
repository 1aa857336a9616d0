"""The four distinct inputs of a block's seven linear layers."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LinearInputs:
    """One tensor for each: statistics ``[channels]`` or activations ``[tokens, channels]``.

    Attributes
    ----------
    qkv, gate_up : ``hidden_size`` channels.
    o : ``num_heads * head_dim`` channels.
    down : ``intermediate_size`` channels.
    """

    qkv: Tensor
    o: Tensor
    gate_up: Tensor
    down: Tensor
