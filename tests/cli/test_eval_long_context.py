"""``lapidist eval needle``, ``ruler`` and ``longbench`` as a user types them, on small checkpoints."""

import json
from pathlib import Path

import pytest

from tests.checkpoints import write_random_llama
from tests.cli.command import Lapidist, command
from tests.evaluation.longbench.sample_data import write_sample


@pytest.fixture
def lapidist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lapidist:
    """Runs the ``lapidist`` command in this process."""
    return command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_llama(tmp_path_factory.mktemp("checkpoints") / "llama", layers=2, context=2048)


ALL = "full,gemfilter,snapkv,h2o,streamingllm,fastkv,adaptive"


def test_needle(lapidist: Lapidist, model: Path, tmp_path: Path) -> None:
    result_file, plot, folder = tmp_path / "needle.json", tmp_path / "needle.svg", tmp_path / "replies"
    run = [
        "eval",
        "needle",
        model,
        "--lengths",
        "300,400",
        "--depths",
        "0,100",
        "--methods",
        ALL,
        "--keep",
        "0.5",
    ]
    result = lapidist(*run, "--json", result_file, "--plot", plot, "--results", folder)
    assert result.returncode == 0, result.stderr
    for word in (
        *ALL.split(","),
        "300",
        "400",
        "kept",
        "Clean protocol: chat asked for in the chat template",
    ):
        assert word in result.stdout
    found = json.loads(result_file.read_text())
    assert [method["method"] for method in found["methods"]] == ALL.split(",")
    assert found["settings"]["chat_template"] is True
    full, gemfilter = found["methods"][:2]
    assert full["kept_share"] == 1.0
    assert gemfilter["kept_share"] == pytest.approx(0.5, abs=0.01)
    assert (gemfilter["rows"], gemfilter["columns"]) == (["0%", "100%"], ["300", "400"])
    assert all(len(method["replies"]["300"]) == 2 for method in found["methods"])
    assert plot.read_text().lstrip().startswith("<?xml")
    assert len(list(folder.iterdir())) == 14
    again = lapidist(*run, "--json", "-", "--results", folder)
    assert json.loads(again.stdout) == found


def test_the_published_needle(lapidist: Lapidist, model: Path, tmp_path: Path) -> None:
    essays = tmp_path / "essays"
    essays.mkdir()
    for name in ("b.txt", "a.txt"):
        (essays / name).write_text(f"Essay {name}. The cat sat on the mat. " * 50)
    result = lapidist(
        *("eval", "needle", model, "--protocol", "published", "--lengths", "900", "--depths", "50"),
        *("--haystack", essays, "--json", "-"),
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["settings"]["highest_score"] == pytest.approx(11 / 12)
    assert found["settings"]["chat_template"] is False
    assert found["methods"][0]["rows"] == ["50%"]
    assert "no answer scores more than 91.7" in result.stderr


def test_ruler(lapidist: Lapidist, model: Path, tmp_path: Path) -> None:
    questions = tmp_path / "mine.jsonl"
    questions.write_text(json.dumps({"question": "Who?", "answers": ["x"], "documents": ["x came."]}))
    result = lapidist(
        *(
            "eval",
            "ruler",
            model,
            "--lengths",
            "1500",
            "--tasks",
            "niah_multiquery,fwe,mine",
            "--samples",
            "1",
        ),
        *(
            "--phrasing",
            "plain",
            "--no-chat",
            "--methods",
            "full,streamingllm",
            "--keep",
            "64",
            "--json",
            "-",
        ),
        *("--plot", tmp_path / "ruler.png", "--questions", questions),
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["settings"]["phrasing"] == "plain"
    assert found["settings"]["chat_template"] is False
    assert found["methods"][1]["rows"] == ["niah_multiquery", "fwe", "mine"]
    assert len(found["methods"][1]["replies"]["1500"]) == 4 + 1 + 1
    assert all(reply["kept_tokens"] == 64 for reply in found["methods"][1]["replies"]["1500"][:5])
    assert (tmp_path / "ruler.png").read_bytes().startswith(b"\x89PNG")
    assert "left out" not in result.stderr


def test_ruler_says_what_it_leaves_out(lapidist: Lapidist, model: Path) -> None:
    result = lapidist("eval", "ruler", model, "--lengths", "1000", "--tasks", "fwe", "--samples", "1")
    assert "Question answering (qa_1, qa_2) is left out" in result.stdout
    assert "Phrasing: ruler, in the chat template." in result.stdout


def test_longbench(lapidist: Lapidist, model: Path, tmp_path: Path) -> None:
    data = write_sample(tmp_path / "data", examples=1)
    result = lapidist(
        *("eval", "longbench", model, "--data", data, "--tasks", "hotpotqa,passage_count", "--limit", "1"),
        *(
            "--methods",
            "full,snapkv",
            "--keep",
            "0.5",
            "--json",
            tmp_path / "x.json",
            "--plot",
            tmp_path / "x.png",
        ),
    )
    assert result.returncode == 0, result.stderr
    for word in (
        "hotpotqa",
        "passage_count",
        "average",
        "snapkv",
        "Without a chat template.",
        "Not measured: narrativeqa",
    ):
        assert word in result.stdout
    found = json.loads((tmp_path / "x.json").read_text())
    assert set(found["methods"][0]["scores"]) == {"hotpotqa", "passage_count"}
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["needle", "--lengths", "abc"], "--lengths must be numbers such as 256,1024, got 'abc'"),
        (["needle", "--lengths", "9000"], "longer than the model's context of 2048"),
        (["needle", "--depths", "0,101"], "--depths must be percentages from 0 to 100"),
        (["needle", "--protocol", "best"], "--protocol must be one of clean, published"),
        (["needle", "--style", "poem"], "--style must be one of number, word, sentence, chat"),
        (["needle", "--methods", "full,magic"], "there is no method 'magic'"),
        (["needle", "--keep", "2.5"], "keep must be a share such as 0.1"),
        (["needle", "--plot", "x.bmp"], "a plot is written as .png, .svg, .pdf"),
        (["needle", "--json", "absent/x.json"], "the folder absent does not exist"),
        (["needle", "--haystack", "absent.txt"], "absent.txt does not exist"),
        (["ruler", "--tasks", "magic"], "there is no task 'magic'"),
        (["ruler", "--phrasing", "poem"], "--phrasing must be one of ruler, plain"),
        (["ruler", "--lengths", "100"], "task niah_single_1 does not fit into 100 tokens"),
        (["ruler", "--questions", "absent.json"], "absent.json cannot be read"),
        (["longbench", "--data", "absent"], "absent is no directory"),
    ],
)
def test_mistakes_end_with_one_sentence(
    lapidist: Lapidist, model: Path, arguments: list[str], message: str
) -> None:
    result = lapidist("eval", arguments[0], model, *arguments[1:])
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 3
