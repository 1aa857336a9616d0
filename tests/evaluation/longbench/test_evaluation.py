"""The whole of it on a generated sample."""

import json
from pathlib import Path

import pytest

from lapidist.evaluation.long_context.case import Outcome
from lapidist.evaluation.long_context.evaluation_run import EvaluationRun
from lapidist.evaluation.long_context.methods import parse_methods
from lapidist.evaluation.long_context.result import MethodResult
from lapidist.evaluation.longbench.data import read_task
from lapidist.evaluation.longbench.evaluation import (
    LongBenchSettings,
    evaluate_longbench,
    longbench_cases,
    task_scores,
)
from lapidist.evaluation.longbench.report import longbench_json
from lapidist.evaluation.longbench.tasks import GEMFILTER_TASKS, TASKS
from lapidist.models.tokenizer import Tokenizer
from tests.checkpoints import write_random_llama
from tests.evaluation.longbench.sample_data import write_sample

FULL = parse_methods("full", None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its context holds the replies of 512 tokens."""
    return write_random_llama(tmp_path_factory.mktemp("checkpoints") / "llama", layers=1, context=700)


def test_every_task_runs_and_says_how(model: Path, tmp_path: Path) -> None:
    data = write_sample(tmp_path / "data", examples=1)
    for chat, tasks in ((False, tuple(TASKS)), (True, ("hotpotqa", "trec"))):
        folder = tmp_path / f"results-{chat}"
        methods = parse_methods("full,streamingllm" if chat else "full", 0.5)
        evaluation = evaluate_longbench(
            EvaluationRun(model, methods, folder), LongBenchSettings(data, tasks, chat=chat)
        )
        content = json.loads(longbench_json(evaluation))
        assert content["settings"]["chat_template"] is chat
        for method in content["methods"]:
            assert list(method["scores"]) == list(tasks)
            assert method["average"] == pytest.approx(sum(method["scores"].values()) / len(tasks), abs=0.006)
        files = sorted(folder.iterdir())
        assert len(files) == len(methods) * len(tasks)
        assert all(json.loads(file.read_text())["settings"]["chat_template"] is chat for file in files)


def test_defaults_and_limits(model: Path, tmp_path: Path) -> None:
    data = write_sample(tmp_path, examples=2)
    (tmp_path / "narrativeqa.jsonl").unlink()
    evaluation = evaluate_longbench(
        EvaluationRun(model, FULL), LongBenchSettings(data, limit=1, max_tokens=100)
    )
    [result] = evaluation.results
    assert result.columns == GEMFILTER_TASKS[1:]
    assert all(len(outcomes) == 1 for outcomes in result.outcomes.values())
    assert all(each.prompt_tokens <= 100 for own in result.outcomes.values() for each in own)
    assert "Not measured: narrativeqa." in evaluation.notes


def test_replies_are_scored_against_the_best_answer_and_by_their_first_line(
    model: Path, tmp_path: Path
) -> None:
    data, tokenizer = write_sample(tmp_path), Tokenizer.from_directory(model)

    def score(task: str, reply: str) -> float:
        case = longbench_cases(TASKS[task], read_task(data, task, 1), tokenizer, 200, chat=False)[0]
        assert case.max_new_tokens == TASKS[task].max_new_tokens
        return case.score(reply, case.expected)

    assert score("hotpotqa", "ran") == score("hotpotqa", "sat on the mat") == 1
    assert score("triviaqa", "\nran\nPassage: the cat sat") == 1
    assert score("hotpotqa", "ran\nPassage: the cat sat") < 1
    assert score("trec", "Food\nAnimal") == 1
    assert score("passage_count", "3") == 1
    assert score("lcc", "ran") == 1


def test_scores_are_percent_of_the_mean() -> None:
    outcomes = {"qasper": [Outcome("score", score, "", ("a",), 10, 10) for score in (1.0, 0.0, 0.0)]}
    assert task_scores(MethodResult(FULL[0], outcomes)) == {"qasper": 33.33}


def test_what_cannot_be_run(model: Path, llama_directory: Path, tmp_path: Path) -> None:
    data = write_sample(tmp_path, examples=1)
    with pytest.raises(ValueError, match="there is no task 'magic'"):
        evaluate_longbench(EvaluationRun(model, FULL), LongBenchSettings(data, ("magic",)))
    with pytest.raises(ValueError, match="at least 64 tokens, got 5"):
        evaluate_longbench(EvaluationRun(model, FULL), LongBenchSettings(data, ("trec",), max_tokens=5))
    with pytest.raises(ValueError, match="a context of 512 tokens is too short for task gov_report"):
        evaluate_longbench(EvaluationRun(llama_directory, FULL), LongBenchSettings(data, ("gov_report",)))
