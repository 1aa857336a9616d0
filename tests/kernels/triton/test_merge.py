"""Splitting the keys: the number of parts does not matter, and no run differs from another."""

from itertools import combinations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from lapidist.kernels.softmax import Softmax, SoftmaxMode
from lapidist.kernels.triton.attention import paged_attention
from lapidist.kernels.triton.workspace import Workspace
from tests.kernels.triton.paged_case import DEVICE, random_batch, relative_error

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="programs run at once on a CUDA device only"
)


@pytest.mark.parametrize("mode", SoftmaxMode)
def test_splits_agree_pairwise(mode: SoftmaxMode) -> None:
    batch = random_batch([(1, 700), (2, 130)], kv_heads=1, group=3)
    found = [
        paged_attention(
            batch.query, batch.keys, batch.values, batch.layout, 0.125, softmax=Softmax(mode), splits=splits
        )[0]
        for splits in (1, 2, 4, 7, 32)
    ]
    for one, other in combinations(found, 2):
        assert relative_error(one, other.cpu().double()) <= 2e-6


@pytest.mark.parametrize("mode", SoftmaxMode)
def test_runs_are_bitwise_equal(mode: SoftmaxMode) -> None:
    batch = random_batch([(1, 300), (20, 90)], dtype=torch.bfloat16)
    workspace = Workspace(100, DEVICE)
    found = [
        paged_attention(
            batch.query,
            batch.keys,
            batch.values,
            batch.layout,
            0.125,
            softmax=Softmax(mode),
            splits=5,
            workspace=used,
        )[0]
        for used in (None, workspace, workspace)
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not workspace.counters(100).any()


def test_a_workspace_goes_on_counting() -> None:
    batch = random_batch([(1, 30)], kv_heads=1, group=2)
    softmax = Softmax(SoftmaxMode.UNIFIED, torch.tensor([500.0, 0.0], device=DEVICE))
    workspace = Workspace(0, DEVICE)
    for calls in (1, 2):
        _, recomputed = paged_attention(
            batch.query,
            batch.keys,
            batch.values,
            batch.layout,
            0.125,
            softmax=softmax,
            splits=1,
            workspace=workspace,
        )
        assert recomputed.item() == workspace.recomputed.item() == calls


def test_a_workspace_that_is_too_small_is_an_error() -> None:
    batch = random_batch([(1, 300)], kv_heads=2)
    with pytest.raises(ValueError, match="has 1 tickets and the call needs 2"):
        paged_attention(
            batch.query,
            batch.keys,
            batch.values,
            batch.layout,
            1.0,
            splits=2,
            workspace=Workspace(1, DEVICE),
        )


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("mode", SoftmaxMode)
def test_many_programs_at_once_are_bitwise_repeatable(mode: SoftmaxMode) -> None:
    batch = random_batch([(1, 9000), (1, 33), (300, 2000)], 8, 4, 128, 16, torch.bfloat16)
    workspace = Workspace(4000, DEVICE)
    arguments = (batch.query, batch.keys, batch.values, batch.layout, 0.09, None, None, Softmax(mode))
    first, _ = paged_attention(*arguments, splits=64, workspace=workspace)
    assert relative_error(first, batch.expected(0.09)) < 1e-2
    for _ in range(50):
        assert torch.equal(paged_attention(*arguments, splits=64, workspace=workspace)[0], first)
    assert not workspace.counters(4000).any()


@pytest.mark.gpu
@needs_gpu
def test_a_captured_graph_counts_and_repeats() -> None:
    batch = random_batch([(1, 3000)] * 3, 8, 4, 128, 16, torch.bfloat16)
    workspace = Workspace(100, DEVICE)
    softmax = Softmax(SoftmaxMode.UNIFIED, torch.tensor([300.0] + [0.0] * 31, device=DEVICE))
    arguments = (batch.query, batch.keys, batch.values, batch.layout, 0.09, None, None, softmax)
    expected, _ = paged_attention(*arguments, workspace=workspace)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output, recomputed = paged_attention(*arguments, workspace=workspace)
    workspace.recomputed.zero_()
    for replays in (1, 2):
        output.zero_()
        graph.replay()
        assert torch.equal(output, expected)
        assert recomputed.item() == 3 * replays
