"""Block-input rotation: the hidden states between layers, times a Hadamard matrix, have no outlier channels.

QServe (arXiv 2405.04532), section 4.3.1, after QuaRot (arXiv 2404.00456). All of it is folded into weights: the model
runs as before. Norms must be folded first.
"""

from torch import Tensor

from lapidist.quantization.block import BlockWeights, EndWeights
from lapidist.quantization.hadamard import apply_hadamard


def rotate_ends(ends: EndWeights) -> EndWeights:
    """The embedding gives rotated hidden states and the head takes them.

    Raises
    ------
    ValueError : the final norm is not folded, or no Hadamard matrix has the order ``hidden_size``.
    """
    _require_folded("final_norm", ends.final_norm)
    return EndWeights(
        embedding=apply_hadamard(ends.embedding),
        final_norm=ends.final_norm,
        lm_head=apply_hadamard(ends.lm_head),
    )


def rotate_block(block: BlockWeights) -> BlockWeights:
    """q, k, v, gate and up take rotated hidden states; o and down give them.

    Raises
    ------
    ValueError : the model has norms behind its blocks, whose weights a rotation does not pass (Gemma-2), norms are not
        folded, or no Hadamard matrix has the order ``hidden_size``.
    """
    if block.post_attention_norm is not None or block.post_mlp_norm is not None:
        raise ValueError(
            "block-input rotation is impossible for a model with norms behind attention and MLP (Gemma-2), "
            "since their weights do not commute with it: leave the rotation out of the recipe"
        )
    _require_folded("input_norm", block.input_norm)
    _require_folded("pre_mlp_norm", block.pre_mlp_norm)
    return block.with_(
        q=apply_hadamard(block.q),
        k=apply_hadamard(block.k),
        v=apply_hadamard(block.v),
        gate=apply_hadamard(block.gate),
        up=apply_hadamard(block.up),
        o=apply_hadamard(block.o, dim=0),
        down=apply_hadamard(block.down, dim=0),
        o_bias=None if block.o_bias is None else apply_hadamard(block.o_bias),
        down_bias=None if block.down_bias is None else apply_hadamard(block.down_bias),
    )


def _require_folded(name: str, norm: Tensor) -> None:
    if not (norm == 1).all():
        raise ValueError(f"{name} has weights other than one: fold the norms before the rotation")
