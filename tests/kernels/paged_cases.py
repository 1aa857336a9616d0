"""Random batches of sequences in scattered pages, for the tests of paged attention."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor

from lapidist.kernels import reference
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.kv_quantization import quantize_kv
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.softmax import Softmax, SoftmaxMode

# Of the largest output. A float16 or bfloat16 is rounded at the end, by 2^-11 or 2^-9 of itself; weights that are
# multiplied as bfloat16 add as much again.
TOLERANCES = {torch.float32: 5e-6, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}
HEAD_DIMS = [2, 3, 8, 20, 31, 32, 33, 64, 80, 96, 128, 256]
QUANTIZED_HEAD_DIMS = [8, 16, 24, 32, 64, 80, 96, 128, 256]
# Around the tiles of 8 and 64 rows and the sequences whose keys are split.
QUERY_LENGTHS = [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 47, 48, 49, 63, 64, 65, 129]


@dataclass(frozen=True)
class Case:
    """Query and context lengths of each sequence, the shape of the heads, and how it is computed."""

    lengths: list[tuple[int, int]]
    page_size: int
    kv_heads: int
    group: int
    head_dim: int
    window: int | None
    softcap: float | None
    dtype: torch.dtype
    mode: SoftmaxMode
    has_phi: bool
    query_layout: str
    seed: int
    kv_bits: int = 16

    @property
    def heads(self) -> int:
        return self.kv_heads * self.group

    @property
    def tolerance(self) -> float:
        """Of the largest output. Codes are not negative: what their sums have too much is taken off at the end, and
        loses up to four times as many of float32's digits as numbers around zero would (5.8e-6 seen with 749 keys).
        """
        return TOLERANCES[self.dtype] * (4 if self.kv_bits < 16 and self.dtype == torch.float32 else 1)

    @property
    def scale(self) -> float:
        return 1.5 * self.head_dim**-0.5

    def softmax(self) -> Softmax:
        """Constants within reach of every row, the same for one seed."""
        generator = torch.Generator().manual_seed(self.seed)
        phi = torch.rand(self.heads, generator=generator) * 40 - 20
        return Softmax(self.mode, phi if self.has_phi else None)


@dataclass(frozen=True)
class Batch:
    """Of a case: queries, and a cache of two layers with NaN wherever no token lies.

    ``written`` has the keys and values of each sequence, ``plain`` the numbers that attention sees in their place: the
    same, unless they are quantized.
    """

    case: Case
    query: Tensor
    cache: PagedKVCache
    layout: PagedLayout
    written: list[tuple[Tensor, Tensor]]
    plain: list[tuple[Tensor, Tensor]]

    def spans(self) -> list[slice]:
        starts = self.layout.query_starts.tolist()
        return [slice(begin, end) for begin, end in pairwise(starts)]

    def expected(self) -> Tensor:
        """float64 ``[tokens, heads, head_dim]``"""
        case = self.case
        parts = [
            reference.attention(self.query[span], keys, values, case.scale, case.window, case.softcap)
            for span, (keys, values) in zip(self.spans(), self.plain, strict=True)
            if span.start < span.stop
        ]
        return torch.cat(parts) if parts else torch.zeros(self.query.shape).double()


@st.composite
def cases(draw: st.DrawFn, kv_bits: tuple[int, ...] = (16,)) -> Case:
    bits = draw(st.sampled_from(kv_bits))
    group = draw(st.one_of(st.integers(1, 9), st.just(71)))
    lengths = []
    for _ in range(draw(st.integers(1, 4))):
        query = draw(st.one_of(st.just(1), st.integers(0, 40), st.sampled_from(QUERY_LENGTHS)))
        past = draw(st.one_of(st.just(0), st.integers(0, 60), st.integers(0, 700)))
        lengths.append((query, query + past))
    return Case(
        lengths=lengths,
        page_size=draw(st.sampled_from([1, 3, 16, 64])),
        kv_heads=draw(st.integers(1, 1 if group > 9 else 3)),
        group=group,
        head_dim=draw(st.sampled_from(HEAD_DIMS if bits == 16 else QUANTIZED_HEAD_DIMS)),
        window=draw(st.one_of(st.none(), st.integers(1, 50))),
        softcap=draw(st.one_of(st.none(), st.floats(0.5, 50.0))),
        dtype=draw(st.sampled_from(list(TOLERANCES))),
        mode=draw(st.sampled_from(list(SoftmaxMode))),
        has_phi=draw(st.booleans()),
        query_layout=draw(st.sampled_from(["dense", "fused", "heads_first"])),
        seed=draw(st.integers(0, 1 << 30)),
        kv_bits=bits,
    )


def build(case: Case) -> Batch:
    torch.manual_seed(case.seed)
    counts = [-(-kv // case.page_size) for _, kv in case.lengths]
    # One page more, which pads the page table: if it were read, the NaN in it would show.
    pages = torch.randperm(sum(counts) + 1).tolist()
    padding, pages = pages[0], pages[1:]
    shape = (2, sum(counts) + 1, case.page_size, case.kv_heads, case.head_dim)
    cache = PagedKVCache(*shape, case.dtype, bits=case.kv_bits)
    for tensor in cache.keys + cache.values:
        # Of codes, all bits of scales and zeros are set.
        tensor.fill_(torch.nan if case.kv_bits == 16 else 255)
    written, plain, owned = [], [], []
    for (_, kv), count in zip(case.lengths, counts, strict=True):
        own, pages = pages[:count], pages[count:]
        keys, values = (torch.randn(kv, case.kv_heads, case.head_dim).to(case.dtype) for _ in range(2))
        slots = [own[at // case.page_size] * case.page_size + at % case.page_size for at in range(kv)]
        cache.write(1, torch.tensor(slots, dtype=torch.long), keys, values)
        written.append((keys, values))
        if case.kv_bits != 16:
            keys, values = (quantize_kv(x, case.kv_bits).dequantize() for x in (keys, values))
        plain.append((keys, values))
        owned.append(own + [padding] * (max(counts) + 1 - count))
    queries, kvs = [query for query, _ in case.lengths], [kv for _, kv in case.lengths]
    return Batch(case, _queries(case), cache, PagedLayout.build([], queries, kvs, owned), written, plain)


def _queries(case: Case) -> Tensor:
    """``[tokens, heads, head_dim]``, with the strides that the case asks for."""
    tokens = sum(query for query, _ in case.lengths)
    if case.query_layout == "heads_first":
        return torch.randn(case.heads, tokens, case.head_dim).to(case.dtype).transpose(0, 1)
    # Of a fused projection, keys and values follow each token's queries.
    more = 2 * case.kv_heads if case.query_layout == "fused" else 0
    return torch.randn(tokens, case.heads + more, case.head_dim).to(case.dtype)[:, : case.heads]
