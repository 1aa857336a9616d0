"""Linear layers over quantized weights in the native library: integers up to the scales, exact on every processor."""

import torch
from torch import Tensor

from lapidist.kernels.cpu import weight_memory
from lapidist.kernels.cpu.library import TYPES, native
from lapidist.kernels.quantized_weight import QuantizedWeight

# Outputs of a panel (``native/kernels.h``).
_PANEL = 64
# The numbers of the native library's ``WeightForm``.
GROUPS_4, CHANNEL_4, CHANNEL_8 = range(3)
# A sum of so many products of 8-bit integers fits into 32 bits.
MAX_COLUMNS = 1 << 17


def weight_form(weight: QuantizedWeight) -> int:
    if weight.bits == 8:
        return CHANNEL_8
    return GROUPS_4 if weight.is_grouped else CHANNEL_4


def pack_weight(weight: QuantizedWeight, bias: Tensor | None = None) -> Tensor:
    """uint8 ``[panels, bytes of 64 outputs]``: codes in the order in which they are read, with scales, zeros and bias
    (``native/quantized_linear.cpp``).

    Raises
    ------
    ValueError : more columns than a 32-bit sum has room for, or a tensor that is not on the CPU.
    """
    outputs, columns = weight.out_features, weight.in_features
    if columns > MAX_COLUMNS:
        raise ValueError(
            f"a quantized weight may have {MAX_COLUMNS} columns at most, and this one has {columns}"
        )
    if weight.codes.device.type != "cpu":
        raise ValueError(
            f"quantized layers run on the CPU only, and this weight is on {weight.codes.device}: move it there"
        )
    form = weight_form(weight)
    panels, panel_bytes = -(-outputs // _PANEL), native().quantized_panel_bytes(form, columns)
    packed = weight_memory.allocate(panels * panel_bytes).view(panels, panel_bytes)
    # Held until the library has read them.
    parts = [
        weight.codes.contiguous(),
        weight.scales.float(),
        None if weight.zeros is None else weight.zeros.float(),
        None if weight.group_scales is None else weight.group_scales.contiguous(),
        None if weight.group_zeros is None else weight.group_zeros.contiguous(),
        None if bias is None else bias.float(),
    ]
    addresses = [0 if part is None else part.data_ptr() for part in parts]
    native().pack_quantized_weight(
        form, *addresses, packed.data_ptr(), columns, outputs, torch.get_num_threads()
    )
    return packed


def multiply(
    form: int, codes: Tensor, scales: Tensor, sums: Tensor, packed: Tensor, columns: int, out: Tensor
) -> None:
    """``out = x W^T + bias``.

    Parameters
    ----------
    codes, scales, sums : of ``lapidist.kernels.quantized_rows.QuantizedRows``.
    packed : the weight ``[outputs, columns]`` of this form as ``pack_weight`` gives it.
    out : ``[rows, outputs]``, contiguous. In float32, bfloat16 or float16; or int32, for the exact sums of codes times
        ``QuantizedWeight.integers`` alone.
    """
    rows, outputs = out.shape
    is_sums = out.dtype == torch.int32
    native().quantized_linear(
        form,
        0 if is_sums else TYPES[out.dtype],
        codes.data_ptr(),
        codes.stride(0),
        scales.data_ptr(),
        sums.data_ptr(),
        packed.data_ptr(),
        0 if is_sums else out.data_ptr(),
        out.data_ptr() if is_sums else 0,
        rows,
        columns,
        outputs,
        torch.get_num_threads(),
    )


def multiply_floats(form: int, x: Tensor, packed: Tensor, out: Tensor) -> None:
    """``out = x W^T + bias`` without quantizing x.

    Parameters
    ----------
    x : ``[rows, columns]`` in the dtype of ``out``; the rows may lie apart.
    packed : the weight ``[outputs, columns]`` of this form as ``pack_weight`` gives it.
    out : ``[rows, outputs]``, contiguous.
    """
    if x.stride(1) != 1:
        x = x.contiguous()
    rows, columns = x.shape
    native().weight_only_linear(
        form,
        TYPES[out.dtype],
        x.data_ptr(),
        x.stride(0),
        packed.data_ptr(),
        out.data_ptr(),
        rows,
        columns,
        out.shape[1],
        torch.get_num_threads(),
    )
