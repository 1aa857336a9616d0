import pickle
from pathlib import Path

import pytest
import torch

from lapidist.models.errors import CheckpointError
from lapidist.models.pickled_weights import PickledWeightFiles


def test_tensors_of_all_files_but_a_trainers(tmp_path: Path) -> None:
    first, second = torch.randn(3, 4), torch.randint(-128, 128, (5,), dtype=torch.int8)
    torch.save({"first": first, "step": 7}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"second": second}, tmp_path / "rest.pt", _use_new_zipfile_serialization=False)
    torch.save({"second": second + 1}, tmp_path / "optimizer.pt")
    files = PickledWeightFiles(tmp_path)
    assert set(files.files) == {"first", "second"}
    assert torch.equal(files.mapped(("first", (3, 4))), first)
    assert torch.equal(files.exact("second", (5,), torch.int8), second)
    with pytest.raises(CheckpointError, match="has no tensor third"):
        files.mapped(("third", (1,)))
    with pytest.raises(CheckpointError, match=r"first has shape \[3, 4\]"):
        files.mapped(("first", (4, 3)))


class Surprise:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('what is pickled was run')",)


def test_what_is_pickled_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Surprise()}, protocol=2))
    with pytest.raises(
        CheckpointError, match=r"pytorch_model\.bin is truncated or not a file of tensors"
    ) as raised:
        PickledWeightFiles(tmp_path)
    assert "\n" not in str(raised.value)
    torch.save({"weight": Surprise()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="truncated or not a file of tensors"):
        PickledWeightFiles(tmp_path)


@pytest.mark.parametrize("is_archive", [True, False])
@pytest.mark.parametrize("kept", [0, 1, 10, 200, 2000, -1])
def test_truncated(kept: int, is_archive: bool, tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    torch.save({"weight": torch.randn(64, 64)}, file, _use_new_zipfile_serialization=is_archive)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is truncated") as raised:
        PickledWeightFiles(tmp_path)
    assert "\n" not in str(raised.value)


def test_nothing_of_use(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the weights are missing"):
        PickledWeightFiles(tmp_path)
    torch.save([torch.ones(2)], tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="holds list where tensors by their names"):
        PickledWeightFiles(tmp_path)
