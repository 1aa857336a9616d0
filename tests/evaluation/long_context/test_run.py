"""Cases through the engine: order, batches, progress, columns that are known."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lapidist import LLM, SamplingParams
from lapidist.evaluation.long_context.case import Case
from lapidist.evaluation.long_context.methods import parse_methods
from lapidist.evaluation.long_context.run import BATCH, run_cases, run_methods
from lapidist.evaluation.long_context.store import OutcomeStore

FULL, STREAMING = parse_methods("full,streamingllm:keep=32", None)


def score(response: str, expected: Sequence[str]) -> float:
    return float(response == expected[0])


@pytest.fixture(scope="module")
def llm(llama_directory: Path) -> LLM:
    return LLM(llama_directory)


@pytest.fixture(scope="module")
def cases(llm: LLM) -> list[Case]:
    """More than a batch, of different lengths, each with the reply of a request of its own as what is expected."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(BATCH + 3):
        prompt = rng.integers(3, 300, 40 + 7 * index).tolist()
        [output] = llm.generate({"prompt_token_ids": prompt}, SamplingParams(temperature=0, max_tokens=5))
        found.append(Case(f"row {index % 2}", prompt, 5, (output.outputs[0].text,), score))
    return found


def test_replies_belong_to_their_cases(llm: LLM, cases: list[Case]) -> None:
    told: list[tuple[int, int]] = []
    outcomes = run_cases(llm, FULL, cases, lambda done, total: told.append((done, total)))
    assert [outcome.score for outcome in outcomes] == [1.0] * len(cases)
    assert [outcome.row for outcome in outcomes] == [case.row for case in cases]
    assert [outcome.prompt_tokens for outcome in outcomes] == [len(case.prompt) for case in cases]
    assert all(outcome.kept_tokens == outcome.prompt_tokens for outcome in outcomes)
    assert told == [(0, BATCH + 3), (BATCH, BATCH + 3), (BATCH + 3, BATCH + 3)]


def test_filters_say_what_they_kept(llm: LLM, cases: list[Case]) -> None:
    outcomes = run_cases(llm, STREAMING, cases[:4])
    assert [outcome.kept_tokens for outcome in outcomes] == [32] * 4


def test_methods_share_cases_and_known_columns_are_not_made(
    llm: LLM, cases: list[Case], tmp_path: Path
) -> None:
    made: list[str] = []

    def cases_of(column: str) -> list[Case]:
        made.append(column)
        return cases[:2]

    store = OutcomeStore(tmp_path, {})
    first = run_methods(llm, [FULL, STREAMING], ["40", "47"], cases_of, store)
    assert made == ["40", "47"]
    assert [result.method for result in first] == [FULL, STREAMING]
    again = run_methods(llm, [FULL, STREAMING], ["40", "47"], cases_of, store)
    assert made == ["40", "47"]
    assert again == first
