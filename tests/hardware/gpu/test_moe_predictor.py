from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.hardware.gpu.accuracy import accuracy
from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.moe_fit import read_moe_table, terms_of_table
from lapidist.hardware.gpu.moe_law import FORMATS, MoEShapes, moe_terms
from lapidist.hardware.gpu.moe_predictor import moe_predictor

_TABLE = Path(__file__).parents[4] / "shared" / "data" / "gemm_predictor" / "aiconfigurator_moe.parquet"


@settings(max_examples=60, deadline=None)
@given(
    gpu=st.sampled_from(["h200", "h100", "l40s", "a100", "b200"]),
    dtype=st.sampled_from(sorted(FORMATS)),
    tokens=st.integers(1, 1 << 20),
    hidden=st.integers(64, 16384),
    inner=st.integers(64, 32768),
    experts=st.integers(1, 512),
    top_k=st.integers(1, 16),
    ranks=st.sampled_from([1, 2, 8]),
)
def test_never_faster_than_its_bound_and_always_finite(
    gpu: str, dtype: str, tokens: int, hidden: int, inner: int, experts: int, top_k: int, ranks: int
) -> None:
    top_k, expert_parallel = min(top_k, experts), min(ranks, experts)
    answer = moe_predictor(gpu).predict(
        tokens, hidden, inner, top_k, experts, ranks, expert_parallel, dtype=dtype
    )
    shapes = MoEShapes.of(tokens, hidden, inner, top_k, experts, ranks, expert_parallel)
    bound = moe_terms(shapes, dtype, load_data_sheet(gpu)).bound
    assert np.isfinite(answer.high).all()
    assert (bound <= answer.low).all()
    assert (answer.low <= answer.seconds).all()
    assert (answer.seconds <= answer.high).all()


def test_more_tokens_and_fewer_ranks_take_longer() -> None:
    h200 = moe_predictor("h200")
    by_tokens = h200.predict([16, 256, 4096, 16384], 4096, 1536, 8, 128).seconds
    assert (np.diff(by_tokens) > 0).all()
    by_ranks = h200.predict(1024, 4096, 1536, 8, 128, expert_parallel=[1, 2, 4, 8]).seconds
    assert (np.diff(by_ranks) < 0).all()


def test_unmeasured_gpus_and_formats_are_said_to_be_so() -> None:
    assert not moe_predictor("h200").predict(64, 4096, 1536, 8, 128).low_confidence.any()
    answer = moe_predictor("b200").predict(64, 4096, 1536, 8, 128)
    assert answer.low_confidence.all()
    assert "not measured on b200" in answer.notes[0]


def test_four_bit_floats_read_half_of_what_eight_bits_do_and_say_that_nobody_measured_them() -> None:
    b200 = moe_predictor("b200")
    fp8, fp4 = (b200.predict(64, 4096, 1536, 8, 128, dtype=each) for each in ("fp8_block", "nvfp4"))
    assert 0.5 < fp4.seconds[0] / fp8.seconds[0] < 0.75
    assert fp4.low_confidence.all()
    assert "in nvfp4 were not measured on b200" in fp4.notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 0}, "tokens must be"),
        ({"top_k": 9, "experts": 8}, "top_k must not exceed"),
        ({"expert_parallel": 256}, "expert_parallel must not exceed"),
        ({"dtype": "int3"}, "unknown MoE format 'int3'"),
    ],
)
def test_impossible_layers_are_refused(change: dict[str, object], message: str) -> None:
    arguments = {"tokens": 1, "hidden": 64, "inner": 64, "top_k": 2, "experts": 8}
    with pytest.raises(ValueError, match=message):
        moe_predictor("h200").predict(**(arguments | change))


def test_uniform_routing_reaches_the_expected_number_of_experts() -> None:
    generator = np.random.default_rng(0)
    reached = [len(np.unique([generator.permutation(64)[:4] for _ in range(20)])) for _ in range(200)]
    shapes = MoEShapes.of(20, 64, 64, 4, 64)
    assert shapes.active_experts[0] == pytest.approx(np.mean(reached), rel=0.02)


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "moe.parquet"
    pd.DataFrame({"num_tokens": [1]}).to_parquet(file)
    with pytest.raises(ValueError, match="column 'hidden_size' is missing"):
        read_moe_table(file)


def test_the_shipped_model_knows_what_it_was_fitted_on() -> None:
    if not _TABLE.exists():
        pytest.skip(f"{_TABLE} is not there")
    table = read_moe_table(_TABLE)
    rows = table[(table["system"] == "h200_sxm") & (table["dtype"] == "bf16")].sample(3000, random_state=0)
    columns = ("tokens", "hidden", "inner", "top_k", "experts", "tensor_parallel", "expert_parallel", "skew")
    answer = moe_predictor("h200").predict(*(rows[column].to_numpy() for column in columns))
    assert accuracy(rows["seconds"], answer.seconds).median_ape < 0.05
    assert (terms_of_table(rows.reset_index(drop=True)).bound <= rows["seconds"].to_numpy()).all()


def test_experts_of_four_bit_integers_gain_from_b200_what_its_sms_do_more() -> None:
    sizes = ([1, 64, 4096], 7168, 2048, 8, 384, 8)
    slow, fast = (moe_predictor(gpu).predict(*sizes, dtype="int4_wo").seconds for gpu in ("h200", "b200"))
    assert ((fast / slow > 0.8) & (fast / slow < 1.0)).all()
