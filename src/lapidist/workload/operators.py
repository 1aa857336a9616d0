"""The operators a transformer step is made of, with their arithmetic and the least traffic they can cause.

``flops`` and the byte counts are those of ONE run; the operator runs ``count`` times in the step. One fused
multiply-add is two FLOPs. ``minimum_bytes`` reads every input once and writes every output once, the bound
that a perfect kernel with enough on-chip memory would reach; weights, activations and KV cache are also
visible apart.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lapidist.workload.tensor_format import TensorFormat


@dataclass(frozen=True, kw_only=True)
class Operator(ABC):
    """What every operator has: a name (its place in the layer) and how often the step runs it."""

    name: str
    count: int = 1

    @property
    @abstractmethod
    def flops(self) -> int:
        """Floating-point (or integer) operations of one run."""

    @property
    def weight_bytes(self) -> int:
        """Parameters read by one run."""
        return 0

    @property
    def activation_bytes(self) -> int:
        """Activations read and written by one run."""
        return 0

    @property
    def kv_bytes(self) -> int:
        """KV cache read and written by one run."""
        return 0

    @property
    def minimum_bytes(self) -> int:
        """All memory traffic of one run when each tensor moves once."""
        return self.weight_bytes + self.activation_bytes + self.kv_bytes


@dataclass(frozen=True, kw_only=True)
class GEMM(Operator):
    """``output [m, n] = input [m, k] @ weight [n, k].T (+ bias [n])``: m tokens, k channels in, n out."""

    m: int
    n: int
    k: int
    input: TensorFormat
    weight: TensorFormat
    output: TensorFormat
    bias: bool = False

    @property
    def flops(self) -> int:
        """``2 m n k``; the bias rides along, as in every BLAS count."""
        return 2 * self.m * self.n * self.k

    @property
    def weight_bytes(self) -> int:
        bias_bytes = self.output.byte_count(1, self.n) if self.bias else 0
        return self.weight.byte_count(self.n, self.k) + bias_bytes

    @property
    def activation_bytes(self) -> int:
        return self.input.byte_count(self.m, self.k) + self.output.byte_count(self.m, self.n)


@dataclass(frozen=True, kw_only=True)
class ExpertMLP(Operator):
    """Gate, up and down projections of the experts that a router chose, on one rank of a group.

    Every token goes to ``top_k`` of ``experts`` gated MLPs, as likely to one as to another. ``tensor_parallel`` ranks
    divide the inner size, ``expert_parallel`` ones the experts.
    """

    tokens: int
    hidden: int
    inner: int
    top_k: int
    experts: int
    input: TensorFormat
    weight: TensorFormat
    output: TensorFormat
    tensor_parallel: int = 1
    expert_parallel: int = 1

    @property
    def rows(self) -> float:
        """Pairs of a token and an expert that one rank computes, on average."""
        return self.tokens * self.top_k / self.expert_parallel

    @property
    def local_inner(self) -> int:
        return self.inner // self.tensor_parallel

    @property
    def stored_weight_bytes(self) -> int:
        """Of all experts of one rank."""
        local = self.experts // self.expert_parallel
        up = self.weight.byte_count(2 * self.local_inner, self.hidden)
        return local * (up + self.weight.byte_count(self.hidden, self.local_inner))

    @property
    def flops(self) -> int:
        return round(2 * 3 * self.hidden * self.local_inner * self.rows)

    @property
    def weight_bytes(self) -> int:
        """Of the experts that at least one token is expected to reach."""
        reached = 1 - (1 - self.top_k / self.experts) ** self.tokens
        return round(reached * self.stored_weight_bytes)

    @property
    def activation_bytes(self) -> int:
        return self.input.byte_count(self.tokens, self.hidden) + self.output.byte_count(
            self.tokens, self.hidden
        )


@dataclass(frozen=True, kw_only=True)
class Attention(Operator):
    """Causal attention of one sequence in one layer.

    The last ``query_length`` of ``kv_length`` tokens each see themselves and what is before them; with a
    sliding ``window`` themselves and the ``window - 1`` tokens before. ``head_dim`` is of queries and keys, and of
    values unless ``value_dim`` is given. ``cached_numbers`` is what the cache holds of a token, where that is not keys
    and values of each head but what both are made of (latent attention, DeepSeek-V2, arXiv 2405.04434).
    """

    query_length: int
    kv_length: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: TensorFormat
    kv: TensorFormat
    output: TensorFormat
    window: int | None = None
    value_dim: int | None = None
    cached_numbers: int | None = None

    @property
    def visible_kv(self) -> int:
        """Cached and new tokens that at least one query sees."""
        if self.window is None:
            return self.kv_length
        return min(self.kv_length, self.window - 1 + self.query_length)

    @property
    def flops(self) -> int:
        """QK^T and PV of every query with every visible token, as ``torch.utils.flop_counter`` counts."""
        return 2 * self.heads * self._dims * self.query_length * self.visible_kv

    @property
    def causal_flops(self) -> int:
        """The useful part of ``flops``: each query only against the tokens that it may see."""
        first, last = self.kv_length - self.query_length + 1, self.kv_length
        seen = _sum_of_minimum(first, last, self.window)
        return 2 * self.heads * self._dims * seen

    @property
    def activation_bytes(self) -> int:
        """New queries, keys and values in, attention output out."""
        width_in = self.heads * self.head_dim + self.kv_heads * self._dims
        incoming = self.hidden.byte_count(self.query_length, width_in)
        return incoming + self.output.byte_count(
            self.query_length, self.heads * (self.value_dim or self.head_dim)
        )

    @property
    def kv_read_bytes(self) -> int:
        """Visible tokens of earlier steps; the new ones are still at hand as activations."""
        return self._cache_bytes(self.visible_kv - self.query_length)

    @property
    def kv_write_bytes(self) -> int:
        """The new tokens' keys and values."""
        return self._cache_bytes(self.query_length)

    @property
    def kv_bytes(self) -> int:
        return self.kv_read_bytes + self.kv_write_bytes

    @property
    def _dims(self) -> int:
        """Of a key and a value."""
        return self.head_dim + (self.value_dim or self.head_dim)

    def _cache_bytes(self, tokens: int) -> int:
        if self.cached_numbers is not None:
            return self.kv.byte_count(tokens, self.cached_numbers)
        return self.kv.byte_count(2 * tokens * self.kv_heads, self.head_dim)


