"""Paged attention in Triton against the plain reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="Triton is not installed")

from lapidist.kernels.softmax import Softmax, SoftmaxMode
from lapidist.kernels.triton.attention import paged_attention
from tests.kernels.triton.paged_case import DEVICE, build, random_batch, relative_error

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

# The interpreter cuts to bfloat16 where a GPU rounds.
TOLERANCES = {torch.float32: 5e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@st.composite
def lengths(draw: st.DrawFn) -> list[tuple[int, int]]:
    found = []
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.one_of(st.just(1), st.integers(1, 9), st.integers(10, 50)))
        found.append((count, count + draw(st.one_of(st.just(0), st.integers(0, 90)))))
    return found


@settings(max_examples=50, deadline=None)
@given(
    lengths=lengths(),
    group=st.sampled_from([1, 3, 4, 8]),
    kv_heads=st.integers(1, 2),
    head_dim=st.sampled_from([64, 80, 96, 128, 256]),
    page_size=st.sampled_from([16, 32, 128]),
    dtype=st.sampled_from(list(TOLERANCES)),
    mode=st.sampled_from(SoftmaxMode),
    window=st.one_of(st.none(), st.integers(1, 60)),
    softcap=st.one_of(st.none(), st.floats(0.5, 50.0)),
    splits=st.sampled_from([None, 1, 2, 5]),
    seed=st.integers(0, 1 << 30),
)
def test_equals_the_reference(
    lengths: list[tuple[int, int]],
    group: int,
    kv_heads: int,
    head_dim: int,
    page_size: int,
    dtype: torch.dtype,
    mode: SoftmaxMode,
    window: int | None,
    softcap: float | None,
    splits: int | None,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    batch = random_batch(lengths, kv_heads, group, head_dim, page_size, dtype)
    phi = torch.randn(kv_heads * group, device=DEVICE) if seed % 2 else None
    scale = 1.5 * head_dim**-0.5
    found, recomputed = paged_attention(
        batch.query,
        batch.keys,
        batch.values,
        batch.layout,
        scale,
        window,
        softcap,
        Softmax(mode, phi),
        splits=splits,
    )
    assert (found.shape, found.dtype, recomputed.item()) == (batch.query.shape, dtype, 0)
    assert relative_error(found, batch.expected(scale, window, softcap)) < TOLERANCES[dtype]


@pytest.mark.parametrize("mode", SoftmaxMode)
def test_a_long_context_is_split_by_itself(mode: SoftmaxMode) -> None:
    batch = random_batch([(1, 6000)], kv_heads=1, group=4, page_size=32)
    found, _ = paged_attention(
        batch.query, batch.keys, batch.values, batch.layout, 0.125, softmax=Softmax(mode)
    )
    assert relative_error(found, batch.expected(0.125)) < TOLERANCES[torch.float32]


@pytest.mark.parametrize("phi", [-60.0, -17.0, 45.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_phi_does_not_show_in_16_bits(dtype: torch.dtype, phi: float) -> None:
    batch = random_batch([(1, 400), (20, 60)], group=4, dtype=dtype)
    softmax = Softmax(SoftmaxMode.UNIFIED, torch.full((8,), phi, device=DEVICE))
    found, recomputed = paged_attention(
        batch.query, batch.keys, batch.values, batch.layout, 0.125, softmax=softmax
    )
    assert recomputed.item() == 0
    assert relative_error(found, batch.expected(0.125)) < TOLERANCES[dtype]


def test_a_strided_query_is_read_where_it_lies() -> None:
    batch = random_batch([(1, 40), (30, 30)], kv_heads=2, group=2)
    tokens, heads, head_dim = batch.query.shape
    fused = torch.full((tokens, heads + 3, head_dim + 7), float("nan"), device=DEVICE)
    query = fused[:, 2:-1, :head_dim]
    query.copy_(batch.query)
    arguments = (batch.keys, batch.values, batch.layout, 0.1)
    assert torch.equal(paged_attention(query, *arguments)[0], paged_attention(batch.query, *arguments)[0])


def test_company_changes_nothing() -> None:
    batch = random_batch([(1, 70), (33, 50), (2, 2), (1, 1)])
    found, _ = paged_attention(batch.query, batch.keys, batch.values, batch.layout, 0.1)
    starts = batch.layout.query_starts.tolist()
    for i, plain in enumerate(batch.plain):
        own = batch.query[starts[i] : starts[i + 1]]
        alone = build(own.cpu(), [plain], [len(own)], 16)
        output, _ = paged_attention(alone.query, alone.keys, alone.values, alone.layout, 0.1)
        assert (
            relative_error(output, found[starts[i] : starts[i + 1]].cpu().double())
            < TOLERANCES[torch.float32]
        )


def test_no_sequences() -> None:
    batch = build(torch.empty(0, 4, 64), [], [], 16)
    found, recomputed = paged_attention(batch.query, batch.keys, batch.values, batch.layout, 1.0)
    assert found.shape == (0, 4, 64)
    assert recomputed.item() == 0


@pytest.mark.parametrize("mode", SoftmaxMode)
def test_rows_that_see_no_key_are_zeros(mode: SoftmaxMode) -> None:
    batch = random_batch([(1, 20), (1, 20), (0, 20), (1, 20)])
    batch.layout.kv_lengths[1] = 0
    found, recomputed = paged_attention(
        batch.query, batch.keys, batch.values, batch.layout, 0.1, softmax=Softmax(mode)
    )
    assert not found[1].any()
    assert found[0].any()
    assert found.isfinite().all()
    assert recomputed.item() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": torch.float64}, "float64"),
        ({"head_dim": 257}, "head_dim"),
        ({"page_size": 48}, "page_size"),
        ({"page_size": 8}, "page_size"),
        ({"kv_heads": 1, "group": 129}, "129 heads"),
    ],
)
def test_what_it_cannot_do_is_an_error(change: dict[str, int | torch.dtype], message: str) -> None:
    batch = random_batch([(1, 5)], **change)
    with pytest.raises(ValueError, match=message):
        paged_attention(batch.query, batch.keys, batch.values, batch.layout, 1.0)
