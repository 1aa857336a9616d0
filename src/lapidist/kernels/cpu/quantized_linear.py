"""Linear layers over quantized weights in the native library: integers up to the scales, exact on every processor."""

from collections.abc import Callable

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


Multiply = Callable[[int, int, int, int], None]
"""Takes the address of a ``QuantizedRows``, the number of its rows, the address of the output ``[rows, outputs]``,
contiguous, and the number of threads."""


def multiply_by(form: int, packed: Tensor, columns: int, outputs: int, dtype: torch.dtype) -> Multiply:
    """``out = x W^T + bias`` by one weight, of which all is known but x. The tensor is to be kept as long.

    Parameters
    ----------
    packed : the weight ``[outputs, columns]`` of this form as ``pack_weight`` gives it.
    dtype : of the output: float32, bfloat16 or float16.
    """
    layer = native().QuantizedLayer(form, TYPES[dtype], packed.data_ptr(), columns, outputs)
    multiply: Multiply = layer.multiply
    return multiply


def multiply_integers(form: int, packed: Tensor, columns: int, address: int, out: Tensor) -> None:
    """The exact sums of codes times ``QuantizedWeight.integers``, before any scale.

    Parameters
    ----------
    packed : the weight ``[outputs, columns]`` of this form as ``pack_weight`` gives it.
    address : of the memory of ``lapidist.kernels.quantized_rows.QuantizedRows``.
    out : int32 ``[rows, outputs]``, contiguous.
    """
    rows, outputs = out.shape
    native().quantized_sums(
        form, packed.data_ptr(), columns, outputs, address, rows, out.data_ptr(), torch.get_num_threads()
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