def _sum_of_minimum(first: int, last: int, limit: int | None) -> int:
    """``sum(min(x, limit) for x in first..last)``."""
    knee = last if limit is None else min(last, max(limit, first - 1))
    rising = (first + knee) * (knee - first + 1) // 2
    return rising + (last - knee) * (limit or 0)


@dataclass(frozen=True, kw_only=True)
class ElementWise(Operator):
    """Reads ``inputs`` tensors of ``[rows, columns]`` and writes one: activation, RoPE, residual addition.

    A transcendental function counts as one operation, like an addition.
    """

    rows: int
    columns: int
    inputs: int
    operations_per_element: int
    input: TensorFormat
    output: TensorFormat

    @property
    def flops(self) -> int:
        return self.operations_per_element * self.rows * self.columns

    @property
    def activation_bytes(self) -> int:
        read = self.inputs * self.input.byte_count(self.rows, self.columns)
        return read + self.output.byte_count(self.rows, self.columns)


@dataclass(frozen=True, kw_only=True)
class Normalization(Operator):
    """RMS normalization of ``rows`` vectors of ``columns`` with one learned scale per column."""

    rows: int
    columns: int
    input: TensorFormat
    output: TensorFormat

    @property
    def flops(self) -> int:
        """Square, sum, normalize and scale each element."""
        return 4 * self.rows * self.columns

    @property
    def weight_bytes(self) -> int:
        return self.input.byte_count(1, self.columns)

    @property
    def activation_bytes(self) -> int:
        return self.input.byte_count(self.rows, self.columns) + self.output.byte_count(
            self.rows, self.columns
        )


@dataclass(frozen=True, kw_only=True)
class Embedding(Operator):
    """Looks ``tokens`` rows of ``columns`` up; each row moves once as a weight and once as an activation."""

    tokens: int
    columns: int
    table: TensorFormat

    @property
    def flops(self) -> int:
        return 0

    @property
    def weight_bytes(self) -> int:
        return self.table.byte_count(self.tokens, self.columns)

    @property
    def activation_bytes(self) -> int:
        return self.table.byte_count(self.tokens, self.columns)


@dataclass(frozen=True, kw_only=True)
class Collective(Operator):
    """Exchange between ``ranks`` devices; ``payload_bytes`` is the result as one rank holds it afterwards."""

    kind: Literal["all_reduce", "all_gather"]
    payload_bytes: int
    ranks: int

    @property
    def flops(self) -> int:
        """Additions of an all-reduce travel with the data and bound nothing, so none are counted."""
        return 0

    @property
    def activation_bytes(self) -> int:
        """Own contribution read, result written, in local memory."""
        own = self.payload_bytes if self.kind == "all_reduce" else self.payload_bytes // self.ranks
        return own + self.payload_bytes

    @property
    def wire_bytes(self) -> int:
        """Bytes each rank must send in a bandwidth-optimal (ring) exchange."""
        passes = 2 if self.kind == "all_reduce" else 1
        return passes * self.payload_bytes * (self.ranks - 1) // self.ranks


def total_flops(operators: Iterable[Operator]) -> int:
    """FLOPs of a whole step: every operator times its count."""
    return sum(operator.count * operator.flops for operator in operators)


def total_minimum_bytes(operators: Iterable[Operator]) -> int:
    """Least memory traffic of a whole step, in bytes: every operator times its count."""
    return sum(operator.count * operator.minimum_bytes for operator in operators)
