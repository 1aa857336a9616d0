"""The bundled GEMM models: physical limits everywhere, order in size, the cost of odd sizes, who is answered how."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.hardware.gpu.data_sheet import data_sheet_names, load_data_sheet
from lapidist.hardware.gpu.gemm_predictor import gemm_predictor
from lapidist.hardware.gpu.gemm_store import BUNDLED, GEMMModels
from lapidist.hardware.gpu.measurements import read_gemm_table, select
from tests.hardware.gpu.measured_data import measured_data

MEASURED = ("a100", "b200", "h100", "h200", "l40s", "rtx-pro-6000")


def random_sizes(count: int, largest_octave: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    exponents = np.random.default_rng(seed).uniform(0, largest_octave, (3, count))
    m, n, k = np.maximum(1, np.rint(2**exponents))
    return m, n, k


@pytest.mark.parametrize("gpu", MEASURED)
def test_never_faster_than_the_arithmetic_units(gpu: str) -> None:
    sheet = load_data_sheet(gpu)
    m, n, k = random_sizes(4000, 20, 0)
    found = gemm_predictor(gpu).predict(m, n, k)
    for times in (found.seconds, found.low, found.high):
        assert np.isfinite(times).all()
        assert (times >= 2 * m * n * k / sheet.operations_per_second("bf16", "max") * (1 - 1e-12)).all()
    assert (found.low <= found.seconds).all()
    assert (found.seconds <= found.high).all()


@pytest.mark.parametrize("gpu", MEASURED)
def test_never_shorter_than_a_launch(gpu: str) -> None:
    group = next(
        g for g in GEMMModels(BUNDLED).groups() if g.key[:3] == (gpu, "bf16", gemm_predictor(gpu).backend)
    )
    seconds = gemm_predictor(gpu).predict(*random_sizes(2000, 7, 1)).seconds
    assert (seconds >= 0.8 * group.shortest_seconds).all()
    assert 1e-6 < group.shortest_seconds < 4e-6


@pytest.mark.parametrize(("gpu", "share"), [("h200", 0.03), ("a100", 0.03), ("l40s", 0.04)])
@pytest.mark.parametrize("axis", ["m", "n", "k"])
def test_larger_takes_longer(gpu: str, share: float, axis: str) -> None:
    """Steps down of more than 2 % and 5 % are as rare as wave quantization makes them."""
    generator = np.random.default_rng(2)
    steps = np.arange(128, 8193, 128) if axis == "m" else np.arange(256, 8193, 256)
    fixed = {name: 128.0 * generator.integers(1, 64, (100, 1)) for name in "mnk"}
    seconds = gemm_predictor(gpu).predict(**{**fixed, axis: steps[None, :].astype(float)}).seconds
    ratio = seconds[:, 1:] / seconds[:, :-1]
    assert (ratio < 0.98).mean() <= share
    assert (ratio < 0.95).mean() <= 0.01


@pytest.mark.slow
def test_one_row_too_many_costs_what_was_measured() -> None:
    table = read_gemm_table(measured_data("aiconfigurator_gemm.parquet") / "aiconfigurator_gemm.parquet")
    for system, backend, version in (("h200_sxm", "TRTLLM", "1.3.0rc20"), ("l40s", "TRTLLM", "1.3.0rc20")):
        rows = select(table, system=system, backend=backend, version=version, dtype="bf16")
        times = rows.pivot_table(index=["n", "k"], columns="m", values="seconds")
        sites = np.array(times.index.to_list(), dtype=float).T
        predictor = gemm_predictor(system, "bf16", backend, version)
        for m in (128, 256, 512, 1024):
            measured = np.nanmedian(times[m + 1] / times[m])
            predicted = np.median(
                predictor.predict(m + 1, *sites).seconds / predictor.predict(m, *sites).seconds
            )
            assert predicted == pytest.approx(measured, abs=0.05)


@pytest.mark.parametrize("gpu", sorted(data_sheet_names()))
def test_every_gpu_is_answered(gpu: str) -> None:
    found = gemm_predictor(gpu, load_data_sheet(gpu).sixteen_bit).predict(64, 4096, 4096)
    assert found.low < found.seconds < found.high
    assert bool(found.low_confidence) == (gpu not in MEASURED)
    assert bool(found.notes) == bool(found.low_confidence)


def test_where_the_data_end_the_interval_widens_and_says_so() -> None:
    found = gemm_predictor("h200").predict([4096, 4096], [8192, 2**18], [8192, 8192])
    assert found.low_confidence.tolist() == [False, True]
    width = np.log(found.high / found.low)
    assert width[1] > 1.5 * width[0]
    assert "outside of the measured sizes" in found.notes[0]
    odd = gemm_predictor("h200").predict(16, 4097, 4096)
    assert odd.low_confidence
    assert "multiple of 8" in odd.notes[0]


def test_newest_preferred_backend_is_the_default() -> None:
    predictor = gemm_predictor("h200")
    assert (predictor.measured_on, predictor.backend, predictor.version) == ("h200", "TRTLLM", "1.3.0rc20")
    assert gemm_predictor("h200", backend="vllm").version == "0.24.0"
    assert gemm_predictor("h200", "fp16").measured_on == "h200"
    assert gemm_predictor("gb200").measured_on == "b200"
    assert gemm_predictor("rtx-4090").measured_on == "any"


def test_unknown_asks_are_refused_in_one_sentence() -> None:
    for arguments, sentence in (
        (("h200", "bf16", "TGI"), "there are SGLang 0.5.14, TRTLLM"),
        (("h200", "bf16", "VLLM", "9"), "with VLLM 9 for h200"),
        (("a100", "fp8"), "does not compute in fp8"),
        (("h200", "fp7"), "unknown GEMM format"),
    ):
        with pytest.raises(ValueError, match=sentence):
            gemm_predictor(*arguments)
    for sizes in ((0, 1, 1), (1, 1.5, 1), (1, 1, 2**25), (1, 1, float("nan")), ("a", 1, 1)):
        with pytest.raises(ValueError, match="whole number"):
            gemm_predictor("h200").predict(*sizes)


def test_shapes_broadcast_and_answers_repeat() -> None:
    predictor = gemm_predictor("l40s")
    grid = predictor.predict(np.array([[1], [16]]), np.array([128, 256, 512]), 1024)
    assert grid.seconds.shape == grid.low.shape == grid.low_confidence.shape == (2, 3)
    assert predictor.predict(16, 256, 1024).seconds == grid.seconds[1, 1]
    again = gemm_predictor("l40s").predict(np.array([[1], [16]]), np.array([128, 256, 512]), 1024)
    assert (again.seconds == grid.seconds).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40000), st.integers(1, 8000), st.integers(1, 8000))
def test_one_or_many_is_the_same(m: int, n: int, k: int) -> None:
    predictor = gemm_predictor("h200")
    one, many = predictor.predict(m, 8 * n, 8 * k), predictor.predict([m, 7], [8 * n, 64], [8 * k, 64])
    assert one.seconds == many.seconds[0]
    assert one.high == many.high[0]


def test_calibration_by_a_few_points() -> None:
    """A card 1.4 times as slow as foretold is recognized from 20 of its GEMMs."""
    predictor = gemm_predictor("rtx-4090")
    known, rest = random_sizes(20, 13, 3), random_sizes(500, 13, 4)
    known, rest = (tuple(8 * np.ceil(x / 8) for x in sizes) for sizes in (known, rest))
    slower = predictor.calibrated(*known, 1.4 * predictor.predict(*known).seconds)
    ratio = slower.predict(*rest).seconds / predictor.predict(*rest).seconds
    assert ratio == pytest.approx(1.4, rel=0.05)
    with pytest.raises(ValueError, match="as many"):
        predictor.calibrated([1, 2], [1, 2], [1, 2], [1e-5])
    with pytest.raises(ValueError, match="positive"):
        predictor.calibrated(1, 1, 1, -1.0)


def test_users_data_sheet_scales_its_base(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "half.yaml"
    file.write_text("extends: h200\nname: half\nmemory_bytes_per_second: 2400.0e+9\n")
    half, whole = (gemm_predictor(gpu).predict(1, 16384, 16384).seconds for gpu in (file, "h200"))
    assert half == pytest.approx(2 * whole, rel=0.15)


def test_power_limit_holds_long_kernels_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "half.yaml"
    file.write_text("extends: h200\nname: half\ntdp_watts: 350\n")
    half, whole = (gemm_predictor(gpu).predict(8192, 8192, 8192).seconds for gpu in (file, "h200"))
    assert 1.4 < half / whole < 2.2
    small = (gemm_predictor(gpu).predict(1, 8192, 8192).seconds for gpu in (file, "h200"))
    assert next(small) == pytest.approx(next(small), rel=0.05)


def test_bundled_models_are_small() -> None:
    """All models of the package stay within 3.2 MB."""
    assert sum(file.stat().st_size for file in BUNDLED.parent.glob("*.zip")) <= 3.2e6


def test_a_known_size_is_remembered() -> None:
    predictor = gemm_predictor("h200")
    assert predictor.predict(33, 4096, 4096) is predictor.predict(33, 4096, 4096)
