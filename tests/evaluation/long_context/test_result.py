"""Grids and means, and what is printed, written and drawn of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lapidist.evaluation.long_context.case import Outcome
from lapidist.evaluation.long_context.heat_map import plot_heat_maps, plot_method_map
from lapidist.evaluation.long_context.methods import parse_methods
from lapidist.evaluation.long_context.report import print_methods, print_rows, to_json
from lapidist.evaluation.long_context.result import Evaluation, MethodResult

METHODS = parse_methods("full,gemfilter:layer=3:keep_first=4:keep_last=32,snapkv,h2o,streamingllm", 0.1)


def outcome(row: str, score: float, kept: int = 10, bypassed: str | None = None) -> Outcome:
    return Outcome(row, score, "reply", ("answer",), 100, kept, bypassed)


RESULT = MethodResult(
    METHODS[1],
    {
        "512": [outcome("0%", 1.0), outcome("0%", 0.0), outcome("100%", 1.0)],
        "1024": [outcome("0%", 0.0, 100, "short"), outcome("100%", 0.25), outcome("100%", 0.75)],
    },
)


def test_cells_are_means_and_the_mean_is_over_cells() -> None:
    assert RESULT.rows == ("0%", "100%")
    assert RESULT.columns == ("512", "1024")
    np.testing.assert_allclose(RESULT.grid, [[0.5, 0.0], [1.0, 0.5]])
    assert RESULT.mean == 0.5
    assert RESULT.kept == pytest.approx((5 * 0.1 + 1.0) / 6)
    assert RESULT.bypassed == 1


def test_json() -> None:
    found = json.loads(to_json(Evaluation("needle", {"chat_template": False}, [RESULT], ("A note.",))))
    assert found["settings"] == {"chat_template": False}
    [method] = found["methods"]
    assert method["prompt_filter"]["layer"] == 3
    assert method["row_means"] == {"0%": 0.25, "100%": 0.75}
    assert method["column_means"] == {"512": 0.75, "1024": 0.25}
    assert [len(replies) for replies in method["replies"].values()] == [3, 3]


def results() -> list[MethodResult]:
    return [MethodResult(method, RESULT.outcomes) for method in METHODS]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_tables_keep_to_the_width_and_show_every_method(width: int) -> None:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_methods(results(), console, "depth")
    print_rows(results(), console, "depth")
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    squeezed = text.replace(" ", "").replace("\n", "")
    for word in ("full", "snapkv", "streamingllm", "kept", "1,024", "25.0", "75.0", "25.0%"):
        assert word in squeezed
    assert text.count("h2o") == 2


def test_one_method_has_a_line_per_row() -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_methods([RESULT], console, "depth")
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["0%", "50.0", "0.0", "25.0"] in lines
    assert ["mean", "75.0", "25.0", "50.0"] in lines


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_pictures(tmp_path: Path, suffix: str) -> None:
    wide = {f"{1000 * index}": [outcome("0%", 0.5), outcome("100%", 1.0)] for index in range(1, 41)}
    for number, shown in enumerate(([RESULT], results(), [MethodResult(METHODS[0], wide)] * 2)):
        plot_heat_maps(shown, tmp_path / f"{number}{suffix}", "A title with $ and _", "depth")
        plot_method_map(shown, tmp_path / f"map-{number}{suffix}", "title")
    assert len(list(tmp_path.iterdir())) == 6
    assert all(file.stat().st_size > 5000 for file in tmp_path.iterdir())


def test_a_folder_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        plot_heat_maps([RESULT], tmp_path / "absent" / "x.png", "title", "depth")
