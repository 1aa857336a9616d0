"""The wave law: what its terms mean, that a fit finds them again, and what it refuses."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.wave_law import WaveLaw, fit_wave_law, start_law

START = start_law(load_data_sheet("rtx-4070"))


def shapes(*rows: tuple[int, int, int, str, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["M", "N", "K", "transposition", "beta"])


def seconds(law: WaveLaw, m: int, n: int, k: int, transposition: str = "nt", beta: float = 0.0) -> float:
    return float(np.exp(law.log_seconds(shapes((m, n, k, transposition, beta))))[0])


def grid() -> pd.DataFrame:
    sizes = (512, 1024, 2048, 4096)
    return shapes(
        *(
            (m, n, k, t, beta)
            for m in sizes
            for n in sizes
            for k in sizes
            for t in ("nn", "nt", "tt")
            for beta in (0, 1)
        )
    )


def test_a_tile_more_than_a_wave_starts_another_wave() -> None:
    """46 SMs: 46 tiles take one wave, 47 two; within a wave a further tile costs next to nothing."""
    one, full, two = (seconds(START, 128 * tiles, 128, 4096) for tiles in (1, 46, 47))
    assert full == pytest.approx(one, rel=0.05)
    assert two == pytest.approx(2 * full, rel=0.05)


def test_many_waves_cost_what_their_tiles_cost() -> None:
    """Far from lock step the time is proportional to the number of tiles, not to whole waves."""
    ratio = seconds(START, 128 * 46 * 200 + 128, 128, 4096) / seconds(START, 128 * 46 * 200, 128, 4096)
    assert ratio == pytest.approx(1, abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 64), st.integers(1, 256), st.sampled_from([0.0, 1.0]))
def test_never_faster_with_more_rows_or_a_longer_k(rows: int, columns: int, steps: int, beta: float) -> None:
    here = seconds(START, 128 * rows, 128 * columns, 8 * steps, beta=beta)
    assert seconds(START, 128 * rows, 128 * columns, 8 * steps + 8, beta=beta) > here
    # More tiles may spread the end of the last wave a little better; whole waves more are always slower.
    assert seconds(START, 128 * (rows + 46), 128 * columns, 8 * steps, beta=beta) > here


def test_reading_c_costs_time() -> None:
    assert seconds(START, 2048, 2048, 512, beta=0.5) > seconds(START, 2048, 2048, 512)


def test_a_fit_finds_the_law_that_made_the_times() -> None:
    made = replace(
        START,
        launch=4e-6,
        per_k=1.2 * START.per_k,
        per_wave=3e-6,
        log_transposition=(0.01, -0.01, 0.0, 0.02),
    )
    rows = grid()
    found = fit_wave_law(START, rows, np.exp(made.log_seconds(rows)))
    np.testing.assert_allclose(found.log_seconds(rows), made.log_seconds(rows), atol=2e-3)


def test_a_fit_shrugs_off_a_few_wild_times() -> None:
    rows = grid()
    times = np.exp(START.log_seconds(rows))
    wild = times.copy()
    wild[::50] *= 3
    found = fit_wave_law(START, rows, wild)
    np.testing.assert_allclose(np.exp(found.log_seconds(rows)), times, rtol=0.01)


def test_what_cannot_be_fitted_is_refused() -> None:
    rows = grid()
    with pytest.raises(ValueError, match="at least 10 positive times"):
        fit_wave_law(START, rows[:5], np.ones(5))
    with pytest.raises(ValueError, match="at least 10 positive times"):
        fit_wave_law(START, rows, np.zeros(len(rows)))
    with pytest.raises(ValueError, match="'xy' is none of nn, nt, tn, tt"):
        START.log_seconds(shapes((1, 1, 1, "xy", 0)))
