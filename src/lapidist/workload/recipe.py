"""Which numbers a model is stored and computed in."""

import re
from dataclasses import dataclass
from typing import Literal

from lapidist.workload.tensor_format import NumberType, TensorFormat

_SCALE_BITS = 16  # every scale and real-valued zero point of weights is fp16
_KV_ZERO_BITS = 8
_FLOATS: tuple[NumberType, ...] = ("fp32", "bf16", "fp16")
_INTEGERS: dict[str, NumberType] = {"4": "int4", "8": "int8"}
_QUANTIZED_NAME = re.compile(
    r"w(?P<weight>4|8|16)a(?P<activation>8|16)kv(?P<kv>4|8|16)(?:-g(?P<group>[1-9]\d*))?"
)


@dataclass(frozen=True)
class Recipe:
    """The formats of a model's tensors.

    Parameters
    ----------
    weight : weights of the decoder layers' linear projections.
    activation : inputs of those projections.
    kv : keys and values in the cache; a row is one head of one token.
    hidden : everything else: residual stream, norms, embedding, output head, attention's own arithmetic.
    lm_head : weights of the output head, whose inputs are then ``activation``; None is ``hidden`` for both.
    expert_weight : weights of a mixture of experts; None is ``weight``.
    """

    name: str
    weight: TensorFormat
    activation: TensorFormat
    kv: TensorFormat
    hidden: TensorFormat
    lm_head: TensorFormat | None = None
    expert_weight: TensorFormat | None = None

    @staticmethod
    def named(name: str, hidden: Literal["fp32", "bf16", "fp16"] = "fp16") -> "Recipe":
        """The recipe of a conventional name: a float type, or ``w{4,8,16}a{8,16}kv{4,8,16}[-g{group}]``.

        ``hidden`` is the floating-point type that stands for 16 in a quantized name; a plain float name is
        its own. Quantized formats carry the parameters of QoQ (QServe, arXiv 2405.04532, section 4): weights
        an fp16 scale per output channel and, in groups, an 8-bit scale and an 8-bit zero point per group, or
        without groups an fp16 zero point per channel (int4 only; int8 is symmetric); activations an fp16
        scale per token; keys and values an fp16 scale and, where QServe has fp16 too, an 8-bit zero point per
        head and token.

        >>> Recipe.named("w4a8kv4-g128").kv.byte_count(rows=1, columns=128)
        67

        Raises
        ------
        ValueError : the name follows neither form.
        """
        if name in _FLOATS:
            plain = TensorFormat(name)
            return Recipe(name, plain, plain, plain, plain)
        match = _QUANTIZED_NAME.fullmatch(name)
        if match is None or (match["group"] and match["weight"] != "4"):
            raise ValueError(
                f"unknown recipe {name!r}: use {', '.join(_FLOATS)}, or w{{4,8,16}}a{{8,16}}kv{{4,8,16}} "
                "with an optional -g{group size} after 4-bit weights, for example w4a8kv4-g128"
            )
        plain = TensorFormat(hidden)
        return Recipe(
            name,
            weight=_weight_format(match["weight"], match["group"], plain),
            activation=_quantized(match["activation"], plain, _SCALE_BITS),
            kv=_quantized(match["kv"], plain, _SCALE_BITS + _KV_ZERO_BITS),
            hidden=plain,
        )


def _quantized(bits: str, plain: TensorFormat, row_overhead_bits: int) -> TensorFormat:
    return TensorFormat(_INTEGERS[bits], row_overhead_bits=row_overhead_bits) if bits in _INTEGERS else plain


def _weight_format(bits: str, group: str | None, plain: TensorFormat) -> TensorFormat:
    if group is not None:
        return TensorFormat("int4", int(group), group_overhead_bits=16, row_overhead_bits=_SCALE_BITS)
    return _quantized(bits, plain, 2 * _SCALE_BITS if bits == "4" else _SCALE_BITS)
