import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lapidist.models.checkpoint_tensors import checkpoint_tensors
from lapidist.models.config import ModelConfig
from lapidist.models.shapes import shape_config
from lapidist.planner.machine import Machine
from lapidist.planner.memory_fit import fit_memory, kv_bytes_per_token, weight_bytes
from lapidist.planner.pareto import pareto_front
from lapidist.planner.plan import Forecast, Option, PlanSettings, Refusal, Traffic, plan
from lapidist.planner.plots import plot_plan
from lapidist.planner.recipes import plan_recipe
from lapidist.planner.report import on_front, plan_to_json, print_plan
from lapidist.workload.serving_metrics import Objective
from lapidist.workload.trace import TraceRequest
from tests.planner.machines import BF16, TINY_SHAPE, Metronome, Roofline

LLAMA = ModelConfig.of_shape("llama-3-8b")
OFFLINE = Traffic(tuple(TraceRequest(0.0, 64 + index, 16) for index in range(20)), None)


def machine(memory_bytes: int = 80 * 10**9, price: float | None = 3.6, **hardware: Any) -> Machine:
    return Machine(Roofline(**hardware), memory_bytes, price, idle_watts=50.0)


def forecasts(*machines: Machine, traffic: Traffic = OFFLINE, **settings: Any) -> list[Forecast]:
    choices = [Option(each, BF16, 1) for each in machines]
    found, refusals = plan(TINY_SHAPE, choices, [traffic], PlanSettings(**settings))
    assert not refusals
    return found


@pytest.mark.parametrize("shape", ["llama-3-8b", "qwen2.5-0.5b", "gemma-2-2b", "qwen3-8b", "phi-3-mini-4k"])
def test_weights_are_those_of_the_checkpoint(shape: str) -> None:
    """Qwen's QK norms, a few hundred bytes per layer, are counted per head in a step."""
    stored = sum(tensor.elements for tensor in checkpoint_tensors(shape_config(shape)))
    assert weight_bytes(ModelConfig.of_shape(shape), BF16) == pytest.approx(2 * stored, rel=1e-3)


def test_memory_by_hand() -> None:
    """Llama-3-8B: 16.06 GB of weights; a token takes 2 x 32 layers x 8 heads x 128 x 2 bytes."""
    assert kv_bytes_per_token(LLAMA, BF16) == 131072
    assert kv_bytes_per_token(LLAMA, BF16, tensor_parallel=4) == 131072 // 4
    fit = fit_memory(LLAMA, BF16, 1, 40 * 10**9, max_num_seqs=256, max_num_batched_tokens=2048)
    assert fit.weight_bytes == pytest.approx(16.06e9, rel=1e-3)
    left = 40e9 - fit.weight_bytes - fit.activation_bytes
    assert fit.kv_capacity_tokens == pytest.approx(left / 131072, abs=16)
    assert fit.max_batch(1000) == fit.kv_capacity_tokens // 1000


def test_four_bits_leave_room_for_more() -> None:
    sizes: dict[str, Any] = {"max_num_seqs": 64, "max_num_batched_tokens": 512}
    plain = fit_memory(LLAMA, BF16, 1, 24 * 10**9, **sizes)
    cut = fit_memory(LLAMA, plan_recipe("qoq-g128", LLAMA), 1, 24 * 10**9, **sizes)
    assert cut.weight_bytes < 0.4 * plain.weight_bytes
    assert cut.kv_capacity_tokens > 6 * plain.kv_capacity_tokens


def test_what_does_not_fit_is_refused_with_the_sizes() -> None:
    with pytest.raises(ValueError, match=r"does not fit: 16\.1 GB of weights"):
        fit_memory(LLAMA, BF16, 1, 16 * 10**9, max_num_seqs=64, max_num_batched_tokens=512)


def test_price_and_energy_by_hand() -> None:
    """Twenty answers of 16 tokens on a machine that takes a second per step."""
    slow = Machine(Metronome(), 80 * 10**9, dollars_per_hour=3.6, idle_watts=50.0)
    late = Traffic((TraceRequest(10.0, 8, 5),), 1.0)
    [forecast] = forecasts(slow, traffic=late)
    assert forecast.result.duration_seconds == pytest.approx(15, rel=0.01)
    assert forecast.dollars_per_million_output_tokens == pytest.approx(1e6 * 15 * 3.6 / 3600 / 5, rel=0.01)
    assert forecast.dollars_per_million_tokens == pytest.approx(1e6 * 15 * 3.6 / 3600 / 13, rel=0.01)
    assert forecast.joules_per_output_token == pytest.approx((5 * 100 + 10 * 50) / 5, rel=0.01)
    assert forecast.busy_share == pytest.approx(1 / 3, rel=0.01)


