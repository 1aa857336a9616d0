"""What ``lapidist gpu validate --plot`` draws: how errors are distributed, and predicted over measured times."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lapidist.figure_file import save_figure
from lapidist.hardware.gpu.gemm_validation import GroupValidation

_MOST_POINTS = 4000


def plot_validation(groups: Sequence[GroupValidation], path: Path) -> None:
    """Two panels, one curve and one cloud per group; the file appears complete or not at all.

    Raises
    ------
    OSError : the file cannot be written.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for group in groups:
        measured = group.rows["seconds"].to_numpy(dtype=float)
        predicted = group.predicted.seconds
        label = f"{group.system} {group.backend} {group.version} {group.dtype}"
        left.ecdf(100 * np.abs(predicted / measured - 1), label=f"{label}: {group.errors.mape:.1%}")
        chosen = np.random.RandomState(0).permutation(len(measured))[:_MOST_POINTS]
        right.plot(1e6 * measured[chosen], 1e6 * predicted[chosen], ".", markersize=1.5, label=label)
    left.set_xscale("log")
    left.set_xlim(0.1, 100)
    left.xaxis.set_major_formatter("{x:g} %")
    left.set_xlabel("|predicted / measured - 1|")
    left.set_ylabel("part of the GEMMs")
    left.grid(alpha=0.3)
    left.legend(fontsize=7, title="mean error", title_fontsize=7)
    right.axline((1, 1), (10, 10), color="grey", linewidth=1)
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel("measured, µs")
    right.set_ylabel("predicted, µs")
    right.grid(alpha=0.3)
    save_figure(figure, path)
