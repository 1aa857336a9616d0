from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.hardware.gpu.accuracy import accuracy
from lapidist.hardware.gpu.attention_law import AttentionShapes, lower_bound_seconds
from lapidist.hardware.gpu.attention_measurements import read_attention_table, shapes_of
from lapidist.hardware.gpu.attention_phase import Phase
from lapidist.hardware.gpu.attention_predictor import attention_predictor
from lapidist.hardware.gpu.data_sheet import load_data_sheet

_TABLE = Path(__file__).parents[4] / "shared" / "data" / "gemm_predictor" / "aiconfigurator_attention.parquet"
_GPUS = ["h200", "h100", "b200", "l40s", "a100", "rtx-pro-6000", "rtx-4090", "a10", "b300"]


@settings(max_examples=80, deadline=None)
@given(
    gpu=st.sampled_from(_GPUS),
    batch=st.integers(1, 4096),
    query=st.sampled_from([1, 1, 7, 128, 4096, 100_000]),
    past=st.integers(0, 1 << 20),
    heads=st.integers(1, 16),
    kv_heads=st.integers(1, 16),
    head_dim=st.sampled_from([64, 96, 128, 192, 256, 512]),
    window=st.sampled_from([0, 1, 128, 4096]),
    compute_bytes=st.sampled_from([1, 2]),
    kv_bytes=st.sampled_from([0.53, 1, 2]),
)
def test_never_faster_than_the_roofline_and_the_interval_holds_the_answer(
    gpu: str,
    batch: int,
    query: int,
    past: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    window: int,
    compute_bytes: float,
    kv_bytes: float,
) -> None:
    shapes = AttentionShapes.of(
        batch, query, query + past, heads * kv_heads, kv_heads, head_dim, window, compute_bytes, kv_bytes
    )
    answer = attention_predictor(gpu).predict_shapes(shapes)
    bound = lower_bound_seconds(shapes, load_data_sheet(gpu))
    assert np.isfinite(answer.high)
    assert 0 < bound <= answer.low <= answer.seconds <= answer.high


def test_what_was_never_measured_is_said_so() -> None:
    h200 = attention_predictor("h200")
    near = h200.predict(32, 1, 4096, 32, 8, 128)
    far = h200.predict(32, 1, 1 << 22, 32, 8, 128)
    assert not near.low_confidence
    assert near.notes == ()
    assert far.low_confidence
    assert far.high / far.seconds - 1 > 5 * (near.high / near.seconds - 1)  # downwards the roofline bounds it
    assert h200.predict(1, 512, 4096, 32, 8, 128).low_confidence  # prefill on cached context
    assert h200.predict(32, 1, 4096, 32, 8, 128, kv_bytes=0.53).low_confidence
    other = attention_predictor("rtx-4090").predict(32, 1, 4096, 32, 8, 128)
    assert other.low_confidence
    assert "efficiencies of l40s" in other.notes[0]


def test_more_work_takes_longer() -> None:
    h200 = attention_predictor("h200")
    contexts = h200.predict(64, 1, 2 ** np.arange(10, 17), 32, 8, 128).seconds
    prompts = h200.predict(1, 2 ** np.arange(9, 15), 2 ** np.arange(9, 15), 32, 8, 128).seconds
    assert (np.diff(contexts) > 0).all()
    assert (np.diff(prompts) > 0).all()
    windowed = h200.predict(4, 8192, 8192, 32, 8, 128, window=[0, 128]).seconds
    assert windowed[1] < windowed[0] / 3


def test_a_slower_memory_decodes_slower() -> None:
    times = [
        attention_predictor(gpu).predict(64, 1, 8192, 32, 8, 128).seconds for gpu in ("b200", "h200", "l40s")
    ]
    assert times[0] < times[1] < times[2]


