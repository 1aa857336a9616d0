import hashlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from tokenizers import Tokenizer

from lapidist.models.checkpoint_tensors import checkpoint_tensors
from lapidist.models.errors import CheckpointError
from lapidist.models.random_checkpoint import write_random_checkpoint
from lapidist.models.random_tokenizer import byte_tokenizer
from lapidist.models.shapes import SHAPES, shape_config

# Published parameter counts, tied output heads counted once.
PARAMETERS = {
    "tinyllama-1.1b": 1_100_048_384,
    "llama-2-7b": 6_738_415_616,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
    "qwen3-32b": 32_762_123_264,
    "phi-3-mini-4k": 3_821_079_552,
    "phi-3-mini-128k": 3_821_079_552,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
}
ONE_PER_FAMILY = ["llama-3.2-1b", "mistral-7b", "qwen2.5-0.5b", "qwen3-0.6b", "phi-3-mini-128k", "gemma-2-2b"]


def small(name: str, **changes: object) -> dict:
    """A known shape, cut down to two narrow layers."""
    config = shape_config(name)
    config |= {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
    config |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 400}
    config |= {
        key: index
        for index, key in enumerate(("pad_token_id", "bos_token_id", "eos_token_id"))
        if key in config
    }
    if config.get("rope_scaling") and "long_factor" in config["rope_scaling"]:
        config["rope_scaling"] |= {"long_factor": [2.0] * 8, "short_factor": [1.0] * 8}
    return config | changes


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    found = {}
    for path in directory.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


