"""Weights of norms move into the linear layers behind them, so that what is left of a norm commutes with a rotation."""

import torch

from lapidist.quantization.block import BlockWeights, EndWeights


def fold_norms(block: BlockWeights) -> BlockWeights:
    """``input_norm`` goes into q, k and v, ``pre_mlp_norm`` into gate and up; the two become ones.

    Norms of queries and keys and norms behind the blocks stay: no linear layer follows them (QServe, arXiv 2405.04532,
    section 4.3.1).
    """
    return block.with_(
        q=block.q * block.input_norm,
        k=block.k * block.input_norm,
        v=block.v * block.input_norm,
        gate=block.gate * block.pre_mlp_norm,
        up=block.up * block.pre_mlp_norm,
        input_norm=torch.ones_like(block.input_norm),
        pre_mlp_norm=torch.ones_like(block.pre_mlp_norm),
    )


def fold_final_norm(ends: EndWeights) -> EndWeights:
    """The final norm goes into the head, which is no longer tied to the embedding after this."""
    return EndWeights(
        embedding=ends.embedding,
        final_norm=torch.ones_like(ends.final_norm),
        lm_head=ends.lm_head * ends.final_norm,
    )
