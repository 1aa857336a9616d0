"""The peers of decode attention, on the same keys and values and in the layout that each likes best.

Packages that are not installed, or that refuse the setting, are named with the reason and left out.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.decode_setting import DecodeData
from benchmarks.gpu.gpu_timing import Call, interleaved_seconds

_FLASHINFER_WORKSPACE_BYTES = 256 << 20


def peer_calls(data: DecodeData) -> tuple[dict[str, list[Call]], dict[str, str]]:
    """Calls by peer, one per copy of the data, and why others are missing.

    Each of them has run in a graph and agrees with PyTorch.
    """
    found, missing = {"torch": _torch_calls(data)}, {}
    expected = found["torch"][0]()
    assert isinstance(expected, Tensor)
    makers: dict[str, Callable[[DecodeData], list[Call]]] = {
        "flash_attn_2": _flash_attention_2_calls,
        "flash_attn_3": _flash_attention_3_calls,
        "flashinfer": _flashinfer_calls,
    }
    for name, make in makers.items():
        try:
            calls = make(data)
            _check(calls[0](), expected)
            interleaved_seconds({name: calls}, repeats=1)  # it can be captured
        # Whatever a peer's package raises, the benchmark goes on without it and says so.
        except Exception as error:
            missing[name] = f"{type(error).__name__}: {error}"
        else:
            found[name] = calls
    return found, missing


def _check(found: object, expected: Tensor) -> None:
    output = found[0] if isinstance(found, tuple) else found
    assert isinstance(output, Tensor)
    difference = (output.reshape(expected.shape).float() - expected.float()).abs().max()
    if not difference <= 2e-2 * expected.float().abs().max():
        raise ValueError("its output differs from PyTorch's")


def _plain(data: DecodeData, pages: Tensor) -> Tensor:
    """Keys or values of one copy in order, ``[batch, kv_heads, context, head_dim]``."""
    gathered = pages[data.layout.page_table.long()]
    batch, _, kv_heads, _, head_dim = gathered.shape
    return gathered.transpose(1, 2).reshape(batch, kv_heads, -1, head_dim)


def _torch_calls(data: DecodeData) -> list[Call]:
    """The heads that share a KV head as queries of one product: faster than ``enable_gqa`` with one query."""
    setting = data.setting
    group = setting.heads // setting.kv_heads
    rows = data.query.view(setting.batch, setting.kv_heads, group, setting.head_dim)

    def call(keys: Tensor, values: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(rows, keys, values, scale=setting.scale).view_as(data.query)

    layers = [(_plain(data, keys), _plain(data, values)) for keys, values in data.layers()]
    return [partial(call, *layer) for layer in layers]


def _flash_attention_2_calls(data: DecodeData) -> list[Call]:
    from flash_attn import flash_attn_with_kvcache

    return _flash_attention_calls(data, flash_attn_with_kvcache)


def _flash_attention_3_calls(data: DecodeData) -> list[Call]:
    from flash_attn_interface import flash_attn_with_kvcache

    return _flash_attention_calls(data, flash_attn_with_kvcache)


def _flash_attention_calls(data: DecodeData, attend: Callable[..., Tensor]) -> list[Call]:
    """Without pages, which can only help it: caches ``[batch, context, kv_heads, head_dim]``."""
    query = data.query[:, None]

    def call(keys: Tensor, values: Tensor) -> Tensor:
        lengths = data.layout.kv_lengths
        return attend(
            query, keys, values, cache_seqlens=lengths, softmax_scale=data.setting.scale, causal=True
        )

    layers = [
        tuple(_plain(data, pages).transpose(1, 2).contiguous() for pages in layer) for layer in data.layers()
    ]
    return [partial(call, *layer) for layer in layers]


def _flashinfer_calls(data: DecodeData) -> list[Call]:
    """Our very pages, which are FlashInfer's layout HND."""
    import flashinfer

    setting, layout = data.setting, data.layout
    buffer = torch.empty(_FLASHINFER_WORKSPACE_BYTES, dtype=torch.uint8, device=data.query.device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(buffer, "HND", use_tensor_cores=True)
    pages = layout.page_table.shape[1]
    wrapper.plan(
        layout.query_starts * pages,
        layout.page_table.flatten(),
        torch.full_like(layout.kv_lengths, setting.page_size),
        setting.heads,
        setting.kv_heads,
        setting.head_dim,
        setting.page_size,
        q_data_type=torch.bfloat16,
        kv_data_type=torch.bfloat16,
        sm_scale=setting.scale,
    )
    return [partial(wrapper.run, data.query, layer) for layer in data.layers()]
