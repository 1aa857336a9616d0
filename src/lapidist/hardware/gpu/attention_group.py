"""The attention operators of one step as the kernels that run them: one per phase, over all its sequences."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from lapidist.workload.operators import Attention


@dataclass(frozen=True)
class AttentionGroup:
    """Sequences of one phase in one kernel, as a batch of equal ones that causes the same work.

    Decoding: as many sequences, of their mean context. Prefill: the batch and query length that keep both the number of
    new tokens and that of query-key pairs: ten short prompts and one long one are not eleven middling ones. Heads whose
    values are shorter than their keys count as ones of the mean size, which cause the same work.
    """

    name: str
    count: int
    decoding: bool
    batch: float
    query_length: float
    kv_length: float
    heads: int
    kv_heads: int
    head_dim: float
    window: int
    compute_bytes: float
    kv_bytes: float
    minimum_bytes: int
    flops: int
    is_latent: bool

    def shape(self) -> tuple[float, ...]:
        """The arguments of ``AttentionShapes.of``."""
        sizes = (self.batch, self.query_length, self.kv_length, self.heads, self.kv_heads, self.head_dim)
        return (*sizes, self.window, self.compute_bytes, self.kv_bytes)


def group_attention(operators: Sequence[Attention]) -> list[AttentionGroup]:
    """One group per phase, window and heads, in the order of their first operator."""
    found: dict[tuple[object, ...], list[Attention]] = defaultdict(list)
    for operator in operators:
        sizes = (operator.heads, operator.kv_heads, operator.head_dim, operator.value_dim)
        shape = (*sizes, operator.cached_numbers, operator.kv, operator.hidden)
        key = (operator.name, operator.count, operator.query_length == 1, operator.window, *shape)
        found[key].append(operator)
    return [_group(some) for some in found.values()]


def _group(operators: Sequence[Attention]) -> AttentionGroup:
    first, count = operators[0], len(operators)
    tokens = sum(operator.query_length for operator in operators)
    if first.query_length == 1:
        batch, query, kv = float(count), 1.0, sum(operator.kv_length for operator in operators) / count
    else:
        query = sum(operator.query_length**2 for operator in operators) / tokens
        batch = tokens / query
        past = sum((o.kv_length - o.query_length) * o.query_length for o in operators) / tokens
        kv = query + past
    return AttentionGroup(
        name=first.name,
        count=first.count,
        decoding=first.query_length == 1,
        batch=batch,
        query_length=query,
        kv_length=kv,
        heads=first.heads,
        kv_heads=first.kv_heads,
        head_dim=(first.head_dim + (first.value_dim or first.head_dim)) / 2,
        window=first.window or 0,
        compute_bytes=4.0 if first.hidden.number == "fp32" else 2.0,
        kv_bytes=first.kv.byte_count(1, first.head_dim) / first.head_dim,
        minimum_bytes=sum(operator.minimum_bytes for operator in operators),
        flops=sum(operator.causal_flops for operator in operators),
        is_latent=first.cached_numbers is not None,
    )
