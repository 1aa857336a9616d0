"""Query heads that share a KV head share whatever is folded into it."""

from torch import Tensor

from lapidist.quantization.block import BlockShape


def largest_per_kv_head(statistics: Tensor, shape: BlockShape) -> Tensor:
    """``[num_kv_heads, head_dim]``: the maximum over the query heads of a group of ``[num_heads * head_dim]``."""
    return statistics.view(shape.num_kv_heads, shape.group, shape.head_dim).amax(1)


def spread_over_heads(values: Tensor, shape: BlockShape) -> Tensor:
    """``[num_heads * head_dim]``: each query head gets its KV head's of ``[num_kv_heads, head_dim]``."""
    return values.repeat_interleave(shape.group, dim=0).flatten()
