"""Which passages of a text a recipe looks at."""

from pathlib import Path

import pytest
import torch

from lapidist.models.errors import CheckpointError
from lapidist.models.tokenizer import Tokenizer
from lapidist.quantization.calibration_tokens import calibration_tokens
from lapidist.quantization.recipe import Calibration


@pytest.fixture
def tokenizer(llama_directory: Path) -> Tokenizer:
    return Tokenizer.from_directory(llama_directory)


def test_shape_seed_and_text(tokenizer: Tokenizer) -> None:
    calibration = Calibration(sequences=5, length=32, seed=3)
    tokens = calibration_tokens(tokenizer, None, calibration, context=512, vocab_size=1000)
    assert tokens.shape == (5, 32)
    again = calibration_tokens(tokenizer, None, calibration, context=512, vocab_size=1000)
    assert torch.equal(tokens, again)
    other = calibration_tokens(tokenizer, None, calibration.model_copy(update={"seed": 4}), 512, 1000)
    assert not torch.equal(tokens, other)


def test_passages_are_of_the_text_and_do_not_overlap(tokenizer: Tokenizer) -> None:
    text = " ".join(f"cat {number}" for number in range(400))
    calibration = Calibration(sequences=1000, length=20, seed=0)
    tokens = calibration_tokens(tokenizer, [text], calibration, context=512, vocab_size=1000)
    opening = tokenizer.encode("")[:1] == [tokenizer.bos_token_id]
    stream = tokenizer.encode(text, add_special_tokens=False)
    flat = tokens[:, int(opening) :].flatten().tolist()
    assert flat == stream[: len(flat)]
    assert len(stream) - len(flat) < 20


def test_no_longer_than_the_context(tokenizer: Tokenizer) -> None:
    calibration = Calibration(sequences=2, length=64, seed=0)
    assert calibration_tokens(tokenizer, None, calibration, 24, 1000).shape == (2, 24)


def test_what_is_wrong(tokenizer: Tokenizer) -> None:
    calibration = Calibration(sequences=2, length=64, seed=0)
    with pytest.raises(ValueError, match="one sequence takes"):
        calibration_tokens(tokenizer, ["too short"], calibration, 512, 1000)
    with pytest.raises(CheckpointError, match="another model's"):
        calibration_tokens(tokenizer, None, calibration, 512, 10)
