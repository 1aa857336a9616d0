import json
from pathlib import Path

import pytest

from lapidist.hardware.cpu.profile import write_profile
from tests.cli.command import Lapidist, Result, command
from tests.hardware.cpu.test_cpu import profile


@pytest.fixture
def lapidist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lapidist:
    return command(monkeypatch, capsys)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A measured CPU."""
    file = tmp_path / "cpu.json"
    write_profile(profile(), file)
    return file


def plan(lapidist: Lapidist, *arguments: object, model: str = "tiny") -> Result:
    return lapidist("plan", model, "--trace", "poisson:20", "--requests", 8, *arguments)


def test_a_plan_is_a_table_a_file_and_a_picture(lapidist: Lapidist, machine: Path, tmp_path: Path) -> None:
    numbers, picture = tmp_path / "plan.json", tmp_path / "plan.html"
    result = plan(
        lapidist, "--on", machine, "--recipe", "bf16,rtn-w8a8", "--price", 0.5, "--slo-tpot", 50,
        "--json", numbers, "--plot", picture,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "rtn-w8a8" in result.stdout
    assert "a trace of lengths does not tell" in result.stdout
    content = json.loads(numbers.read_text())
    assert [row["recipe"] for row in content["forecasts"]] == ["bf16", "rtn-w8a8"]
    first = content["forecasts"][0]
    assert first["metrics"]["completed"] == 8
    assert first["metrics"]["goodput_requests_per_second"] is not None
    assert first["dollars_per_million_output_tokens"] > 0
    assert picture.read_text().startswith("<!doctype html>")


def test_rates_and_clients_each_give_a_row(lapidist: Lapidist, machine: Path) -> None:
    rates = json.loads(plan(lapidist, "--on", machine, "--rate", "1,10", "--json", "-").stdout)
    assert [round(row["requests_per_second_offered"]) for row in rates["forecasts"]] == [1, 10]
    clients = json.loads(plan(lapidist, "--on", machine, "--concurrency", "1,4", "--json", "-").stdout)
    assert [row["concurrency"] for row in clients["forecasts"]] == [1, 4]
    assert [row["peak_running"] for row in clients["forecasts"]] == [1, 4]


def test_conversations_are_counted_in_the_models_own_tokens(
    lapidist: Lapidist, machine: Path, tmp_path: Path
) -> None:
    turns = [{"role": "user", "content": "Who was it?"}, {"role": "assistant", "content": "Nobody at all."}]
    (tmp_path / "chat.json").write_text(json.dumps([{"messages": turns}] * 3))
    result = lapidist("plan", "tiny", "--on", machine, "--trace", tmp_path / "chat.json", "--json", "-")
    metrics = json.loads(result.stdout)["forecasts"][0]["metrics"]
    assert metrics["completed"] == 3
    assert 3 * 2 < metrics["prompt_tokens"] < 3 * 12
    shape = lapidist("plan", "llama-3-8b", "--on", machine, "--trace", tmp_path / "chat.json")
    assert shape.returncode == 2
    assert "need a tokenizer" in shape.stderr


def test_a_shared_prefix_is_found_in_the_cache(lapidist: Lapidist, machine: Path) -> None:
    result = plan(lapidist, "--on", machine, "--shared-prefix", 0.5, "--json", "-")
    assert json.loads(result.stdout)["forecasts"][0]["prefix_hit_tokens"] > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--on", "h2000"], "no data sheet of a GPU named 'h2000'; known are"),
        (["--on", "h200", "--backend", "llama.cpp"], "unknown backend 'llama.cpp'"),
        (["--on", "absent.json"], "absent.json: there is no such file"),
        (["--on", ","], "--on: expected names"),
        (["--on", "CPU.json", "--recipe", "int3"], "unknown recipe 'int3'"),
        (["--on", "CPU.json", "--tensor-parallel", "0"], "--tensor-parallel: expected numbers above 0"),
        (["--on", "CPU.json", "--rate", "fast"], "--rate: expected numbers above 0"),
        (["--on", "CPU.json", "--plot", "plan.gif"], ".png, .svg, .pdf, .html"),
        (["--on", "CPU.json", "--trace", "absent.csv"], "absent.csv: cannot be read"),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    lapidist: Lapidist, machine: Path, arguments: list[str], sentence: str
) -> None:
    result = plan(lapidist, *(str(machine) if each == "CPU.json" else each for each in arguments))
    assert result.returncode == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") <= 2
    assert result.stdout == ""


def test_gpus_are_planned_on_and_what_they_lack_is_told(lapidist: Lapidist, tmp_path: Path) -> None:
    own = tmp_path / "small.yaml"
    own.write_text("extends: l40s\nname: small\nmemory_bytes: 12000000000\n")
    arguments = ["--on", f"a100,{own}", "--recipe", "bf16,fp8", "--json", "-"]
    result = plan(lapidist, *arguments, model="llama-3.1-8b")
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    first = content["forecasts"][0]
    assert (first["machine"], first["recipe"], first["metrics"]["completed"]) == ("a100", "bf16", 8)
    assert first["dollars_per_million_output_tokens"] > 0
    assert first["joules_per_output_token"] > 0
    low, high = first["tpot_p50_interval_seconds"]
    assert low < first["metrics"]["tpot"]["p50"] < high
    reasons = {(row["machine"], row["recipe"]): row["reason"] for row in content["refused"]}
    assert "does not compute in fp8" in reasons["a100", "fp8"]
    assert "does not fit" in reasons["small", "bf16"]


def test_mixtures_of_experts_are_planned(lapidist: Lapidist) -> None:
    arguments = ["--on", "h100", "--recipe", "fp8", "--tensor-parallel", "2", "--expert-parallel", "1,2,3"]
    result = plan(lapidist, *arguments, "--json", "-", model="qwen3-30b-a3b")
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert [row["expert_parallel"] for row in content["forecasts"]] == [1, 2]
    assert all(row["metrics"]["tpot"]["p50"] > 0 for row in content["forecasts"])
    assert "must divide the 2 ranks, got 3" in content["refused"][0]["reason"]


def test_experts_of_a_model_without_them_are_refused(lapidist: Lapidist, machine: Path) -> None:
    result = plan(lapidist, "--on", machine, "--expert-parallel", "2")
    assert result.returncode == 2
    assert "has no experts" in result.stderr


@pytest.mark.parametrize("model", ["llama-9", "./absent"])
def test_an_unknown_model_is_told(lapidist: Lapidist, machine: Path, model: str) -> None:
    result = plan(lapidist, "--on", machine, model=model)
    assert result.returncode == 2
    assert "unknown shape" in result.stderr or "no such checkpoint directory" in result.stderr


def test_what_cannot_be_is_told_and_nothing_else_is_left(lapidist: Lapidist, machine: Path) -> None:
    result = plan(lapidist, "--on", machine, "--tensor-parallel", "2", "--json", "-")
    assert result.returncode == 1
    assert "no other devices" in json.loads(result.stdout)["refused"][0]["reason"]
    assert "no other devices" in result.stderr
    big = plan(lapidist, "--on", machine, "--json", "-", model="llama-3-70b")
    assert "does not fit" in json.loads(big.stdout)["refused"][0]["reason"]


def test_a_model_that_was_not_measured_is_told(
    lapidist: Lapidist, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LAPIDIST_CPU_PROFILES", str(tmp_path))
    result = plan(lapidist, "--on", "cpu")
    assert result.returncode == 2
    assert "run lapidist cpu measure" in result.stderr


def test_measuring_into_a_folder_that_is_not_there_is_told(lapidist: Lapidist, tmp_path: Path) -> None:
    result = lapidist("cpu", "measure", "tiny", "--output", tmp_path / "absent" / "cpu.json")
    assert result.returncode == 2
    assert "does not exist" in result.stderr
