"""A decoding batch: one new token per sequence over a paged cache, several copies of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.gpu_timing import Call, cold_copies
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.softmax import Softmax, SoftmaxMode
from lapidist.kernels.triton.attention import paged_attention
from lapidist.kernels.triton.workspace import Workspace


@dataclass(frozen=True)
class DecodeSetting:
    """Llama-3.1-8B's heads by default, in bfloat16."""

    batch: int
    context: int
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    page_size: int = 16

    @property
    def kv_bytes(self) -> int:
        """Of one layer: what a call has to read."""
        return 2 * self.batch * self.context * self.kv_heads * self.head_dim * 2

    @property
    def scale(self) -> float:
        return self.head_dim**-0.5

    def __str__(self) -> str:
        return f"batch {self.batch} x context {self.context}"


@dataclass(frozen=True)
class DecodeData:
    """One query and one layout, and copies of the cache.

    Attributes
    ----------
    keys, values : ``[copies, num_pages, kv_heads, page_size, head_dim]``.
    """

    setting: DecodeSetting
    query: Tensor
    keys: Tensor
    values: Tensor
    layout: PagedLayout

    @classmethod
    def random(cls, setting: DecodeSetting, device: torch.device) -> "DecodeData":
        """Pages in random order. The context is a multiple of the page size."""
        pages = setting.context // setting.page_size
        table = (
            torch.randperm(setting.batch * pages, device=device).to(torch.int32).view(setting.batch, pages)
        )
        cache = torch.empty(
            2,
            cold_copies(setting.kv_bytes, device),
            setting.batch * pages,
            setting.kv_heads,
            setting.page_size,
            setting.head_dim,
            dtype=torch.bfloat16,
            device=device,
        ).normal_()
        layout = PagedLayout(
            slots=torch.empty(0, dtype=torch.long, device=device),
            query_starts=torch.arange(setting.batch + 1, dtype=torch.int32, device=device),
            kv_lengths=torch.full((setting.batch,), setting.context, dtype=torch.int32, device=device),
            page_table=table,
            max_query_length=1,
        )
        query = torch.randn(
            setting.batch, setting.heads, setting.head_dim, dtype=torch.bfloat16, device=device
        )
        return cls(setting, query, cache[0], cache[1], layout)

    def layers(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.keys, self.values, strict=True)

    def calls(self, mode: SoftmaxMode) -> list[Call]:
        """Ours, on every copy. They run one after another and share their counters."""
        workspace = Workspace(self.setting.batch * self.setting.kv_heads, self.query.device)

        def call(keys: Tensor, values: Tensor) -> object:
            return paged_attention(
                self.query,
                keys,
                values,
                self.layout,
                self.setting.scale,
                softmax=Softmax(mode),
                workspace=workspace,
            )

        return [partial(call, keys, values) for keys, values in self.layers()]
