"""Folded norms are ones, and the model computes what it did."""

from dataclasses import replace
from typing import Any

from lapidist.quantization.norm_folding import fold_final_norm, fold_norms
from tests.quantization.transformers_weights import is_unchanged, read_weights


def test_logits_stay(model: Any) -> None:
    ends, blocks = read_weights(model)
    folded, folded_ends = [fold_norms(block) for block in blocks], fold_final_norm(ends)
    for block in folded:
        assert (block.input_norm == 1).all()
        assert (block.pre_mlp_norm == 1).all()
    assert (folded_ends.final_norm == 1).all()
    assert is_unchanged(model, folded, folded_ends)
    # Each half changes the logits without the other.
    assert not is_unchanged(model, [folded[0], folded[1].with_(q=blocks[1].q)], folded_ends)
    assert not is_unchanged(model, folded, replace(folded_ends, lm_head=ends.lm_head))
