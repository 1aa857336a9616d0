"""Decode attention of many sequences at once: one query each, over paged keys and values.

Sequences of similar length form a group whose pages are gathered into one padded batch. On a CPU the cost of many
small operators, each waiting for all threads, is what this avoids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lapidist.kernels.paged_layout import PagedLayout

# A group's shortest sequence has at least this share of its longest one's pages: bounds what padding costs.
_LEAST_FILL = 0.6
# Elements of keys gathered at once; they and the values stay in the processor's last-level cache.
_ELEMENTS_PER_GROUP = 1 << 22


@dataclass(frozen=True)
class DecodeGroup:
    """Sequences with one new token each.

    Attributes
    ----------
    sequences : their indices in the layout.
    rows : int64 ``[sequences]``, the rows of their queries in the batch.
    page_table : int64 ``[sequences, pages]``, padded with page 0.
    mask : bool ``[sequences, 1, 1, pages * page_size]``, which gathered tokens the query sees.
    visible : how many those are, for each sequence.
    """

    sequences: tuple[int, ...]
    rows: Tensor
    page_table: Tensor
    mask: Tensor
    visible: tuple[int, ...]


def group_decodes(
    layout: PagedLayout, page_size: int, kv_width: int, window: int | None
) -> list[DecodeGroup]:
    """Groups of all sequences of the layout that have one new token.

    Parameters
    ----------
    kv_width : elements of one token's keys, ``kv_heads * head_dim``.
    window : tokens that a query sees, itself included; None for all.
    """
    starts = layout.query_starts
    indices = [index for index in range(len(layout.kv_lengths)) if starts[index + 1] - starts[index] == 1]
    spans = {}
    for index in indices:
        last = layout.kv_lengths[index]
        first = 0 if window is None else max(0, last - window)
        spans[index] = (first // page_size, first % page_size, last - first)
    pages = {index: len(layout.page_ids[index]) - skipped for index, (skipped, _, _) in spans.items()}
    members: list[list[int]] = []
    for index in sorted(indices, key=lambda index: -pages[index]):
        longest = pages[members[-1][0]] if members else 0
        full = members and (len(members[-1]) + 1) * longest * page_size * kv_width > _ELEMENTS_PER_GROUP
        if not members or full or pages[index] < _LEAST_FILL * longest:
            members.append([])
        members[-1].append(index)
    return [_group(layout, group, spans, page_size) for group in members]


def _group(
    layout: PagedLayout, group: list[int], spans: dict[int, tuple[int, int, int]], page_size: int
) -> DecodeGroup:
    tables = [layout.page_ids[index][spans[index][0] :] for index in group]
    page_table = torch.nn.utils.rnn.pad_sequence(tables, batch_first=True)
    device = page_table.device
    first = torch.tensor([spans[index][1] for index in group], device=device)[:, None]
    visible = tuple(spans[index][2] for index in group)
    position = torch.arange(page_table.shape[1] * page_size, device=device)
    mask = (position >= first) & (position < first + torch.tensor(visible, device=device)[:, None])
    rows = torch.tensor([layout.query_starts[index] for index in group], device=device)
    return DecodeGroup(tuple(group), rows, page_table, mask[:, None, None], visible)


@torch.library.custom_op("lapidist::decode_attention", mutates_args=())
def decode_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    page_table: Tensor,
    mask: Tensor,
    visible: Sequence[int],
    scale: float,
) -> Tensor:
    """Attention of one group, ``[sequences, heads, head_dim]``.

    Parameters
    ----------
    query : ``[sequences, heads, head_dim]``.
    keys, values : one layer of the cache, ``[num_pages, page_size, kv_heads, head_dim]``.
    page_table, mask, visible : see ``DecodeGroup``; ``visible`` only tells the FLOP counter what is not padding.
    """
    sequences, heads, head_dim = query.shape
    kv_heads = keys.shape[2]
    shape = (sequences, -1, kv_heads, head_dim)
    pages = page_table.flatten()
    gathered_keys = keys.index_select(0, pages).view(shape).transpose(1, 2)
    gathered_values = values.index_select(0, pages).view(shape).transpose(1, 2)
    # The heads that share a KV head are rows of one product.
    rows = query.reshape(sequences, kv_heads, heads // kv_heads, head_dim)
    found = F.scaled_dot_product_attention(rows, gathered_keys, gathered_values, attn_mask=mask, scale=scale)
    return found.reshape(query.shape).clone()


@register_flop_formula(torch.ops.lapidist.decode_attention)
def _decode_flops(
    query_shape: Any, _keys: Any, _values: Any, _table: Any, _mask: Any, visible: Any, *_: Any, **__: Any
) -> int:
    """Two products over what each query sees; the padding is not useful work."""
    _, heads, head_dim = query_shape
    return 4 * heads * head_dim * sum(visible)