def digest(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


@pytest.mark.parametrize("name", SHAPES)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    assert sum(tensor.elements for tensor in checkpoint_tensors(SHAPES[name])) == PARAMETERS[name]


@pytest.mark.parametrize("name", SHAPES)
def test_tensor_names_and_shapes_are_those_of_transformers(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = shape_config(name) | {"num_hidden_layers": 2}
    kind = getattr(transformers, config["architectures"][0])
    with torch.device("meta"):
        model = kind(kind.config_class(**config))
    # Parameters, not the state dict: a tied head is one parameter.
    expected = {key: tuple(parameter.shape) for key, parameter in model.named_parameters()}
    assert {tensor.name: tensor.shape for tensor in checkpoint_tensors(config)} == expected


@pytest.mark.parametrize("name", ONE_PER_FAMILY)
def test_transformers_loads_it_and_stays_finite_in_bfloat16(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    write_random_checkpoint(small(name), tmp_path / "model", max_shard_bytes=60_000)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype="auto", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.dtype == torch.bfloat16
    logits = model(torch.randint(0, 400, (2, 33))).logits.float()
    assert logits.isfinite().all()
    assert 0.05 < logits.std() < 20


def test_a_full_width_layer_stays_finite_in_bfloat16(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = shape_config("qwen2.5-0.5b") | {"num_hidden_layers": 2}
    write_random_checkpoint(config, tmp_path / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    logits = model(torch.randint(0, 151936, (1, 9))).logits.float()
    assert logits.isfinite().all()
    assert 0.05 < logits.std() < 20


def test_values_depend_on_the_seed_and_not_on_the_sharding(tmp_path: Path) -> None:
    config = small("llama-3-8b")
    for folder, seed, shard_bytes in (("a", 3, 10**9), ("b", 3, 10**9), ("c", 4, 10**9), ("d", 3, 50_000)):
        total = write_random_checkpoint(config, tmp_path / folder, seed=seed, max_shard_bytes=shard_bytes)
        assert total == 2 * sum(tensor.elements for tensor in checkpoint_tensors(config))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    one, other, split = (tensors_of(tmp_path / folder) for folder in "acd")
    assert all(torch.equal(one[name], split[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)
    assert len({tensor.flatten()[:4].float().sum().item() for tensor in one.values()}) == len(one)
    index = json.loads((tmp_path / "d" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == total
    assert set(index["weight_map"]) == set(one)
    assert {path.name for path in (tmp_path / "d").glob("*.safetensors")} == set(index["weight_map"].values())
    assert len(set(index["weight_map"].values())) > 2


def test_dtypes_round_the_same_values(tmp_path: Path) -> None:
    for dtype in ("float32", "float16", "bfloat16"):
        write_random_checkpoint(small("gemma-2-2b"), tmp_path / dtype, dtype=dtype)
        assert json.loads((tmp_path / dtype / "config.json").read_text())["torch_dtype"] == dtype
    full, half, brain = (tensors_of(tmp_path / dtype) for dtype in ("float32", "float16", "bfloat16"))
    for name, tensor in full.items():
        assert torch.equal(tensor.half(), half[name])
        assert torch.equal(tensor.bfloat16(), brain[name])


def test_progress_reaches_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    total = write_random_checkpoint(
        small("llama-3-8b"), tmp_path / "m", progress=lambda *pair: seen.append(pair)
    )
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_directory_is_complete_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_random_checkpoint(small("llama-3-8b"), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_what_exists_is_not_overwritten_unless_forced(tmp_path: Path) -> None:
    out, config = tmp_path / "model", small("llama-3-8b")
    write_random_checkpoint(config, out, seed=1)
    before = digest(out)
    with pytest.raises(CheckpointError, match="exists already"):
        write_random_checkpoint(config, out, seed=2)
    assert digest(out) == before
    write_random_checkpoint(config, out, seed=2, force=True)
    assert digest(out) != before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_force_spares_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        write_random_checkpoint(small("llama-3-8b"), tmp_path / "precious", force=True)
    assert (tmp_path / "precious" / "thesis.txt").exists()


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_random_checkpoint(small("llama-3-8b"), tmp_path / "model", progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_impossible_requests_are_one_sentence(tmp_path: Path) -> None:
    config = small("llama-3-8b")
    with pytest.raises(CheckpointError, match="float8"):
        write_random_checkpoint(config, tmp_path / "m", dtype="float8")
    with pytest.raises(CheckpointError, match="does not exist"):
        write_random_checkpoint(config, tmp_path / "absent" / "m")
    with pytest.raises(CheckpointError, match=r"needs .* GB"):
        write_random_checkpoint(config | {"vocab_size": 2**31 - 1, "hidden_size": 2**20}, tmp_path / "m")
    with pytest.raises(ValueError, match=r"llama-3\.2-1b"):
        shape_config("llama-3.2-1")
    with pytest.raises(ValueError, match="known are"):
        shape_config("zzz")
    with pytest.raises(ValueError, match="cannot hold"):
        byte_tokenizer(256, {3: "<|eos|>"})


@given(text=st.text(), vocab_size=st.integers(259, 3000), specials=st.sets(st.integers(0, 258), max_size=3))
def test_the_tokenizer_keeps_any_text(text: str, vocab_size: int, specials: set[int]) -> None:
    tokenizer = byte_tokenizer(vocab_size, {token: f"<|{token}|>" for token in specials})
    if not any(f"<|{token}|>" in text for token in specials):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
        assert len(tokenizer.encode(text).ids) == len(text.encode())
    assert tokenizer.get_vocab_size() == vocab_size


@pytest.mark.parametrize("name", ["llama-3.2-1b", "gemma-2-2b"])
def test_every_id_of_a_written_tokenizer_decodes(name: str, tmp_path: Path) -> None:
    config = small(name) | {
        "vocab_size": SHAPES[name]["vocab_size"],
        "eos_token_id": SHAPES[name]["eos_token_id"],
    }
    write_random_checkpoint(config, tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    assert all(
        tokenizer.decode_batch([[token] for token in range(config["vocab_size"])], skip_special_tokens=False)
    )
    assert tokenizer.decode([config["eos_token_id"]]) == ""
    assert tokenizer.id_to_token(config["eos_token_id"]) == "<|eos|>"
