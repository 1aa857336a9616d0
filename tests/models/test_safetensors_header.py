from pathlib import Path

import torch
from safetensors.torch import save_file

from lapidist.models.safetensors_header import DTYPE_NAMES, TensorHeader, read_header


def test_every_dtype_and_shape(tmp_path: Path) -> None:
    shapes = [(), (0,), (3,), (2, 5), (1, 2, 3)]
    tensors = {
        f"{dtype}.{len(shape)}.{sum(shape)}": torch.zeros(shape, dtype=dtype)
        for dtype in (*DTYPE_NAMES, torch.float64, torch.int64, torch.bool, torch.float8_e5m2)
        for shape in shapes
    }
    save_file(tensors, tmp_path / "all.safetensors", {"format": "pt"})
    found = read_header(tmp_path / "all.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].shape == tuple(tensor.shape)
        assert found[name].byte_count == tensor.nbytes
        assert found[name].dtype == DTYPE_NAMES.get(tensor.dtype, found[name].dtype)
    assert found["torch.uint8.2.7"] == TensorHeader("U8", (2, 5), 10)
