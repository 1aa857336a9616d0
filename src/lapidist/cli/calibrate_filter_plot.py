"""What ``lapidist calibrate-filter --plot`` draws: the sweep over layers."""

from pathlib import Path

from matplotlib.figure import Figure

from lapidist.evaluation.filter_calibration import FilterCalibration
from lapidist.figure_file import save_figure


def plot_layers(calibration: FilterCalibration, path: Path, title: str) -> None:
    """Accuracy by layer, a line per share kept; and how near the kept tokens come to the answer. The file appears
    complete or not at all.

    Raises
    ------
    OSError : the file cannot be written.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(f"Prompt filter by layer: {title}", fontsize=11)
    left, right = figure.subplots(1, 2)
    layers = range(len(calibration.accuracy))
    for index, keep in enumerate(calibration.keeps):
        left.plot(layers, calibration.accuracy[:, index], marker=".", label=f"{keep:.0%} kept")
        right.plot(layers, calibration.distance[:, index], marker=".", label=f"{keep:.0%} kept")
    left.axhline(calibration.full, color="grey", linewidth=1, label="whole prompt")
    left.axhline(calibration.goal * calibration.full, color="grey", linewidth=1, linestyle=":", label="goal")
    if calibration.defaults is not None:
        left.axvline(calibration.defaults.layer, color="C2", linewidth=4, alpha=0.2)
    left.set_ylabel("share answered")
    left.set_ylim(-0.03, 1.03)
    right.set_ylabel("tokens from the answer to the nearest kept one")
    right.set_yscale("symlog", linthresh=1)
    for axes in (left, right):
        axes.set_xlabel("layer")
        axes.set_xticks(list(layers)[:: max(1, len(layers) // 16)])
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    save_figure(figure, path)
