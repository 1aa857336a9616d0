"""The tensors of a checkpoint that hold a quantized weight, and the weight they hold.

Beside a float ``NAME.weight`` there is, for ``NAME.`` with R rows and C columns in G = ceil(C / 128) groups:

============== ======= ================= ======================================================================
tensor         dtype   shape             of
============== ======= ================= ======================================================================
qweight        uint8   [R, ceil(C / 2)]  4 bits: the even column in the low four bits, the next in the high four
qweight        int8    [R, C]            8 bits
scales         float16 [R]               all
zeros          float16 [R]               4 bits per output channel
group_scales   uint8   [R, G]            4 bits in groups
group_zeros    int8    [R, G]            4 bits in groups
============== ======= ================= ======================================================================

``lapidist.kernels.quantized_weight`` says what they mean.
"""

import torch
from torch import Tensor

from lapidist.kernels.quantized_weight import GROUP_SIZE, QuantizedWeight
from lapidist.models.errors import CheckpointError
from lapidist.models.quantization_config import WeightFormat
from lapidist.models.weights import WeightFiles

_STORED_NAMES = {"codes": "qweight"}
_LARGEST_GROUP_SCALE = 17  # from 18 on, a code times the scale would not fit into a byte


def tensor_specs(
    format: WeightFormat, rows: int, columns: int
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each tensor that a matrix ``[rows, columns]`` is stored in, by the end of its name."""
    if format.is_float:
        raise ValueError("a matrix of floats is one tensor named weight")
    groups = -(-columns // GROUP_SIZE)
    specs: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "qweight": ((rows, -(-columns // 2)), torch.uint8)
        if format.bits == 4
        else ((rows, columns), torch.int8),
        "scales": ((rows,), torch.float16),
    }
    if format.group_size is not None:
        specs["group_scales"] = ((rows, groups), torch.uint8)
        specs["group_zeros"] = ((rows, groups), torch.int8)
    elif format.bits == 4:
        specs["zeros"] = ((rows,), torch.float16)
    return specs


def tensors_of(name: str, weight: QuantizedWeight) -> dict[str, Tensor]:
    """The tensors to store a weight in, by their full names."""
    return {f"{name}.{_STORED_NAMES.get(part, part)}": tensor for part, tensor in weight.parts.items()}


def read_quantized(
    files: WeightFiles, projections: list[tuple[str, int]], columns: int, format: WeightFormat
) -> QuantizedWeight:
    """One weight of several projections (names and rows) side by side, all of so many columns.

    Raises
    ------
    CheckpointError : a tensor is missing, of another shape or dtype, or holds what no quantizer writes.
    """
    stacked: dict[str, list[Tensor]] = {}
    for name, rows in projections:
        for part, (shape, dtype) in tensor_specs(format, rows, columns).items():
            stacked.setdefault(part, []).append(files.exact(f"{name}.{part}", shape, dtype))
    parts = {part: torch.cat(tensors) for part, tensors in stacked.items()}
    weight = QuantizedWeight(
        format.bits,
        columns,
        parts["qweight"],
        parts["scales"],
        parts.get("zeros"),
        parts.get("group_scales"),
        parts.get("group_zeros"),
    )
    _check_groups(projections[0][0], weight)
    return weight


def _check_groups(name: str, weight: QuantizedWeight) -> None:
    """The kernels' integers overflow beyond these bounds."""
    if weight.group_scales is None or not weight.group_scales.numel():
        return
    least, most = weight.group_scales.aminmax()
    if not 1 <= least <= most <= _LARGEST_GROUP_SCALE:
        raise CheckpointError(
            f"{name}.group_scales has values from {least.item()} to {most.item()} where 1 to {_LARGEST_GROUP_SCALE} "
            "are sound: the file is damaged, quantize the model again"
        )
