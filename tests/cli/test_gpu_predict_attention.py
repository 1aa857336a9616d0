import json

import pytest
from typer.testing import CliRunner

from lapidist.cli.main import app


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["gpu", "predict-attention", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_has_every_kernel_with_energy_as_power_times_time() -> None:
    found = json.loads(_run("h200", "1,16,256", "4096", "--json"))
    assert found["gpu"] == "h200"
    assert [row["batch"] for row in found["kernels"]] == [1, 16, 256]
    for row in found["kernels"]:
        assert row["low_seconds"] <= row["seconds"] <= row["high_seconds"]
        assert row["joules"] == pytest.approx(row["watts"] * row["seconds"], rel=1e-6)


def test_table_and_prefill() -> None:
    text = _run("l40s", "4", "2048", "--query", "2048", "--heads", "64", "--kv", "fp8")
    assert "L40S" in text
    assert "2048" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("h200", "x", "10"), "BATCH is 'x', not whole numbers"),
        (("h200", "1,2", "10,20,30"), "lists of the same length"),
        (("h200", "1", "10", "--query", "11"), "query_length must not exceed"),
        (("h200", "1", "10", "--kv", "int3"), "--kv is 'int3'"),
        (("h200", "1", "10", "--backend", "ollama"), "not measured with backend 'ollama'"),
        (("gtx-9", "1", "10"), "no data sheet"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CliRunner().invoke(app, ["gpu", "predict-attention", *arguments], catch_exceptions=False)
