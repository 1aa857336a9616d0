"""What ``lapidist calibrate-attention --plot`` draws: the row maxima of every head, and the band they must lie in."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lapidist.figure_file import save_figure
from lapidist.models.calibration.calibrate import Calibration


def plot_row_maxima(calibration: Calibration, path: Path, title: str) -> None:
    """Draw every head's row maxima as scores and, beside them, with phi subtracted; the file appears complete or not.

    Raises
    ------
    OSError : the file cannot be written.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    figure.suptitle(f"Row maxima of attention scores: {title}", fontsize=11)
    phi = calibration.choice.phi
    if phi is None:
        _draw(figure.subplots(), calibration, None)
    else:
        left, right = figure.subplots(1, 2)
        _draw(left, calibration, None)
        _draw(right, calibration, [value for layer in phi for value in layer])
    save_figure(figure, path)


def _draw(axes: Axes, calibration: Calibration, phi: list[float] | None) -> None:
    """One vertical line per head from its lowest to its highest row maximum, thick where 98 % lie."""
    statistics, heads = calibration.statistics, calibration.statistics.lowest.shape[1]
    shift = phi or [0.0] * statistics.lowest.numel()
    parts = (
        statistics.lowest,
        statistics.highest,
        statistics.quantile(0.01),
        statistics.quantile(0.99),
        statistics.quantile(0.5),
    )
    lowest, highest, low, high, median = (
        [value - own for value, own in zip(part.flatten().tolist(), shift, strict=True)] for part in parts
    )
    places = [index / heads for index in range(len(median))]
    axes.vlines(places, lowest, highest, linewidth=0.8, color="C0", label="all rows")
    axes.vlines(places, low, high, linewidth=2.5, color="C0", alpha=0.5, label="98 % of the rows")
    axes.plot(places, median, ".", color="C1", markersize=4, label="median")
    for layer, band in enumerate(calibration.bands):
        edges = [layer - 0.5 / heads, layer + 1 - 0.5 / heads]
        axes.fill_between(edges, band.low, band.high, color="C2", alpha=0.12, linewidth=0)
    axes.set_xlabel("layer, its heads side by side (green: the safe band)")
    axes.set_ylabel("row maximum" if phi is None else "row maximum - phi")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
