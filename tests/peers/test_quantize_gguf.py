"""Files that llama.cpp quantizes are of the wanted types and near the original."""

from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")

from benchmarks.peers.quantize_gguf import FILE_TYPES, quantized_gguf  # noqa: E402
from benchmarks.peers.write_gguf import write_gguf  # noqa: E402
from tests.peers.small_llama import write_small_llama  # noqa: E402


@pytest.fixture(scope="module")
def bf16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    # Blocks of K types have 256 columns.
    checkpoint = write_small_llama(folder / "model", hidden_size=256, intermediate_size=512)
    write_gguf(checkpoint, folder / "model.bf16.gguf")
    return folder / "model.bf16.gguf"


@pytest.mark.parametrize(
    ("file_type", "inner", "embedding", "noise"),
    [
        ("q4_0", "Q4_0", "Q6_K", 0.12),
        ("q4_0_pure", "Q4_0", "Q4_0", 0.12),
        ("q4_k_m", "Q4_K", "Q6_K", 0.12),
        ("q4_k_pure", "Q4_K", "Q4_K", 0.12),
        ("q8_0", "Q8_0", "Q8_0", 0.01),
    ],
)
def test_types_and_values(bf16: Path, file_type: str, inner: str, embedding: str, noise: float) -> None:
    out = quantized_gguf(bf16, file_type)
    assert out == bf16.with_name(f"model.{file_type}.gguf")
    originals, found = _tensors(bf16), _tensors(out)
    assert found.keys() == originals.keys()
    assert found["blk.0.attn_q.weight"].tensor_type.name == inner
    assert found["token_embd.weight"].tensor_type.name == embedding
    for name, tensor in found.items():
        expected, values = (
            gguf.dequantize(each.data, each.tensor_type).ravel() for each in (originals[name], tensor)
        )
        assert np.linalg.norm(values - expected) <= noise * np.linalg.norm(expected), name


def test_a_file_is_written_once_and_again_when_its_source_is_newer(bf16: Path) -> None:
    out = quantized_gguf(bf16, "q8_0")
    written = out.stat().st_mtime_ns
    assert quantized_gguf(bf16, "q8_0").stat().st_mtime_ns == written
    bf16.touch()
    assert quantized_gguf(bf16, "q8_0").stat().st_mtime_ns > written


def test_what_cannot_be_quantized_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "model.bf16.gguf"
    source.write_bytes(b"no gguf")
    with pytest.raises(ValueError, match=r"q3.* is not one of q4_0"):
        quantized_gguf(source, "q3")
    with pytest.raises(RuntimeError, match="cannot quantize"):
        quantized_gguf(source, next(iter(FILE_TYPES)))
    assert [file.name for file in tmp_path.iterdir()] == ["model.bf16.gguf"]


def _tensors(file: Path) -> dict:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
