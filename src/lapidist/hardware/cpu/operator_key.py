"""What tells a measured operator from another, apart from the number of tokens it runs on."""

from dataclasses import dataclass

from lapidist.workload.operators import GEMM, ElementWise, Embedding, Normalization, Operator
from lapidist.workload.tensor_format import TensorFormat


@dataclass(frozen=True, order=True)
class OperatorKey:
    """A kind of operator on a fixed number of columns, in fixed formats.

    Attributes
    ----------
    kind : gemm, normalization, embedding, or the name of an element-wise operator.
    columns : of the output; ``inputs`` those of a GEMM's input, else 0.
    formats : of input, weight and output, such as ``bf16,int4-g128,bf16``.
    """

    kind: str
    columns: int
    inputs: int
    formats: str


def operator_key(operator: Operator) -> OperatorKey:
    """The key of any operator but attention and collectives.

    Raises
    ------
    ValueError : the operator is one of those.
    """
    match operator:
        case GEMM():
            formats = _formats(operator.input, operator.weight, operator.output)
            return OperatorKey("gemm", operator.n, operator.k, formats)
        case Normalization():
            return OperatorKey(
                "normalization", operator.columns, 0, _formats(operator.input, operator.output)
            )
        case ElementWise():
            return OperatorKey(operator.name, operator.columns, 0, _formats(operator.input, operator.output))
        case Embedding():
            return OperatorKey("embedding", operator.columns, 0, _formats(operator.table))
    raise ValueError(f"{operator.name}: a CPU forecast knows no {type(operator).__name__.lower()}")


def operator_rows(operator: Operator) -> int:
    """What an operator of a key is run on more or less of: tokens, or heads of tokens."""
    match operator:
        case GEMM():
            return operator.m
        case Normalization() | ElementWise():
            return operator.rows
        case Embedding():
            return operator.tokens
    raise ValueError(f"{operator.name}: a CPU forecast knows no {type(operator).__name__.lower()}")


def format_name(each: TensorFormat) -> str:
    """``bf16``, or ``int4-g128`` for groups.

    >>> format_name(TensorFormat("int4", 128))
    'int4-g128'
    """
    return each.number if each.group_size is None else f"{each.number}-g{each.group_size}"


def _formats(*formats: TensorFormat) -> str:
    return ",".join(map(format_name, formats))
