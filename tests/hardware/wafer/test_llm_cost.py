"""Whole models at full scale, against Table 2 of WaferLLM (arXiv 2502.04563) and against their own parts."""

from dataclasses import replace

import pytest

from lapidist.hardware.wafer.cost import COMPONENTS, CostModel
from lapidist.hardware.wafer.cost_constants import calibrated_constants
from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.llm_cost import LLMCost, component_shares
from lapidist.hardware.wafer.published import SYSTEM, published_models, published_tables
from lapidist.hardware.wafer.regions import Grid
from lapidist.hardware.wafer.reproduction import largest_request_error, table_2_requests
from lapidist.models.config import ModelConfig

WSE2 = load_device("wse-2")
MODEL = CostModel(calibrated_constants("wse-2"), 4)
LLAMA3 = published_models()["LLaMA3-8B"]
COMPLETE = LLMCost(LLAMA3, WSE2, MODEL)
RELEASED = replace(COMPLETE, kernels="released")


def table_2_errors(name: str) -> list[float]:
    """Relative errors of whole requests, nothing fitted to Table 2."""
    table = published_tables()["table_2"]
    grids = {phase: Grid(side, side) for phase, side in table["grids"][name].items()}
    llm = LLMCost(published_models()[name], WSE2, MODEL, "released")
    costs = [llm.request(prompt, output, **grids) for prompt, output in table["requests"]]
    return [
        cost.output_tokens_per_second / rate - 1
        for cost, rate in zip(costs, table["rates"][name][SYSTEM], strict=True)
    ]


def test_table_2_without_refitting() -> None:
    assert max(map(abs, table_2_errors("LLaMA3-8B"))) <= 0.10
    assert max(map(abs, table_2_errors("LLaMA2-13B"))) <= 0.16


def test_intervals_hold_the_requests_of_table_2() -> None:
    """Their width is that of the worst of these eight; files of a user's own state none."""
    table = published_tables()["table_2"]
    assert largest_request_error(WSE2, MODEL) == pytest.approx(MODEL.constants.relative_error, rel=0.01)
    for name, costs in table_2_requests(WSE2, MODEL).items():
        for cost, rate in zip(costs, table["rates"][name][SYSTEM], strict=True):
            low, high = cost.interval_seconds
            assert 0.999 * low <= cost.output / rate <= 1.001 * high
    unknown = replace(MODEL, constants=MODEL.constants.with_values({"hop": 1.5}, "test"))
    own = replace(COMPLETE, model=unknown).request(100, 10, Grid(360, 360), Grid(360, 360))
    assert own.interval_seconds is None


@pytest.mark.parametrize(
    "name",
    ["llama-2-7b", "llama-3.1-8b", "mistral-7b", "qwen2.5-7b", "qwen3-8b", "phi-3-mini-4k", "gemma-2-9b"],
)
def test_every_family_is_costed(name: str) -> None:
    config = ModelConfig.of_shape(name)
    llm = LLMCost(config, WSE2, MODEL)
    cost = llm.request(1024, 64, Grid(720, 720), Grid(360, 360))
    assert 0 < cost.decode.layer.cycles < cost.prefill.layer.cycles
    plain = replace(
        config, qkv_bias=False, qk_norm=False, sandwich_norms=False, attention_softcap=None,
        final_softcap=None, hidden_act="silu",
    )  # fmt: skip
    less = replace(llm, shape=plain).request(1024, 64, Grid(720, 720), Grid(360, 360))
    if plain == config:
        assert cost.cycles == less.cycles
    else:
        assert less.prefill.cycles < cost.prefill.cycles
        assert less.decode.cycles < cost.decode.cycles


def test_decode_rate_that_table_2_implies() -> None:
    """2756 and 2729 tokens a second of layers follow from the four rows of LLaMA3-8B on 360 x 360."""
    decode = RELEASED.decode(4096, Grid(360, 360))
    rate = WSE2.clock_hz / (decode.layers * decode.layer.cycles)
    assert rate == pytest.approx((2756 + 2729) / 2, rel=0.03)


def test_one_request_is_the_sum_of_its_parts() -> None:
    cost = COMPLETE.request(2000, 100, Grid(600, 600), Grid(360, 400))
    parts = cost.prefill.cycles + cost.transition.cycles + 100 * cost.decode.cycles
    assert cost.cycles == pytest.approx(parts)
    assert cost.seconds == pytest.approx(parts / 1.1e9)
    assert cost.joules == pytest.approx(cost.seconds * 15000)
    assert cost.time_to_first_token_seconds < cost.seconds
    for phase in (cost.prefill, cost.decode):
        assert sum(phase.by_component.values()) == pytest.approx(phase.cycles)
        assert sum(component_shares(phase).values()) == pytest.approx(1)
        assert set(phase.by_component) == {*COMPONENTS, "hand-over between regions"}


def test_complete_layers_cost_more_than_the_released_kernels() -> None:
    """The released kernels know one head and half of SiLU; what they leave out takes time."""
    assert COMPLETE.prefill(4096, Grid(720, 720)).cycles > RELEASED.prefill(4096, Grid(720, 720)).cycles
    assert COMPLETE.decode(4096, Grid(360, 360)).cycles > RELEASED.decode(4096, Grid(360, 360)).cycles


def test_more_context_costs_more() -> None:
    cycles = [COMPLETE.decode(context, Grid(360, 360)).cycles for context in (360, 3600, 36000)]
    assert cycles == sorted(cycles)


def test_regions_grow_as_memory_shrinks() -> None:
    grid = Grid(360, 360)
    few, many = COMPLETE.decode(4096, grid), replace(COMPLETE, code_bytes=16000).decode(4096, grid)
    assert few.regions < many.regions
    assert few.bytes_per_core > many.bytes_per_core
    assert few.hand_over_cycles < many.hand_over_cycles
    assert few.fits
    assert not many.fits


def test_weights_move_only_if_two_copies_do_not_fit() -> None:
    small = COMPLETE.transition(4096, Grid(660, 660), Grid(360, 360))
    large = replace(COMPLETE, shape=published_models()["LLaMA2-13B"]).transition(
        4096, Grid(750, 750), Grid(375, 375)
    )
    assert not small.weights_move
    assert small.moved_bytes == 4096 * 2 * 1024 * 2 * 32
    assert large.weights_move
    assert large.moved_bytes > 25e9
    assert small.cycles < large.cycles


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernels": "fast"}, "unknown kernels 'fast'"),
        ({"code_bytes": 45056}, "code_bytes must be from 0 to below 45056"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(COMPLETE, **change)  # type: ignore[arg-type]


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"one layer with 4096 tokens in decode needs .* 45056 for data"):
        COMPLETE.decode(4096, Grid(30, 30))
    with pytest.raises(ValueError, match="do not fit on Cerebras WSE-2"):
        COMPLETE.prefill(4096, Grid(800, 800))
    with pytest.raises(ValueError, match="square grids, got 360x400"):
        RELEASED.prefill(512, Grid(360, 400))
    with pytest.raises(ValueError, match="at least one token"):
        COMPLETE.request(0, 5, Grid(360, 360), Grid(360, 360))
