"""The averages of GemFilter's table, recomputed."""

import json
from pathlib import Path

import pytest

from lapidist.evaluation.longbench.evaluation import average, category_average
from lapidist.evaluation.longbench.tasks import GEMFILTER_TASKS, TASKS

TABLE = json.loads((Path(__file__).parents[2] / "golden" / "gemfilter_longbench_table.json").read_text())


def test_the_tasks_are_those_of_the_table_in_its_order() -> None:
    assert list(GEMFILTER_TASKS) == TABLE["tasks"]
    assert set(TASKS) - set(GEMFILTER_TASKS) == {"lcc", "repobench-p"}
    assert len(TABLE["rows"]) == 24


@pytest.mark.parametrize("row", TABLE["rows"], ids=lambda row: f"{row['model']} {row['method']}")
def test_recomputed_averages_are_the_printed_ones(row: dict) -> None:
    scores = dict(zip(TABLE["tasks"], row["scores"], strict=True))
    assert average(scores) == pytest.approx(row["average"], abs=0.01)


def test_the_mean_of_categories_weighs_each_the_same() -> None:
    scores = {"hotpotqa": 30.0, "2wikimqa": 50.0, "musique": 10.0, "trec": 80.0, "lcc": 60.0}
    assert category_average(scores) == pytest.approx((30 + 80 + 60) / 3)
    assert average(scores) == pytest.approx(46)