def test_shapes_broadcast_and_the_same_question_gives_the_same_bits() -> None:
    h200 = attention_predictor("h200")
    answer = h200.predict([[1], [8]], [1, 1, 256], [4096, 100, 256], 32, 8, 128)
    assert answer.seconds.shape == answer.low_confidence.shape == (2, 3)
    again = h200.predict([[1], [8]], [1, 1, 256], [4096, 100, 256], 32, 8, 128)
    assert (answer.seconds == again.seconds).all()
    alone = h200.predict(8, 256, 256, 32, 8, 128)
    assert alone.seconds == pytest.approx(float(answer.seconds[1, 2]), rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch must be"),
        ({"kv_length": 10, "query_length": 11}, "query_length must not exceed"),
        ({"heads": 4, "kv_heads": 8}, "kv_heads must not exceed"),
        ({"head_dim": float("nan")}, "head_dim must be"),
        ({"compute_bytes": 3}, "attention computes in"),
    ],
)
def test_impossible_kernels_are_refused(change: dict[str, float], message: str) -> None:
    arguments: dict[str, float] = {
        "batch": 1,
        "query_length": 1,
        "kv_length": 64,
        "heads": 8,
        "kv_heads": 8,
        "head_dim": 128,
    }
    with pytest.raises(ValueError, match=message):
        attention_predictor("h200").predict(**(arguments | change))


def test_unknown_backends_and_versions_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="known here are TRTLLM, VLLM"):
        attention_predictor("h200", "sglang")
    with pytest.raises(ValueError, match=r"version '9'; known here are 0\.22\.0"):
        attention_predictor("h200", "vllm", "9")


@pytest.mark.parametrize("gpu", ["h200", "l40s", "b200"])
@pytest.mark.parametrize(("phase", "mape"), [("prefill", 0.03), ("decode", 0.05)])
def test_the_shipped_models_know_what_they_were_fitted_on(gpu: str, phase: Phase, mape: float) -> None:
    """Not a measure of accuracy, which the benchmark takes on held-out head configurations: a check of the file."""
    if not _TABLE.exists():
        pytest.skip(f"{_TABLE} is not there")
    table = read_attention_table(_TABLE)
    systems = {"h200": "h200_sxm", "l40s": "l40s", "b200": "b200_sxm"}
    rows = table[
        (table["system"] == systems[gpu]) & (table["phase"] == phase) & (table["version"] == "1.3.0rc20")
    ]
    rows = rows.sample(4000, random_state=0)
    answer = attention_predictor(gpu, "trtllm").predict_shapes(shapes_of(rows), phase)
    found = accuracy(rows["seconds"], answer.seconds)
    assert found.mape < mape
    inside = (rows["seconds"] >= answer.low) & (rows["seconds"] <= answer.high)
    assert 0.88 < inside.mean() < 0.995


def test_borrowed_efficiencies_scale_with_the_data_sheet() -> None:
    h200 = load_data_sheet("h200")
    half = replace_bandwidth(h200.model_copy(update={"name": "h200-half"}), 0.5)
    full = attention_predictor("h200").predict(128, 1, 16384, 32, 8, 128).seconds
    slow = attention_predictor(half).predict(128, 1, 16384, 32, 8, 128).seconds
    assert 1.5 < slow / full < 2.5


def replace_bandwidth(sheet, factor: float):  # type: ignore[no-untyped-def]
    return sheet.model_copy(update={"memory_bytes_per_second": sheet.memory_bytes_per_second * factor})


def test_law_counts_causal_pairs_as_the_definition_does() -> None:
    for query, kv, window in ((1, 10, 0), (5, 5, 0), (5, 9, 3), (4, 4, 1), (7, 20, 100)):
        shapes = AttentionShapes.of(1, query, kv, 1, 1, 64, window)
        seen = sum(
            1
            for position in range(kv - query, kv)
            for other in range(position + 1)
            if window == 0 or other > position - window
        )
        assert shapes.pairs == seen


def test_replacing_the_sheet_keeps_the_model() -> None:
    predictor = attention_predictor("h200")
    slower = replace(predictor, sheet=load_data_sheet("h100"))
    assert slower.borrowed
