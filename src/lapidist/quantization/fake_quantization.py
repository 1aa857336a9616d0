"""What activations and cached keys and values become at run time, as floating-point numbers: for objectives."""

from torch import Tensor

from lapidist.quantization.grid import SMALLEST_SCALE

_FLOAT16_MAX = 65504.0


def fake_quantize_rows(x: Tensor) -> Tensor:
    """Each token of ``[..., channels]`` in symmetric 8-bit integers of a scale of its own."""
    largest = x.abs().amax(-1, keepdim=True)
    scales = (largest / 127).where(largest > 0, 1.0)
    return (x / scales).round_() * scales


def fake_quantize_kv(x: Tensor, bits: int) -> Tensor:
    """Each head of ``[..., head_dim]`` in unsigned integers of 4 or 8 bits, ``(code - zero) * scale``.

    Scale and zero are float16 numbers of its own, the zero in units of codes and not rounded to one (QServe, arXiv
    2405.04532, section 4.2).
    """
    highest_code = 2**bits - 1
    lowest, highest = x.aminmax(dim=-1, keepdim=True)
    scales = ((highest - lowest) / highest_code).half().to(x.dtype).clamp(min=SMALLEST_SCALE)
    zeros = -lowest / scales
    # Values closer to one another than float16 tells apart are one value: code 0 of zero -1.
    is_constant = (highest - lowest == 0) | (zeros.abs() > _FLOAT16_MAX)
    scales = lowest.half().to(x.dtype).where(is_constant, scales)
    zeros = zeros.where(~is_constant, -1.0).half().to(x.dtype)
    codes = (x / scales + zeros).round().clamp(0, highest_code).where(~is_constant, 0.0)
    return (codes - zeros) * scales
