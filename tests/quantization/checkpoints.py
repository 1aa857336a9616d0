"""Checkpoints for the tests of quantization: every family, with a tokenizer, and how to compare what they compute."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lapidist.models.load import load_decoder
from lapidist.quantization.recipe import Recipe
from tests.checkpoints import write_tokenizer
from tests.family_checkpoints import VARIANTS, build, save
from tests.paged_decoding import PagedDecoding

CALIBRATION = {"sequences": 4, "length": 24, "seed": 1}


def write_family(directory: Path, name: str, seed: int) -> Path:
    """A variant of ``VARIANTS`` in float32."""
    directory.mkdir(parents=True)
    vocab_size = write_tokenizer(directory)
    variant = VARIANTS[name]
    return save(
        build(replace(variant, options=variant.options | {"vocab_size": vocab_size}), seed), directory
    )


def recipe(**fields: object) -> Recipe:
    """With a calibration that takes no time."""
    return Recipe.model_validate({"name": "test", "calibration": CALIBRATION} | fields)


def logits(directory: Path, token_ids: list[int]) -> Tensor:
    """float32 ``[tokens, vocab_size]``."""
    run = PagedDecoding(load_decoder(directory), [token_ids], [len(token_ids)], scattered=False)
    return run.step([len(token_ids)])[0]


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the root mean square."""
    return ((found - expected).abs().max() / expected.square().mean().sqrt()).item()


def random_tokens(count: int, vocab_size: int = 320) -> list[int]:
    return torch.randint(vocab_size, (count,)).tolist()
