"""What ``lapidist gpu reproduce --plots`` draws."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lapidist.figure_file import save_figure
from lapidist.hardware.gpu.ada_study import (
    BOOSTED,
    LARGER_M,
    LARGER_WORK,
    LEAVE_ONE_SHAPE_OUT,
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
from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.wave_law import fit_wave_law, start_law

_COLOURS = {
    PAPER: "tab:red",
    BOOSTED: "tab:orange",
    ROOFLINE: "tab:grey",
    WAVE_LAW: "tab:cyan",
    OURS: "tab:blue",
}


def draw_study(study: AdaStudy, folder: Path) -> list[Path]:
    """One picture per finding; returns the files."""
    pictures: dict[str, Callable[[AdaStudy], Figure]] = {
        "ada_splits.png": _splits,
        "ada_runtime.png": _runtime,
        "ada_power.png": _power,
        "ada_wave_law.png": _waves,
        "ada_tile_sweep.png": _tiles,
    }
    files = []
    for name, draw in pictures.items():
        files.append(folder / name)
        save_figure(draw(study), files[-1])
    return files


def _splits(study: AdaStudy) -> Figure:
    """Mean error of every model under every split."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3), sharey=True)
    _bars(left, study, POOL, (OWN_SPLIT, SHAPES, LARGER_M, LARGER_WORK), (PAPER, OURS))
    left.set_title(
        f"the published pool ({study.facts['pool_contended_share']:.0%} of it contended)", fontsize=10
    )
    left.set_ylabel("mean error of the run time")
    models = (PAPER, BOOSTED, ROOFLINE, WAVE_LAW, OURS)
    _bars(right, study, MEDIANS, (LEAVE_ONE_SHAPE_OUT, SHAPES, LARGER_M, LARGER_WORK), models)
    right.set_title("medians of uncontended configurations", fontsize=10)
    right.legend(fontsize=8, ncols=3, loc="upper left")
    return figure


def _bars(axes: Axes, study: AdaStudy, data: str, splits: tuple[str, ...], models: tuple[str, ...]) -> None:
    width = 0.8 / len(models)
    for number, model in enumerate(models):
        errors = [study.find(data, split, "runtime_ms", model).accuracy.mape for split in splits]
        places = np.arange(len(splits)) + (number - (len(models) - 1) / 2) * width
        bars = axes.bar(places, errors, width, label=model, color=_COLOURS[model])
        axes.bar_label(
            bars,
            [f"{100 * error:.2g}" if error < 1 else f"{100 * error:.0f}" for error in errors],
            fontsize=7,
        )
    axes.set_yscale("log")
    axes.set_ylim(0.004, 4)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xticks(range(len(splits)), [split.replace(" to ", "\nto ") for split in splits], fontsize=8)
    axes.grid(axis="y", alpha=0.3)


def _runtime(study: AdaStudy) -> Figure:
    """Predicted over measured run time on the published pool."""
    splits = (OWN_SPLIT, SHAPES, LARGER_M)
    figure = Figure(figsize=(12, 6), layout="constrained")
    panels = figure.subplots(2, len(splits), sharex=True, sharey=True)
    for line, model in enumerate((PAPER, OURS)):
        for axes, split in zip(panels[line], splits, strict=True):
            result = study.find(POOL, split, "runtime_ms", model)
            rows = study.pool.iloc[result.rows]
            ratio = result.predicted / rows["runtime_ms"].to_numpy()
            for foreign, colour in ((False, "tab:blue"), (True, "tab:orange")):
                chosen = rows["foreign_job"].to_numpy() == foreign
                label = "beside a foreign job" if foreign else "alone"
                axes.scatter(
                    rows["runtime_ms"][chosen], ratio[chosen], s=6, color=colour, label=label, alpha=0.5
                )
            axes.axhline(1, color="black", linewidth=0.8)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_ylim(0.005, 20)
            axes.grid(alpha=0.3)
            found = result.accuracy
            axes.set_title(f"{model}, {split}\nmean error {found.mape:.1%}, R² {found.r2:.2f}", fontsize=9)
        panels[line][0].set_ylabel("predicted / measured")
    for axes in panels[1]:
        axes.set_xlabel("measured run time, ms")
    panels[0][0].legend(fontsize=8, loc="lower left")
    return figure


