from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lapidist.hardware.gpu.accuracy import accuracy
from lapidist.hardware.gpu.attention_fit import TreeSize, fit_phase
from lapidist.hardware.gpu.attention_law import LawParameters
from lapidist.hardware.gpu.attention_measurements import (
    head_config_holdout,
    head_configs,
    largest_fifth,
    read_attention_table,
    shapes_of,
)
from lapidist.hardware.gpu.attention_phase import terms_of
from lapidist.hardware.gpu.attention_predictor import attention_predictor
from lapidist.hardware.gpu.attention_store import (
    AttentionModels,
    FittedAttention,
    ModelKey,
    write_attention_models,
)
from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.leakage import check_no_leakage

_SMALL = TreeSize(trees=40, leaves=15, min_rows=5)
_SHEET = load_data_sheet("h200")


def _made_up(count: int = 900, noise: float = 0.03) -> pd.DataFrame:
    """Decoding kernels that obey the law with known parameters, up to noise."""
    generator = np.random.default_rng(0)
    kv_heads = 2.0 ** generator.integers(0, 4, count)
    table = pd.DataFrame(
        {
            "system": "h200",
            "backend": "made up",
            "version": "1",
            "phase": "decode",
            "batch": 2.0 ** generator.integers(0, 9, count),
            "query_length": 1.0,
            "kv_length": 2.0 ** generator.integers(4, 16, count),
            "heads": kv_heads * 2.0 ** generator.integers(0, 4, count),
            "kv_heads": kv_heads,
            "head_dim": generator.choice([64.0, 128.0], count),
            "window": 0.0,
            "compute_bytes": 2.0,
            "kv_bytes": 2.0,
        }
    )
    terms = terms_of("decode", shapes_of(table), _SHEET)
    truth = LawParameters(5e-6, 0.3, 0.8, 2.0, 0.4)
    seconds = truth.seconds(terms.tensor, terms.memory, terms.exponential)
    table["seconds"] = seconds * np.exp(generator.normal(0, noise, count))
    return table


def test_a_law_is_found_again_and_holds_for_unseen_head_configurations() -> None:
    table = _made_up()
    split = head_config_holdout(table)
    train, test = split.apply(table)
    check_no_leakage(
        train.assign(config=head_configs(train)), test.assign(config=head_configs(test)), ("config",)
    )
    fitted = fit_phase(train.reset_index(drop=True), _SHEET, _SMALL)
    seconds, width, beyond = fitted.seconds(shapes_of(test), _SHEET)
    assert accuracy(test["seconds"], seconds).mape < 0.05
    covered = np.mean(np.abs(np.log(test["seconds"] / seconds)) <= width)
    assert 0.8 < covered < 0.99
    assert (beyond <= 1).all()


def test_larger_kernels_than_measured_get_wider_intervals() -> None:
    table = _made_up()
    train, test = largest_fifth(table).apply(table)
    fitted = fit_phase(train.reset_index(drop=True), _SHEET, _SMALL)
    inside = fitted.seconds(shapes_of(train), _SHEET)
    outside = fitted.seconds(shapes_of(test), _SHEET)
    assert inside[2].max() == 0
    assert outside[2].max() > 1
    assert np.median(outside[1]) > 1.5 * np.median(inside[1])


def test_the_same_rows_give_the_same_bits_and_survive_the_file(tmp_path: Path) -> None:
    table = _made_up(400)
    first, second = (fit_phase(table, _SHEET, _SMALL) for _ in range(2))
    shapes = shapes_of(table)
    assert (first.seconds(shapes, _SHEET)[0] == second.seconds(shapes, _SHEET)[0]).all()
    path = tmp_path / "attention.zip"
    key = ModelKey("h200", "made up", "1")
    write_attention_models(path, {key: FittedAttention(None, first)})
    content = path.read_bytes()
    write_attention_models(path, {key: FittedAttention(None, second)})
    assert path.read_bytes() == content
    assert AttentionModels(path).known() == [key]
    predictor = attention_predictor("h200", models=path)
    stored = predictor.predict_shapes(shapes).seconds
    assert stored == pytest.approx(first.seconds(shapes, _SHEET)[0], rel=0.02)
    with pytest.raises(ValueError, match="no attention of this phase"):
        predictor.predict(1, 16, 16, 8, 8, 64)


def test_mixed_or_few_rows_are_refused() -> None:
    table = _made_up(100)
    with pytest.raises(ValueError, match="2 of them"):
        fit_phase(pd.concat([table, table.assign(version="2")]), _SHEET, _SMALL)
    with pytest.raises(ValueError, match="at least 50"):
        fit_phase(table[:20], _SHEET, _SMALL)


def test_damaged_files_and_tables_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="not a file of fitted"):
        attention_predictor("h200", models=broken)
    table = _made_up(60)
    path = tmp_path / "table.parquet"
    path.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        read_attention_table(path)
    table.drop(columns="heads").to_parquet(path)
    with pytest.raises(ValueError, match="column 'heads' is missing"):
        read_attention_table(path)
    table.assign(seconds=-1.0).to_parquet(path)
    with pytest.raises(ValueError, match="seconds must be positive"):
        read_attention_table(path)
    table.to_parquet(path)
    assert len(read_attention_table(path)) <= 60
