"""Sequences that are begun and continued, as benchmarks do, yield the tokens of an uninterrupted run."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")

from benchmarks.peers.run_lapidist import Lapidist
from benchmarks.peers.run_llama_cpp import LlamaCpp
from benchmarks.peers.write_gguf import write_gguf
from tests.peers.small_llama import write_small_llama


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("concurrent")
    write_gguf(write_small_llama(folder / "model"), folder / "model.gguf")
    return folder / "model"


@pytest.mark.parametrize("unified", [False, True])
@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
def test_llama_cpp_continues_every_sequence(checkpoint: Path, kv_type: str, unified: bool) -> None:
    peer = LlamaCpp(
        str(checkpoint.with_suffix(".gguf")), 1, 4 * 1024, sequences=4, unified=unified, kv_type=kv_type
    )
    first, other = (torch.randint(0, 512, (length,)).tolist() for length in (600, 40))
    prompts = [first, other, first]
    expected = [peer.greedy([prompt], [7])[0] for prompt in prompts]
    assert peer.begin_seconds(prompts) > 0
    assert peer.continue_tokens_per_second(2) > 0
    assert peer.continue_tokens_per_second(4) > 0
    found = peer.begun()
    assert [len(tokens) for tokens in found] == [7, 7, 7]
    assert found[0] == found[2]  # equal prompts, one of them a copy of the other's state
    assert [tokens[0] for tokens in found] == [tokens[0] for tokens in expected]
    same = sum(a == b for a, b in zip(expected, found, strict=True))
    assert same >= 1  # sums in another order may turn a near tie around


def test_lapidist_continues_every_sequence(checkpoint: Path) -> None:
    ours = Lapidist(str(checkpoint), 1, context=1024, sequences=3, kv_cache_bytes=1 << 24)
    prompts = [torch.randint(0, 512, (length,)).tolist() for length in (300, 5, 400)]
    assert ours.begin_seconds(prompts) > 0
    assert ours.continue_tokens_per_second(5) > 0
    assert ours.decode_tokens_per_second(prompts[0], 4) > 0  # ends those begun
    assert ours.batch_decode_tokens_per_second(prompts, 4) > 0


def test_lapidist_refuses_to_count_steps_that_did_not_decode_all(checkpoint: Path) -> None:
    ours = Lapidist(str(checkpoint), 1, context=64, sequences=2, kv_cache_bytes=1 << 24)
    ours.begin_seconds([[1] * 32, [2] * 60])
    with pytest.raises(SystemExit, match="larger KV cache or context"):
        ours.continue_tokens_per_second(8)
