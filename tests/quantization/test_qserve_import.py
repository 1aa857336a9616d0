import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from lapidist.models.config import ModelConfig
from lapidist.models.load import load_decoder
from lapidist.models.quantization_config import QuantizationConfig, WeightFormat
from lapidist.models.quantized_tensors import read_quantized
from lapidist.models.weights import WeightFiles
from lapidist.quantization.export import export_checkpoint
from lapidist.quantization.qserve_import import import_qserve
from tests.quantization.checkpoints import logits, random_tokens, relative_error
from tests.quantization.qserve_checkpoints import (
    QServeMatrix,
    qserve_llama,
    with_norms,
    write_safetensors,
)
from tests.quantized_checkpoints import edit_config

Save = Callable[[dict[str, Tensor], Path], None]
Q_PROJ = "model.layers.0.self_attn.q_proj"


def pickled(name: str, **options: object) -> Save:
    return lambda tensors, directory: torch.save(tensors, directory / name, **options)


SAVES = {
    "safetensors": write_safetensors,
    "bin": pickled("pytorch_model.bin"),
    "pt": pickled("quant_model.pt"),
    "old-bin": pickled("pytorch_model.bin", _use_new_zipfile_serialization=False),
}


def check_matrices(directory: Path, matrices: dict[str, QServeMatrix]) -> None:
    config = ModelConfig.from_directory(directory)
    assert config.quantization is not None
    files = WeightFiles(directory)
    for name, matrix in matrices.items():
        rows, columns = matrix.weight.shape
        weight = read_quantized(files, [(name, rows)], columns, config.quantization.weights)
        assert torch.equal(weight.integers().long(), matrix.integers)
        assert torch.equal(weight.dequantize(), matrix.weight)


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)
@pytest.mark.parametrize("is_grouped", [True, False])
def test_weights_are_the_same_numbers(save: Save, is_grouped: bool, tmp_path: Path) -> None:
    source, out = tmp_path / "qserve", tmp_path / "out"
    tensors, matrices = qserve_llama(source, is_grouped)
    save(tensors, source)
    steps: list[tuple[int, int]] = []
    formats = import_qserve(source, out, progress=lambda *step: steps.append(step))
    weights = WeightFormat(4, 128 if is_grouped else None)
    recipe = "qserve-g128" if is_grouped else "qserve-channel"
    assert formats == QuantizationConfig(recipe, weights, activation_bits=8, kv_bits=4)
    config = ModelConfig.from_directory(out)
    assert config.quantization == formats
    assert config.dtype == torch.float16
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    check_matrices(out, matrices)
    files = WeightFiles(out)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(files.exact(name, tuple(tensors[name].shape), torch.float16), tensors[name])
    norms = [name for name in files.files if "norm" in name]
    assert len(norms) == 5
    assert all((files.mapped((name, (128,))) == 1).all() for name in norms)
    assert (out / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert not list(out.glob("*.bin"))
    assert not list(out.glob("*.pt"))


@pytest.mark.parametrize("is_grouped", [True, False])
def test_the_model_computes_what_its_weights_say(is_grouped: bool, tmp_path: Path) -> None:
    """With activations and cache in floats, against ``transformers`` on the exported weights."""
    source, out = tmp_path / "qserve", tmp_path / "out"
    tensors, _ = qserve_llama(source, is_grouped)
    write_safetensors(with_norms(tensors), source)
    import_qserve(source, out, kv_bits=16)
    section = json.loads((out / "config.json").read_text())["quantization_config"]
    edit_config(out, quantization_config=section | {"activations": {"bits": 16}}, torch_dtype="float32")
    export_checkpoint(out, tmp_path / "floats", "float32")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "floats", dtype=torch.float32)
    tokens = random_tokens(20)
    with torch.inference_mode():
        expected = model(torch.tensor([tokens])).logits[0]
    assert relative_error(logits(out, tokens), expected) < 1e-3


def test_it_is_served_as_it_is(tmp_path: Path) -> None:
    tensors, _ = qserve_llama(tmp_path / "qserve", is_grouped=True)
    write_safetensors(tensors, tmp_path / "qserve")
    import_qserve(tmp_path / "qserve", tmp_path / "out", kv_bits=16)
    assert load_decoder(tmp_path / "out").dtype == torch.float16
    assert logits(tmp_path / "out", random_tokens(8)).isfinite().all()


