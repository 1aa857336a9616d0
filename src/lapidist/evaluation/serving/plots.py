"""Latency distributions as pictures."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from lapidist.figure_file import check_format, save_figure
from lapidist.workload.request_record import RequestRecord


def plot_latency_cdf(records: Sequence[RequestRecord], path: Path, title: str) -> None:
    """Draw the cumulative distributions of TTFT, TPOT and end-to-end latency of the completed requests.

    Raises
    ------
    ValueError : the suffix of ``path`` is no format of ``figure_file``, or no request has completed.
    """
    check_format(path)
    completed = [record for record in records if record.completed]
    if not completed:
        raise ValueError(f"{path}: no request has completed, so there is nothing to draw")
    paces = [record.seconds_per_output_token for record in completed]
    panels = (
        ("time to first token, ms", [record.first_token_seconds for record in completed]),
        ("time per output token, ms", [pace for pace in paces if pace is not None]),
        ("end to end, ms", [record.end_to_end_seconds for record in completed]),
    )
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    for axes, (label, seconds) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
        if seconds:
            axes.ecdf([1000 * value for value in seconds])
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("share of requests")
    save_figure(figure, path)
