"""What ``lapidist gpu reproduce`` prints: tables for people, JSON for programs."""

from typing import Any

from rich.console import Console
from rich.table import Table

from lapidist.hardware.gpu.accuracy import Accuracy
from lapidist.hardware.gpu.ada_study import (
    BOOSTED,
    LARGER_M,
    LARGER_WORK,
    LEAVE_ONE_SHAPE_OUT,
    LOOKUP,
    MEDIANS,
    ONE_BIT,
    OURS,
    OWN_SPLIT,
    PAPER,
    POOL,
    ROOFLINE,
    SHAPES,
    WAVE_LAW,
    AdaStudy,
)
from lapidist.hardware.gpu.tile_sweep import tile_rows

# arXiv 2411.16954: abstract; energy and throughput from the repository's bar plots. Mean / median error in %, R².
PUBLISHED = {
    "runtime_ms": "15.57 / -, 0.98",
    "power_w": "- / 5.42, 0.78",
    "energy_j": "42 / -, 0.86",
    "gflops": "11 / -, 0.86",
}


def print_study(study: AdaStudy) -> None:
    """The published table, its fate under other splits, clean medians, and the tile sweep."""
    console = Console()
    console.print(_published_table(study))
    console.print(_pool_table(study))
    console.print(_medians_table(study))
    console.print(_tile_table(study))
    for sentence in sentences(study):
        console.print(f"- {sentence}", highlight=False)


def sentences(study: AdaStudy) -> list[str]:
    """What the numbers say, one fact each."""
    facts = study.facts
    forest = study.find(POOL, OWN_SPLIT, "power_w", PAPER).accuracy
    bit = study.find(POOL, OWN_SPLIT, "power_w", ONE_BIT).accuracy
    coverage = facts["interval_coverage"][LEAVE_ONE_SHAPE_OUT]
    claims = facts["tile_claims"]
    faster, power = claims["up to 3.2 times faster"], claims["22 % less power"]
    saved = power["saving_against"].items()
    return [
        f"{facts['test_rows_repeated_in_train']:.1%} of the published split's test rows have a feature vector that was "
        f"trained on: {facts['runs']:,} runs are {facts['distinct_shapes']} shapes.",
        f"{facts['pool_contended_share']:.0%} of the published pool ran on a GPU that others used; power was read in "
        f"{facts['power_read_contended_share']:.0%} of such runs and in {facts['power_read_clean_share']:.0%} of the "
        "others.",
        f"Alone, the reading is {facts['clean_watts_mean']:.1f} ± {facts['clean_watts_deviation']:.1f} W whatever the "
        f"GEMM: an idle card. One bit (foreign job or not) predicts power with R² {bit.r2:.3f} and median error "
        f"{bit.median_ape:.2%}; the published model reaches {forest.r2:.3f} and {forest.median_ape:.2%}.",
        f"Our 90 % interval holds {coverage['coverage']:.0%} of the unseen shapes' times; a run repeats within "
        f"{facts['repeatability_median']:.2%} (median).",
        f"16 x 16 {'is' if claims['16 x 16 is the best tile']['holds'] else 'is not'} the tile that takes least time "
        f"and least energy. From 8 to 16 the best shape gains {faster['largest_from_8_to_16']:.2f} times, the mean "
        f"{faster['typical_from_8_to_16']:.2f}.",
        "The 22 % less power does not come out of the data: 16 x 16 draws "
        + ", ".join(f"{saving:.0%} less than {tile} x {tile}" for tile, saving in saved)
        + f", {power['saving_against_mean_of_smaller']:.0%} less than their mean, and more than 32 x 32.",
    ]


def to_json(study: AdaStudy) -> dict[str, Any]:
    """Fractions, not per cent."""
    return {
        "results": [result.to_dict() for result in study.results],
        "facts": dict(study.facts),
        "tiles": tile_rows(study.tiles),
        "published": PUBLISHED,
    }


def _published_table(study: AdaStudy) -> Table:
    table = _table(
        "The study's table: random rows, seed 42", "target", "published", "here", "median per shape"
    )
    for target, published in PUBLISHED.items():
        here = study.find(POOL, OWN_SPLIT, target, PAPER).accuracy
        lookup = study.find(POOL, OWN_SPLIT, target, LOOKUP).accuracy
        table.add_row(target, published, _with_r2(here), _with_r2(lookup))
    return table


def _pool_table(study: AdaStudy) -> Table:
    table = _table(
        "The same rows, shapes held out (mean / median error in %, R²); our power is the one bit",
        "split",
        "target",
        "paper's forest",
        "ours",
    )
    for split in (OWN_SPLIT, SHAPES, LARGER_M, LARGER_WORK):
        for target in PUBLISHED:
            ours = ONE_BIT if target == "power_w" else OURS
            cells = (_with_r2(study.find(POOL, split, target, model).accuracy) for model in (PAPER, ours))
            table.add_row(split, target, *cells, end_section=target == "gflops")
    return table


def _medians_table(study: AdaStudy) -> Table:
    models = (PAPER, BOOSTED, ROOFLINE, WAVE_LAW, OURS)
    table = _table("Time of uncontended configurations (mean / largest error in %)", "split", *models)
    for split in (LEAVE_ONE_SHAPE_OUT, SHAPES, LARGER_M, LARGER_WORK):
        found = (study.find(MEDIANS, split, "runtime_ms", model).accuracy for model in models)
        table.add_row(split, *(f"{_percent(a.mape)} / {_percent(a.max_ape)}" for a in found))
    return table


def _tile_table(study: AdaStudy) -> Table:
    table = _table(
        "Tile of the naive kernel, large shapes, against 16 x 16",
        "tile",
        "time (range)",
        "energy",
        "watts",
        "occupancy",
        "limited by",
    )
    for row in study.tiles:
        table.add_row(
            f"{row.tile} x {row.tile}",
            f"{row.time_ratio:.2f} ({row.time_ratio_low:.2f}-{row.time_ratio_high:.2f})",
            f"{row.energy_ratio:.2f}",
            f"{row.watts:.1f}",
            f"{row.occupancy.share:.0%}"
            + ("" if row.live_lanes == 1 else f", {row.live_lanes:.0%} of lanes live"),
            ", ".join(row.occupancy.limiters),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _with_r2(found: Accuracy) -> str:
    return f"{_percent(found.mape)} / {_percent(found.median_ape)}, {found.r2:.2f}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}" if fraction < 0.1 else f"{100 * fraction:.1f}"