def test_an_index_of_other_files_is_ignored(tmp_path: Path) -> None:
    """QServe's own checkpoints carry the original's index beside one ``.bin`` file."""
    source = tmp_path / "qserve"
    tensors, matrices = qserve_llama(source, is_grouped=True)
    torch.save(tensors, source / "pytorch_model.bin")
    torch.save({"optimizer": 1}, source / "training_args.bin")
    index = {"metadata": {}, "weight_map": {f"{Q_PROJ}.weight": "model-00001-of-00002.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    import_qserve(source, tmp_path / "out")
    check_matrices(tmp_path / "out", matrices)


def test_tied_head_and_norms_that_are_not_one(tmp_path: Path) -> None:
    source = tmp_path / "qserve"
    tensors, _ = qserve_llama(source, is_grouped=False)
    del tensors["lm_head.weight"]
    tensors = with_norms(tensors)
    tensors["model.norm.weight"] = torch.rand(128).half()
    write_safetensors(tensors, source)
    edit_config(source, tie_word_embeddings=True)
    import_qserve(source, tmp_path / "out")
    assert ModelConfig.from_directory(tmp_path / "out").tie_embeddings
    found = WeightFiles(tmp_path / "out").mapped(("model.norm.weight", (128,)))
    assert torch.equal(found, tensors["model.norm.weight"])


def test_biases_and_another_programs_section_of_the_config(tmp_path: Path) -> None:
    source = tmp_path / "qserve"
    tensors, matrices = qserve_llama(source, is_grouped=True)
    for name, matrix in matrices.items():
        if "self_attn" in name:
            tensors[f"{name}.bias"] = torch.randn(len(matrix.weight)).half()
    write_safetensors(tensors, source)
    section = {"quant_method": "qoq", "wbits": 4, "group_size": 128}
    edit_config(source, attention_bias=True, quantization_config=section)
    import_qserve(source, tmp_path / "out")
    found = WeightFiles(tmp_path / "out").mapped((f"{Q_PROJ}.bias", (128,)))
    assert torch.equal(found, tensors[f"{Q_PROJ}.bias"])


def drop(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.pop(name)


def put(**replaced: Tensor) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({name.replace("__", "."): it for name, it in replaced.items()})


def eight_bits(tensors: dict[str, Tensor]) -> None:
    del tensors[f"{Q_PROJ}.s2_scales"]
    tensors[f"{Q_PROJ}.dequant_scale"] = torch.ones(128).half()


def unfit(tensors: dict[str, Tensor]) -> None:
    last = "model.layers.1.mlp.down_proj"
    tensors[f"{last}.s2_zeros"][0, 0] = -128
    tensors[f"{last}.s2_scales"][0, 0] = 1
    tensors[f"{last}.qweight"][:] = 0


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (drop(f"{Q_PROJ}.s2_zeros"), rf"has no tensor {Q_PROJ}\.s2_zeros"),
        (
            drop("model.layers.1.mlp.up_proj.qweight"),
            r"has no tensor model\.layers\.1\.mlp\.up_proj\.qweight",
        ),
        (drop("model.embed_tokens.weight"), r"has no tensor model\.embed_tokens\.weight"),
        (drop("lm_head.weight"), r"has no tensor lm_head\.weight"),
        (drop(f"{Q_PROJ}.s2_scales"), "no checkpoint of QServe"),
        (
            put(**{f"{Q_PROJ}.qweight": torch.zeros(128, 32, dtype=torch.int8)}),
            r"int8 \[128, 64\] is expected",
        ),
        (put(**{f"{Q_PROJ}.s2_scales": torch.zeros(2, 128, dtype=torch.int8)}), r"\[1, 128\] is expected"),
        (
            put(**{f"{Q_PROJ}.s1_scales": torch.zeros(128)}),
            r"float32 \[128\] where float16 \[128\] is expected",
        ),
        (put(**{f"{Q_PROJ}.s1_scales": torch.full((128,), torch.inf).half()}), "NaN or infinity"),
        (put(**{f"{Q_PROJ}.bias": torch.zeros(128).half()}), rf"has a tensor {Q_PROJ}\.bias, which"),
        (
            put(**{f"{Q_PROJ}.s1_szeros": torch.zeros(128).half()}),
            rf"has a tensor {Q_PROJ}\.s1_szeros, which",
        ),
        (eight_bits, "QServe's 8-bit weights"),
        (unfit, r"model\.layers\.1\.mlp\.down_proj\.weight: group 0 of row 0 has an integer of -128"),
    ],
)
def test_what_cannot_be_used(
    damage: Callable[[dict[str, Tensor]], object], problem: str, tmp_path: Path
) -> None:
    source = tmp_path / "qserve"
    tensors, _ = qserve_llama(source, is_grouped=True)
    damage(tensors)
    write_safetensors(tensors, source)
    with pytest.raises(ValueError, match=problem):
        import_qserve(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["qserve"]


def test_shapes_that_the_layout_cannot_hold(tmp_path: Path) -> None:
    source = tmp_path / "qserve"
    tensors, _ = qserve_llama(source, is_grouped=True)
    write_safetensors(tensors, source)
    edit_config(source, intermediate_size=320)
    with pytest.raises(ValueError, match=r"down_proj\.weight is \[128, 320\] .* columns of 128"):
        import_qserve(source, tmp_path / "out")


def test_destinations_and_options(llama_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no checkpoint of QServe"):
        import_qserve(llama_directory, tmp_path / "out")
    source = tmp_path / "qserve"
    tensors, _ = qserve_llama(source, is_grouped=True)
    with pytest.raises(ValueError, match=r"no \.safetensors, \.bin or \.pt file"):
        import_qserve(source, tmp_path / "out")
    write_safetensors(tensors, source)
    with pytest.raises(ValueError, match="kv_bits must be 4, 8 or 16, got 3"):
        import_qserve(source, tmp_path / "out", kv_bits=3)
    with pytest.raises(ValueError, match="exists already"):
        import_qserve(source, source)
    with pytest.raises(ValueError, match="does not exist"):
        import_qserve(source, tmp_path / "absent" / "out")
    with pytest.raises(ValueError, match="cannot be read"):
        import_qserve(tmp_path / "absent", tmp_path / "out")
