"""Divergence beside transformers, and where it is known by arithmetic."""

import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from lapidist.evaluation.divergence import check_vocabularies, compare, token_divergences
from lapidist.evaluation.perplexity import measure_perplexity
from lapidist.models.load import load_decoder
from tests.evaluation.quality_checkpoints import indifferent, rounded
from tests.evaluation.test_perplexity import windows_of


def test_a_model_does_not_diverge_from_itself(llama_directory: Path) -> None:
    windows = windows_of(llama_directory, 200)
    decoder = load_decoder(llama_directory)
    found = compare(decoder, load_decoder(llama_directory), windows)
    assert found.divergence.maximum == 0
    assert found.divergence.top1_agreement == 1
    assert found.reference == found.candidate == measure_perplexity(decoder, windows)


@pytest.mark.parametrize("bits", [3, 6])
def test_divergence_is_that_of_the_logits_of_transformers(
    llama_directory: Path, bits: int, tmp_path: Path
) -> None:
    other = rounded(llama_directory, tmp_path / "rounded", bits)
    windows = windows_of(llama_directory, 150)
    found = compare(load_decoder(llama_directory), load_decoder(other), windows)
    models = [
        LlamaForCausalLM.from_pretrained(each, dtype=torch.float32) for each in (llama_directory, other)
    ]
    divergences, agreements = [], []
    for window in windows:
        with torch.no_grad():
            p, q = (model(torch.tensor([window.token_ids])).logits[0].double() for model in models)
        p, q = p[window.first_scored - 1 : -1], q[window.first_scored - 1 : -1]
        divergences.append((p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1))
        agreements.append(p.argmax(-1) == q.argmax(-1))
    expected = torch.cat(divergences)
    assert found.divergence.predictions == len(expected)
    assert found.divergence.mean == pytest.approx(float(expected.mean()), rel=1e-3)
    assert found.divergence.median == pytest.approx(float(expected.quantile(0.5)), rel=0.05)
    assert found.divergence.percentile_99 == pytest.approx(float(expected.quantile(0.99)), rel=0.05)
    assert found.divergence.maximum == pytest.approx(float(expected.max()), rel=1e-3)
    # A tie may fall on either side.
    assert found.divergence.top1_agreement == pytest.approx(
        float(torch.cat(agreements).double().mean()), abs=5e-3
    )
    assert 0 < found.divergence.top1_agreement < 1


def test_divergence_from_a_model_that_is_indifferent(llama_directory: Path, tmp_path: Path) -> None:
    """It is what the reference's entropy lacks to that of the uniform distribution."""
    windows = windows_of(llama_directory, 200)
    reference = load_decoder(llama_directory)
    found = compare(reference, load_decoder(indifferent(llama_directory, tmp_path / "even")), windows)
    vocab_size = reference.config.vocab_size
    assert found.candidate.perplexity == pytest.approx(vocab_size, rel=1e-6)
    assert 0 < found.divergence.mean < found.divergence.maximum < math.log(vocab_size)


def test_by_hand() -> None:
    reference = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.25, 0.75]]).log()
    candidate = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]).log() + 3  # logits may be shifted
    expected = [0.0, 0.9 * math.log(1.8) + 0.1 * math.log(0.2), 0.25 * math.log(0.5) + 0.75 * math.log(1.5)]
    assert token_divergences(reference, candidate).tolist() == pytest.approx(expected, abs=1e-6)


def test_vocabularies_of_different_sizes() -> None:
    with pytest.raises(ValueError, match="a vocabulary of 300 tokens and the candidate one of 301"):
        check_vocabularies(300, 301)
