"""Writing a softmax into a checkpoint: everything else stays as it was."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from lapidist.kernels.softmax import SoftmaxMode
from lapidist.models.calibration import checkpoint_files
from lapidist.models.calibration.checkpoint_files import copy_checkpoint, has_softmax, write_softmax
from lapidist.models.config import ModelConfig
from lapidist.models.errors import CheckpointError
from lapidist.models.softmax_config import SoftmaxConfig
from tests.checkpoints import write_random_llama

SOFTMAX = SoftmaxConfig(SoftmaxMode.UNIFIED, ((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, -8.5)))


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return write_random_llama(tmp_path / "llama")


def edit(directory: Path, **changes: Any) -> dict[str, Any]:
    values = json.loads((directory / "config.json").read_text()) | changes
    (directory / "config.json").write_text(json.dumps(values))
    return values


def read(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("earlier", ["absent", None])
def test_in_place(llama: Path, earlier: Any) -> None:
    before = edit(
        llama, **({} if earlier == "absent" else {"quantization_config": earlier}), note="größer", x=1e-05
    )
    (llama / "config.json").chmod(0o640)
    assert not has_softmax(llama)
    assert write_softmax(llama, SOFTMAX) == llama / "config.json"
    assert has_softmax(llama)
    assert ModelConfig.from_directory(llama).attention_softmax == SOFTMAX
    after = read(llama)
    assert list(after) == [*before, *({"quantization_config"} - set(before))]
    section = after.pop("quantization_config")
    before.pop("quantization_config", None)
    assert after == before
    assert section["quant_method"] == "lapidist"
    assert stat.S_IMODE((llama / "config.json").stat().st_mode) == 0o640
    assert not list(llama.glob(".*"))


def test_our_other_keys_and_their_order_stay(llama: Path) -> None:
    ours = {
        "weights": {"bits": 4},
        "attention_softmax": {"mode": "lazy"},
        "quant_method": "lapidist",
        "z": [1],
    }
    edit(llama, quantization_config=ours, last=True)
    write_softmax(llama, SOFTMAX)
    after = read(llama)
    assert list(after)[-1] == "last"
    assert list(after["quantization_config"]) == list(ours)
    assert after["quantization_config"]["weights"] == {"bits": 4}
    assert ModelConfig.from_directory(llama).attention_softmax == SOFTMAX


def test_a_link_is_replaced_and_its_target_left_alone(llama: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    (llama / "config.json").rename(blob)
    (llama / "config.json").symlink_to(blob)
    before = blob.read_bytes()
    write_softmax(llama, SOFTMAX)
    assert blob.read_bytes() == before
    assert not (llama / "config.json").is_symlink()
    assert has_softmax(llama)


def test_a_failure_leaves_the_old_file(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (llama / "config.json").read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CheckpointError, match=r"cannot be written .No space left"):
        write_softmax(llama, SOFTMAX)
    assert (llama / "config.json").read_bytes() == before
    assert not list(llama.glob(".*"))


def test_a_copy_shares_the_weights_and_nothing_else(llama: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    (llama / "model.safetensors").rename(blob)
    (llama / "model.safetensors").symlink_to(blob)  # as in the hub's cache
    (llama / ".hidden").touch()
    before = (llama / "config.json").read_bytes()
    out = tmp_path / "copy"
    assert copy_checkpoint(llama, out, SOFTMAX) == out / "config.json"
    assert (llama / "config.json").read_bytes() == before
    assert ModelConfig.from_directory(out).attention_softmax == SOFTMAX
    assert (out / "model.safetensors").stat().st_ino == blob.stat().st_ino
    assert not (out / "model.safetensors").is_symlink()
    assert (out / "tokenizer.json").stat().st_ino != (llama / "tokenizer.json").stat().st_ino
    assert {file.name for file in out.iterdir()} == {file.name for file in llama.iterdir()} - {".hidden"}


def test_weights_are_copied_where_they_cannot_be_linked(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", fail)
    copy_checkpoint(llama, tmp_path / "copy", SOFTMAX)
    copied, original = (directory / "model.safetensors" for directory in (tmp_path / "copy", llama))
    assert copied.read_bytes() == original.read_bytes()
    assert copied.stat().st_ino != original.stat().st_ino


def test_a_copy_that_fails_leaves_nothing(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match="exists already"):
        copy_checkpoint(llama, llama, SOFTMAX)
    with pytest.raises(CheckpointError, match="does not exist"):
        copy_checkpoint(llama, tmp_path / "no" / "folder", SOFTMAX)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_files, "_link_weights", fail)
    with pytest.raises(CheckpointError, match="No space left on device"):
        copy_checkpoint(llama, tmp_path / "copy", SOFTMAX)
    assert [path.name for path in tmp_path.iterdir()] == ["llama"]


def test_another_programs_quantization_is_refused(llama: Path) -> None:
    before = edit(llama, quantization_config={"quant_method": "awq", "bits": 4})
    with pytest.raises(CheckpointError, match="'awq', which is not supported"):
        write_softmax(llama, SOFTMAX)
    assert read(llama) == before