def test_all_devices_are_paid_for() -> None:
    two = Option(machine(), BF16, 2)
    found, _ = plan(TINY_SHAPE, [Option(machine(), BF16, 1), two], [OFFLINE], PlanSettings())
    one, both = found
    ratio = both.result.duration_seconds / one.result.duration_seconds
    assert both.dollars_per_million_output_tokens == pytest.approx(
        2 * ratio * (one.dollars_per_million_output_tokens or 0)
    )
    assert both.fit.weight_bytes < one.fit.weight_bytes


def test_a_faster_machine_is_cheaper_at_the_same_price() -> None:
    slow, fast = forecasts(machine(), machine(speed=2.0))
    assert fast.metrics.output_tokens_per_second > 1.9 * slow.metrics.output_tokens_per_second
    assert (fast.dollars_per_million_output_tokens or 0) < (slow.dollars_per_million_output_tokens or 0)
    assert on_front([slow, fast]) == {1}


def test_goodput_and_price_follow_the_settings() -> None:
    strict, lax = (
        forecasts(machine(), objective=Objective(tpot_seconds=limit), dollars_per_hour=7.2)[0]
        for limit in (1e-9, 1e9)
    )
    assert strict.metrics.goodput_requests_per_second == 0
    assert lax.metrics.objective_met == 1
    plain = forecasts(machine())[0]
    assert lax.dollars_per_million_output_tokens == pytest.approx(
        2 * (plain.dollars_per_million_output_tokens or 0)
    )


def test_what_cannot_be_is_told_beside_what_can() -> None:
    small = machine(memory_bytes=10**9)
    odd = Option(machine(), BF16, 3)
    found, refusals = plan(
        TINY_SHAPE, [Option(machine(), BF16, 1), Option(small, BF16, 1), odd], [OFFLINE], PlanSettings()
    )
    assert len(found) == 1
    assert [refusal.option.tensor_parallel for refusal in refusals] == [1, 3]
    assert "does not fit" in refusals[0].reason
    assert "does not divide over 3 ranks" in refusals[1].reason


def test_the_range_of_tpot_is_as_wide_as_that_of_a_step() -> None:
    [forecast] = forecasts(machine())
    assert forecast.metrics.tpot is not None
    median = forecast.metrics.tpot.p50
    assert forecast.tpot_interval_seconds == pytest.approx((0.9 * median, 1.2 * median))
    [without] = forecasts(Machine(Metronome(), 80 * 10**9))
    assert without.tpot_interval_seconds is None


def test_parts_add_up_to_the_busy_time() -> None:
    for forecast in forecasts(machine(), machine(speed=3.0)):
        assert sum(forecast.seconds_by_part.values()) == pytest.approx(forecast.result.busy_seconds)


def test_the_report_names_everything() -> None:
    found = forecasts(machine(), machine(speed=2.0, name="faster"))
    refusal = Refusal(Option(machine(name="small"), BF16, 2), "does not fit [really]")
    out = io.StringIO()
    print_plan(found, [refusal], Console(width=200, file=out))
    text = out.getvalue()
    assert re.search(r"^\* +faster", text, re.MULTILINE)
    assert "2 x small, bf16: does not fit [really]" in text
    content = json.loads(plan_to_json("model", {"trace": "t"}, found, [refusal]))
    assert [row["pareto"] for row in content["forecasts"]] == [False, True]
    assert content["forecasts"][0]["metrics"]["completed"] == 20
    assert content["refused"][0]["reason"] == "does not fit [really]"


def test_without_price_and_power_there_are_dashes_not_numbers() -> None:
    [forecast] = forecasts(machine(price=None))
    unknown = replace(forecast, joules_per_output_token=float("nan"), average_watts=float("nan"))
    row = json.loads(plan_to_json("model", {}, [unknown], []))["forecasts"][0]
    assert row["dollars_per_million_output_tokens"] is None
    assert row["joules_per_output_token"] is None


@pytest.mark.parametrize("suffix", [".png", ".svg", ".html"])
@pytest.mark.parametrize("price", [2.0, None])
def test_pictures_are_written_whole(tmp_path: Path, suffix: str, price: float | None) -> None:
    found = forecasts(machine(price=price), machine(speed=2.0, name="faster </script>", price=price))
    file = tmp_path / f"plan{suffix}"
    plot_plan(found, file, "title <b>")
    assert file.stat().st_size > 5000
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
    if suffix == ".html":
        page = file.read_text()
        assert page.count("<script") == page.count("</script>") == 1
        assert "http" not in page.split("</svg>")[1]
        assert 'id="forecast-1"' in page
        assert "title &lt;b&gt;" in page


def test_an_unknown_picture_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf, \.html"):
        plot_plan(forecasts(machine()), tmp_path / "plan.gif", "title")


def test_equal_points_are_both_on_the_front() -> None:
    assert pareto_front([(1, 1), (1, 1), (2, 2)]) == [0, 1]
    assert pareto_front([]) == []
