"""Rotated hidden states: the model computes what it did."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from lapidist.quantization.block import BlockWeights, EndWeights
from lapidist.quantization.norm_folding import fold_final_norm, fold_norms
from lapidist.quantization.rotation import rotate_block, rotate_ends
from tests.quantization.transformers_weights import build_exact, is_unchanged, read_weights


def folded_weights(model: Any) -> tuple[EndWeights, list[BlockWeights]]:
    ends, blocks = read_weights(model)
    return fold_final_norm(ends), [fold_norms(block) for block in blocks]


def test_logits_stay(model: Any) -> None:
    ends, blocks = folded_weights(model)
    if blocks[0].post_mlp_norm is not None:
        with pytest.raises(
            ValueError, match=r"norms behind attention and MLP \(Gemma-2.*leave the rotation out"
        ):
            rotate_block(blocks[0])
        return
    rotated, rotated_ends = [rotate_block(block) for block in blocks], rotate_ends(ends)
    assert is_unchanged(model, rotated, rotated_ends)
    assert not is_unchanged(model, rotated, ends)
    assert not is_unchanged(model, [rotated[0], blocks[1]], rotated_ends)


def test_norms_must_be_folded(seed: int) -> None:
    ends, blocks = read_weights(build_exact("llama-tied", seed, torch.float32))
    with pytest.raises(ValueError, match=r"final_norm .*fold the norms"):
        rotate_ends(ends)
    with pytest.raises(ValueError, match=r"input_norm .*fold the norms"):
        rotate_block(blocks[0])
    half = replace(fold_norms(blocks[0]), pre_mlp_norm=blocks[0].pre_mlp_norm)
    with pytest.raises(ValueError, match=r"pre_mlp_norm .*fold the norms"):
        rotate_block(half)


def test_a_hidden_size_without_a_matrix_is_refused() -> None:
    matrix, norm = torch.zeros(5, 92), torch.ones(92)
    with pytest.raises(ValueError, match="order 92"):
        rotate_ends(EndWeights(matrix, norm, matrix))
