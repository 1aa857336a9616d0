"""Perplexity beside transformers, beside what is known by arithmetic, and beside the recipe of the bundled model."""

import math
from itertools import islice
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer as Backend
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from lapidist.bundled import TINY
from lapidist.evaluation.perplexity import Perplexity, WindowLoss, measure_perplexity
from lapidist.evaluation.text import tokenize
from lapidist.evaluation.windows import Window, cut
from lapidist.models.calibration.default_text import default_texts
from lapidist.models.config import ModelConfig
from lapidist.models.load import load_decoder
from lapidist.models.tokenizer import Tokenizer
from recipes.tiny.evaluate import bits_per_byte
from tests.checkpoints import TEXT
from tests.evaluation.quality_checkpoints import indifferent, with_weights


def windows_of(directory: Path, size: int, stride: int | None = None) -> list[Window]:
    vocab_size = ModelConfig.from_directory(directory).vocab_size
    text = tokenize(Tokenizer.from_directory(directory), TEXT * 4, vocab_size)
    return cut(text, context=512, size=size, stride=stride)


# 131 and 300 end within a block of logits and within a chunk of the prefill; 512 is the whole context.
@pytest.mark.parametrize(("size", "stride"), [(64, None), (131, None), (300, None), (300, 77), (512, None)])
def test_losses_are_those_of_transformers(llama_directory: Path, size: int, stride: int | None) -> None:
    windows = windows_of(llama_directory, size, stride)
    found = measure_perplexity(load_decoder(llama_directory, torch.float32), windows)
    model = LlamaForCausalLM.from_pretrained(llama_directory, dtype=torch.float32)
    means, nats, predictions, byte_count = [], 0.0, 0, 0
    for window in windows:
        ids = torch.tensor([window.token_ids])
        with torch.no_grad():
            logits = model(ids).logits[0, window.first_scored - 1 : -1]
        losses = F.cross_entropy(logits.double(), ids[0, window.first_scored :], reduction="none")
        nats, predictions = nats + float(losses.sum()), predictions + len(losses)
        byte_count += window.byte_count
        if len(window.token_ids) == size:
            means.append(float(losses.mean()))
    assert len(means) > 1
    assert found.perplexity == pytest.approx(math.exp(sum(means) / len(means)), rel=1e-5)
    assert found.token_perplexity == pytest.approx(math.exp(nats / predictions), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / byte_count, rel=1e-5)


def test_a_model_that_finds_all_tokens_equally_likely(llama_directory: Path, tmp_path: Path) -> None:
    directory = indifferent(llama_directory, tmp_path / "indifferent")
    vocab_size = ModelConfig.from_directory(directory).vocab_size
    windows = windows_of(directory, 100)
    found = measure_perplexity(load_decoder(directory), windows)
    assert found.perplexity == pytest.approx(vocab_size, rel=1e-6)
    assert found.token_perplexity == pytest.approx(vocab_size, rel=1e-6)
    bits = math.log2(vocab_size) * sum(window.predictions for window in windows)
    assert found.bits_per_byte == pytest.approx(bits / sum(window.byte_count for window in windows), rel=1e-6)


def test_the_mean_of_windows_and_that_of_tokens_differ() -> None:
    full, short = WindowLoss(20.0, 10, 40, True), WindowLoss(6.0, 2, 5, False)
    both = Perplexity((full, full, short))
    assert both.perplexity == pytest.approx(math.exp(2))
    assert both.token_perplexity == pytest.approx(math.exp(46 / 22))
    assert both.bits_per_byte == pytest.approx(46 / math.log(2) / 85)
    assert Perplexity((short,)).perplexity == pytest.approx(math.exp(3))


def test_progress_counts_all_tokens(llama_directory: Path) -> None:
    told: list[tuple[int, int]] = []
    windows = windows_of(llama_directory, 512)
    measure_perplexity(load_decoder(llama_directory), windows, lambda done, total: told.append((done, total)))
    total = sum(len(window.token_ids) for window in windows)
    assert told[0] == (0, total)
    assert told[-1] == (total, total)


def test_a_loss_beyond_all_measure(llama_directory: Path, tmp_path: Path) -> None:
    directory = with_weights(
        llama_directory, tmp_path / "loud", lambda name, t: t * 1e4 if name == "lm_head.weight" else t
    )
    with pytest.raises(ValueError, match="its weights are damaged, or its numbers do not fit the dtype"):
        measure_perplexity(load_decoder(directory), windows_of(directory, 64))


def test_bits_per_byte_are_those_of_the_bundled_models_recipe() -> None:
    """Whose windows begin with the beginning-of-text token and move on by half. It gives the last, shorter window more
    context than we do, so that the numbers differ in the third digit."""
    text = "".join(islice(default_texts(), 4))
    tokenized = tokenize(Tokenizer.from_directory(TINY), [text], 3072)
    assert len(tokenized.token_ids) > 2048
    windows = cut(tokenized, 2048, stride=1024, open_each=True)
    found = measure_perplexity(load_decoder(TINY, torch.float32), windows)
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    expected = bits_per_byte(model, Backend.from_file(str(TINY / "tokenizer.json")), text)
    assert found.byte_count == expected["bytes"]
    assert found.predictions == expected["tokens"]
    assert found.bits_per_byte == pytest.approx(expected["bits_per_byte"], rel=5e-3)
