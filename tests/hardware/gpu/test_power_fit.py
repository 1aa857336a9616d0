from pathlib import Path

import numpy as np
import pytest

from lapidist.hardware.gpu.accuracy import accuracy
from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.gemm_format import gemm_format
from lapidist.hardware.gpu.power_features import gemm_power_features
from lapidist.hardware.gpu.power_fit import fit_power
from lapidist.hardware.gpu.power_predictor import power_predictor, write_power_models

_SHEET = load_data_sheet("h200")


def _made_up(count: int = 1500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Long GEMMs whose power rises with m until the limit."""
    generator = np.random.default_rng(0)
    sizes = 2.0 ** generator.integers(9, 14, (3, count))
    watts = np.minimum(700, 300 + 100 * np.log2(sizes[0] / 256)) * np.exp(generator.normal(0, 0.01, count))
    features = gemm_power_features(*sizes, _SHEET, gemm_format("bf16"))
    return sizes, features, np.minimum(watts, 700)


def test_power_is_learned_and_kept_in_the_file(tmp_path: Path) -> None:
    sizes, features, watts = _made_up()
    fitted = fit_power(features, watts, 700, sizes[1] * 1e6 + sizes[2], trees=60)
    path = tmp_path / "power.zip"
    write_power_models(path, {"h200": {"bf16": fitted}})
    answer = power_predictor("h200", models=path).gemm(*sizes, seconds=1e-3)
    assert accuracy(watts, answer.watts).mape < 0.03
    assert not answer.low_confidence.any()
    assert np.mean((answer.low <= watts) & (watts <= answer.high * 1.001)) > 0.85


def test_readings_must_be_positive_and_enough() -> None:
    sizes, features, watts = _made_up(120)
    groups = sizes[1]
    with pytest.raises(ValueError, match="at least 100"):
        fit_power(features[:50], watts[:50], 700, groups[:50])
    with pytest.raises(ValueError, match="positive readings"):
        fit_power(features, np.where(np.arange(120) == 3, np.nan, watts), 700, groups)