def _power(study: AdaStudy) -> Figure:
    """What the power readings are of, and two predictors of them."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, *right = figure.subplots(1, 3)
    foreign = study.pool["foreign_job"].to_numpy()
    watts = study.pool["power_w"].to_numpy()
    bins = np.arange(25, 206, 5)
    left.hist(watts[~foreign], bins, label="no foreign job", color="tab:blue", alpha=0.7)
    left.hist(watts[foreign], bins, label="foreign job", color="tab:orange", alpha=0.7)
    left.set_yscale("log")
    left.set_xlabel("power reading, W")
    left.set_ylabel("runs")
    left.legend(fontsize=8)
    left.set_title("all readings of the published pool", fontsize=9)
    for axes, model in zip(right, (PAPER, ONE_BIT), strict=True):
        result = study.find(POOL, OWN_SPLIT, "power_w", model)
        rows, found = study.pool.iloc[result.rows], result.accuracy
        colours = np.where(rows["foreign_job"], "tab:orange", "tab:blue")
        axes.scatter(rows["power_w"], result.predicted, s=8, c=colours, alpha=0.6)
        axes.axline((100, 100), slope=1, color="black", linewidth=0.8)
        axes.set_title(f"{model}: R² {found.r2:.3f}, median error {found.median_ape:.2%}", fontsize=9)
        axes.set_xlabel("power reading, W")
        axes.set_xlim(20, 210)
        axes.set_ylim(20, 210)
        axes.grid(alpha=0.3)
    right[0].set_ylabel("predicted, W")
    return figure


def _waves(study: AdaStudy) -> Figure:
    """The law's staircase with the measurements on it, and what is left of unseen shapes."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _staircase(left, study.medians)
    for model in (WAVE_LAW, OURS):
        result = study.find(MEDIANS, LEAVE_ONE_SHAPE_OUT, "runtime_ms", model)
        rows = study.medians.iloc[result.rows]
        error = result.predicted / rows["runtime_ms"].to_numpy() - 1
        right.scatter(rows["runtime_ms"], error, s=8, color=_COLOURS[model], alpha=0.6, label=model)
    right.axhline(0, color="black", linewidth=0.8)
    right.set_xscale("log")
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.set_xlabel("measured run time, ms")
    right.set_ylabel("error of shapes left out")
    right.legend(fontsize=8)
    right.grid(alpha=0.3)
    return figure


def _staircase(axes: Axes, medians: pd.DataFrame) -> None:
    """Time of one step of K per tile over the number of tiles: flat where all SMs work, a tooth at each new wave."""
    law = fit_wave_law(
        start_law(load_data_sheet("rtx-4070")), medians, medians["runtime_ms"].to_numpy() / 1e3
    )
    tiles = np.unique(np.geomspace(1, 20_000, 600).astype(int))
    for k, colour in ((512, "tab:green"), (2048, "tab:purple")):
        rows = medians[(medians["transposition"] == "nt") & (medians["beta"] == 0) & (medians["K"] == k)]
        count = np.ceil(rows["M"] / 128) * np.ceil(rows["N"] / 128)
        axes.scatter(count, 1e6 * rows["runtime_ms"] / count / k, s=14, color=colour, zorder=3)
        drawn = pd.DataFrame({"M": 128 * tiles, "N": 128, "K": k, "transposition": "nt", "beta": 0.0})
        axes.plot(
            tiles,
            1e9 * np.exp(law.log_seconds(drawn)) / tiles / k,
            color=colour,
            linewidth=1,
            label=f"K = {k}",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(10, 20_000)
    axes.set_ylim(1.4, 10)
    axes.set_xlabel("tiles of 128 x 128 (46 run at a time)")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_ylabel("ns per tile and step of K")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, which="both")


def _tiles(study: AdaStudy) -> Figure:
    """Time, energy and occupancy of the naive kernel by tile."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    time, energy, busy = figure.subplots(1, 3)
    names = [f"{row.tile} x {row.tile}" for row in study.tiles]
    mean = np.array([row.time_ratio for row in study.tiles])
    low = mean - np.array([row.time_ratio_low for row in study.tiles])
    high = np.array([row.time_ratio_high for row in study.tiles]) - mean
    bars = time.bar(names, mean, yerr=[low, high], capsize=3, color="tab:blue")
    time.bar_label(bars, [f"{value:.3g}" for value in mean], fontsize=8, padding=6)
    time.set_ylabel("time / time of 16 x 16 (range over shapes)")
    bars = energy.bar(names, [row.energy_ratio for row in study.tiles], color="tab:green")
    energy.bar_label(bars, [f"{row.energy_ratio:.3g}\n{row.watts:.0f} W" for row in study.tiles], fontsize=8)
    energy.set_ylabel("energy / energy of 16 x 16")
    for axes in (time, energy):
        axes.set_yscale("log")
        axes.set_ylim(0.4, 1500)
    busy.bar(names, [row.occupancy.share for row in study.tiles], color="tab:grey", label="warps resident")
    live = [row.occupancy.share * row.live_lanes for row in study.tiles]
    busy.bar(names, live, color="tab:purple", width=0.5, label="threads resident")
    busy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    busy.set_ylabel("of what an SM can hold")
    busy.set_ylim(0, 1.2)
    busy.legend(fontsize=8, loc="upper left", ncols=2)
    return figure
