"""Whole checkpoints through recipes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lapidist import LLM, SamplingParams
from lapidist.models.errors import CheckpointError
from lapidist.models.load import load_decoder
from lapidist.quantization.quantize import quantize
from lapidist.quantization.recipe import RECIPES, load_recipe
from tests.family_checkpoints import VARIANTS
from tests.quantization.checkpoints import (
    CALIBRATION,
    logits,
    random_tokens,
    recipe,
    relative_error,
    write_family,
)

GROUPS = {"bits": 4, "group_size": 128}
ALL_PASSES = {
    "rotation": True,
    "value_rotation": True,
    "reordering": True,
    "attention_smoothing": {"alpha": 0.5},
    "output_smoothing": {"alpha": 0.3, "beta": 0.7},
}


class StoppedError(Exception):
    pass


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in directory.glob("*.safetensors") for name, t in load_file(file).items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_passes_without_rounding_change_nothing(name: str, tmp_path: Path) -> None:
    seed = torch.seed() % 1000
    source = write_family(tmp_path / "source", name, seed)
    passes = dict(ALL_PASSES)
    if name.startswith("gemma2"):
        del passes["rotation"]
    cut = quantize(source, tmp_path / "cut", recipe(**passes))
    token_ids = random_tokens(40)
    error = relative_error(logits(cut, token_ids), logits(source, token_ids))
    assert error < 1e-3, f"seed {seed}"
    assert not torch.equal(*(tensors(d)["model.layers.0.mlp.down_proj.weight"] for d in (source, cut))), (
        "no pass ran"
    )


def test_gemma_cannot_be_rotated(tmp_path: Path) -> None:
    source = write_family(tmp_path / "source", "gemma2", 0)
    with pytest.raises(ValueError, match="leave the rotation out"):
        quantize(source, tmp_path / "cut", recipe(rotation=True))
    assert not (tmp_path / "cut").exists()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_serves(name: str, llama_directory: Path, tmp_path: Path) -> None:
    chosen = load_recipe(name).calibrated_by(CALIBRATION)
    cut = quantize(llama_directory, tmp_path / "cut", chosen)
    decoder = load_decoder(cut)
    assert decoder.config.quantization == chosen.formats
    assert decoder.kv_bits == chosen.kv_cache
    [output] = LLM(cut).generate("the cat", SamplingParams(temperature=0, max_tokens=12, ignore_eos=True))
    assert len(output.outputs[0].token_ids) == 12
    token_ids = random_tokens(60)
    expected, found = logits(llama_directory, token_ids), logits(cut, token_ids)
    # Random weights and tokens are hard to cut, but what comes out must be the same model.
    similarity = torch.cosine_similarity(found, expected, dim=1).median()
    assert similarity > (0.5 if chosen.weights.bits == 4 else 0.9)


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "phi3", "mistral", "llama-biases-tied", "gemma2-biases"])
def test_every_family_can_be_cut(name: str, tmp_path: Path) -> None:
    seed = torch.seed() % 1000
    source = write_family(tmp_path / "source", name, seed)
    passes = dict(ALL_PASSES, rotation=not name.startswith("gemma2"))
    cut = quantize(
        source,
        tmp_path / "cut",
        recipe(
            weights=GROUPS | {"rounding": "gptq", "clip": True},
            lm_head={"bits": 8},
            activations=8,
            kv_cache=16 if name == "mistral" else 8,  # its heads of 12 channels do not suit codes
            **passes,
        ),
    )
    token_ids = random_tokens(40)
    similarity = torch.cosine_similarity(logits(cut, token_ids), logits(source, token_ids), dim=1).median()
    assert similarity > 0.5, f"seed {seed}"


def test_a_stopped_run_goes_on_to_the_same_files(llama_directory: Path, tmp_path: Path) -> None:
    chosen = recipe(weights=GROUPS | {"rounding": "gptq"}, activations=8, kv_cache=4, **ALL_PASSES)
    whole = quantize(llama_directory, tmp_path / "whole", chosen)

    steps: list[int] = []

    def stop_at_second_layer(done: int, _total: int, _what: str) -> None:
        steps.append(done)
        if done == 1 and len(steps) == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        quantize(llama_directory, tmp_path / "parts", chosen, progress=stop_at_second_layer)
    assert not (tmp_path / "parts").exists()
    resumed = quantize(llama_directory, tmp_path / "parts", chosen, progress=stop_at_second_layer)
    assert steps[2] == 1, "the first layer was cut again"
    expected, found = tensors(whole), tensors(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert sorted(p.name for p in resumed.iterdir()) == sorted(p.name for p in whole.iterdir())
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_another_recipe_does_not_go_on_with_what_was_left(llama_directory: Path, tmp_path: Path) -> None:
    def stop(done: int, _total: int, _what: str) -> None:
        if done == 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        quantize(llama_directory, tmp_path / "cut", recipe(weights={"bits": 8}), progress=stop)
    steps: list[int] = []
    other = recipe(weights={"bits": 4})
    quantize(llama_directory, tmp_path / "cut", other, progress=lambda done, *_: steps.append(done))
    assert steps[0] == 0
    assert tensors(tmp_path / "cut")["model.layers.0.self_attn.q_proj.qweight"].dtype == torch.uint8


def test_the_seed_and_the_text_count(llama_directory: Path, tmp_path: Path) -> None:
    chosen = recipe(weights=GROUPS | {"rounding": "gptq"})
    one = tensors(quantize(llama_directory, tmp_path / "one", chosen))
    again = tensors(quantize(llama_directory, tmp_path / "again", chosen))
    other = tensors(quantize(llama_directory, tmp_path / "other", chosen.calibrated_by({"seed": 2})))
    text = tensors(quantize(llama_directory, tmp_path / "text", chosen, ["the dog ran " * 200]))
    name = "model.layers.1.mlp.down_proj.qweight"
    assert torch.equal(one[name], again[name])
    assert not torch.equal(one[name], other[name])
    assert not torch.equal(one[name], text[name])


def test_a_tied_head_stays_tied_unless_a_pass_unties_it(tmp_path: Path) -> None:
    source = write_family(tmp_path / "source", "llama-biases-tied", 0)

    def tied(directory: Path) -> bool:
        found = json.loads((directory / "config.json").read_text())["tie_word_embeddings"]
        assert found == (not any(name.startswith("lm_head") for name in tensors(directory)))
        return bool(found)

    assert tied(quantize(source, tmp_path / "kv", recipe(kv_cache=4)))
    assert not tied(quantize(source, tmp_path / "rotated", recipe(rotation=True)))
    assert not tied(quantize(source, tmp_path / "head", recipe(lm_head={"bits": 8})))


def test_what_cannot_be_cut(llama_directory: Path, tmp_path: Path) -> None:
    cut = quantize(llama_directory, tmp_path / "cut", recipe(kv_cache=4))
    with pytest.raises(ValueError, match="is quantized already"):
        quantize(cut, tmp_path / "twice", recipe(kv_cache=4))
    with pytest.raises(CheckpointError, match="exists already"):
        quantize(llama_directory, cut, recipe(kv_cache=4))
    with pytest.raises(CheckpointError, match="does not exist"):
        quantize(llama_directory, tmp_path / "no" / "folder", recipe(kv_cache=4))
    with pytest.raises(ValueError, match="one sequence takes"):
        quantize(llama_directory, tmp_path / "short", recipe(kv_cache=4), ["hello"])
    assert [p.name for p in tmp_path.iterdir()] == ["cut"]
