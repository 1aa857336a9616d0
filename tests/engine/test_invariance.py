"""A greedy request's tokens do not depend on what happens around it."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.engine.engine import Engine, EngineConfig
from lapidist.engine.sampling_params import SamplingParams

PAGE_SIZE = 4


def engine(directory: Path, pages: int = 512, **options: object) -> Engine:
    probe = Engine(EngineConfig(directory, dtype="float32", page_size=PAGE_SIZE, kv_cache_bytes=1 << 20))
    page_bytes = (1 << 20) // probe.pool.num_pages
    return Engine(
        EngineConfig(
            directory, dtype="float32", page_size=PAGE_SIZE, kv_cache_bytes=pages * page_bytes, **options
        )
    )


def finish(engine: Engine) -> None:
    while engine.has_work():
        engine.step()


def random_prompts(rng: random.Random, vocab_size: int) -> list[list[int]]:
    """Prompts of which some share a beginning."""
    stems = [[rng.randrange(vocab_size) for _ in range(rng.randint(1, 30))] for _ in range(3)]
    return [
        rng.choice(stems) + [rng.randrange(vocab_size) for _ in range(rng.randint(1, 25))]
        for _ in range(rng.randint(1, 8))
    ]


@pytest.fixture(scope="module")
def alone(llama_directory: Path) -> Engine:
    """Runs every request by itself: no batch, no chunks, no cache, no lack of pages."""
    return engine(llama_directory, max_num_seqs=1, max_num_batched_tokens=512, enable_prefix_caching=False)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    pages=st.integers(26, 80),
    max_num_seqs=st.integers(1, 6),
    extra_tokens=st.integers(0, 30),
    prefix_caching=st.booleans(),
)
def test_tokens_are_those_of_the_request_alone(
    llama_directory: Path,
    alone: Engine,
    seed: int,
    pages: int,
    max_num_seqs: int,
    extra_tokens: int,
    prefix_caching: bool,
) -> None:
    rng = random.Random(seed)
    crowded = engine(
        llama_directory,
        pages,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_seqs + extra_tokens,
        enable_prefix_caching=prefix_caching,
    )
    arrivals = []
    for index, prompt in enumerate(random_prompts(rng, crowded.config.vocab_size)):
        params = SamplingParams(temperature=0, max_tokens=rng.randint(1, 45), ignore_eos=rng.random() < 0.5)
        arrivals.append((str(index), prompt, params))
    requests = {}
    aborted = set()
    pending = list(arrivals)
    while pending or crowded.has_work():
        while pending and rng.random() < 0.4:
            request_id, prompt, params = pending.pop(0)
            requests[request_id] = crowded.prepare(request_id, {"prompt_token_ids": prompt}, params)
            crowded.add(requests[request_id])
        if rng.random() < 0.03 and requests:
            request_id = rng.choice(sorted(requests))
            if crowded.abort_request(request_id) is not None:
                aborted.add(request_id)
        if crowded.has_work():
            crowded.step()
    assert crowded.stats().pages_used == 0
    for request_id, prompt, params in arrivals:
        reference = alone.prepare(request_id, {"prompt_token_ids": prompt}, params)
        alone.add(reference)
        finish(alone)
        expected = reference.output().outputs[0]
        got = requests[request_id].output().outputs[0]
        if request_id in aborted:
            assert got.finish_reason == "abort"
            assert got.token_ids == expected.token_ids[: len(got.token_ids)]
        else:
            assert (got.token_ids, got.text) == (expected.token_ids, expected.text)
            assert got.finish_reason == expected.finish_reason


def test_preemption_and_prefix_hits_really_happen(llama_directory: Path) -> None:
    """The property above would be empty if its schedules never preempted and never hit the cache."""
    crowded = engine(llama_directory, pages=26, max_num_seqs=6, max_num_batched_tokens=16)
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    for index in range(6):
        crowded.add(
            crowded.prepare(str(index), {"prompt_token_ids": [7, 8, 9, 10, 11, 12, index + 20]}, params)
        )
    finish(crowded)
    stats = crowded.stats()
    assert stats.preemptions > 0
    assert stats.prefix_hit_tokens > 0
    assert stats.pages_used == 0


def test_seeded_sampling_does_not_depend_on_the_batch(llama_directory: Path) -> None:
    params = SamplingParams(temperature=1.0, seed=11, max_tokens=30, ignore_eos=True)
    texts = []
    for others in (0, 5):
        crowded = engine(llama_directory, pages=40, max_num_seqs=6, max_num_batched_tokens=16)
        request = crowded.prepare("watched", "the cat", params)
        crowded.add(request)
        for index in range(others):
            other = SamplingParams(temperature=1.0, max_tokens=30, ignore_eos=True)
            crowded.add(crowded.prepare(str(index), f"the dog {index}", other))
        finish(crowded)
        texts.append(request.output().outputs[0].token_ids)
    assert texts[0] == texts[1]
