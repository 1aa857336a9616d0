"""The Pareto front as a picture, or as one HTML file that needs nothing else."""

import html
import io
import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter

from lapidist import figure_file
from lapidist.planner.pareto import pareto_front
from lapidist.planner.plan import Forecast
from lapidist.workload.text_files import write_atomically

FORMATS = (*figure_file.FORMATS, ".html")
_MARKERS = "os^Dv<>P*Xph"


def check_format(path: Path) -> None:
    """Refuse a format that cannot be written, before the work rather than after it."""
    figure_file.check_format(path, FORMATS)


def plot_plan(forecasts: Sequence[Forecast], path: Path, title: str) -> None:
    """Draw price over latency, the front in each panel as a line.

    Without prices the energy of a token takes their place.

    Raises
    ------
    ValueError : the suffix of ``path`` is none of ``FORMATS``, or no request was served.
    """
    check_format(path)
    served = [each for each in forecasts if each.metrics.ttft is not None]
    if not served:
        raise ValueError(f"{path}: no request was served, so there is nothing to draw")
    figure = _figure(served, title)
    if path.suffix.lower() == ".html":
        write_atomically(path, _page(figure, served, title).splitlines())
        return
    figure_file.save_figure(figure, path)


def _figure(forecasts: Sequence[Forecast], title: str) -> Figure:
    has_prices = all(each.dollars_per_million_output_tokens is not None for each in forecasts)
    costs = [
        (each.dollars_per_million_output_tokens or 0.0) if has_prices else each.joules_per_output_token
        for each in forecasts
    ]
    figure = Figure(figsize=(13, 4.8), layout="constrained")
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2, sharey=True)
    _panel(left, forecasts, [_tpot_ms(each) for each in forecasts], costs, "time per output token, P50, ms")
    _panel(right, forecasts, [_ttft_ms(each) for each in forecasts], costs, "time to first token, P95, ms")
    left.set_ylabel("$ per 1M output tokens" if has_prices else "joules per output token")
    figure.legend(*_legend(left), fontsize=7, loc="outside right upper")
    return figure


def _legend(axes: Axes) -> tuple[list[Line2D], list[str]]:
    """One entry per device and recipe, all in one size."""
    lines = {
        str(line.get_label()): line for line in axes.get_lines() if not str(line.get_label()).startswith("_")
    }
    handles = [
        Line2D([], [], marker=line.get_marker(), color=line.get_color(), linestyle="none")
        for line in lines.values()
    ]
    return handles, list(lines)


class _PlainNumbers(LogFormatter):
    """Where the library writes a number: 0.2 and 10,000 instead of 2e-01 and 1e4."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:,g}" if super().__call__(x, pos) else ""


def _panel(
    axes: Axes, forecasts: Sequence[Forecast], latencies: list[float], costs: list[float], label: str
) -> None:
    front = sorted(pareto_front(list(zip(latencies, costs, strict=True))), key=lambda index: latencies[index])
    axes.plot([latencies[i] for i in front], [costs[i] for i in front], color="0.6", zorder=1, linewidth=1)
    machines = list(dict.fromkeys(each.option.devices for each in forecasts))
    recipes = list(dict.fromkeys(each.option.recipe.name for each in forecasts))
    seen: set[str] = set()
    for index, (forecast, x, y) in enumerate(zip(forecasts, latencies, costs, strict=True)):
        name = f"{forecast.option.devices}, {forecast.option.recipe.name}"
        [point] = axes.plot(
            x,
            y,
            marker=_MARKERS[machines.index(forecast.option.devices) % len(_MARKERS)],
            color=f"C{recipes.index(forecast.option.recipe.name)}",
            markersize=8 if index in front else 5,
            linestyle="none",
            label=None if name in seen else name,
        )
        point.set_gid(f"forecast-{index}")
        seen.add(name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        # Between powers of ten too, where there are few of those.
        axis.set_major_formatter(_PlainNumbers())
        axis.set_minor_formatter(_PlainNumbers(minor_thresholds=(2.0, 0.5)))
    axes.set_xlabel(label)
    axes.grid(alpha=0.3, which="both")


def _tpot_ms(forecast: Forecast) -> float:
    latency = forecast.metrics.tpot or forecast.metrics.end_to_end
    assert latency is not None
    return 1000 * latency.p50


def _ttft_ms(forecast: Forecast) -> float:
    assert forecast.metrics.ttft is not None
    return 1000 * forecast.metrics.ttft.p95


_COLUMNS = ("machine", "recipe", "req/s", "TTFT P95 ms", "TPOT P50 ms", "tokens/s", "$ / 1M out", "J / token")
_SCRIPT = """
const rows = document.querySelectorAll('tbody tr');
const tip = document.getElementById('tip');
document.querySelectorAll('[id^="forecast-"]').forEach(point => {
  const index = +point.id.split('-')[1];
  point.style.cursor = 'pointer';
  point.addEventListener('mousemove', event => {
    rows.forEach((row, i) => row.classList.toggle('on', i === index));
    tip.textContent = LABELS[index];
    tip.style.left = event.pageX + 12 + 'px';
    tip.style.top = event.pageY + 12 + 'px';
    tip.hidden = false;
  });
  point.addEventListener('mouseleave', () => { tip.hidden = true; });
});
"""
_STYLE = """
body { font: 14px sans-serif; margin: 2em; max-width: 75em } svg { max-width: 100%; height: auto }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }
td:nth-child(-n+2), th:nth-child(-n+2) { text-align: left } tr.on { background: #fe9 }
#tip { position: absolute; background: #222; color: #fff; padding: .3em .6em; border-radius: 3px }
"""


def _page(figure: Figure, forecasts: Sequence[Forecast], title: str) -> str:
    """The picture as SVG, a tooltip for every point, and the numbers in a table."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    svg = buffer.getvalue()
    cells = [_cells(each) for each in forecasts]
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in cells
    )
    labels = [f"{row[0]}, {row[1]}: {row[6]} $, TTFT {row[3]} ms, TPOT {row[4]} ms" for row in cells]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in _COLUMNS)
    quoted = json.dumps(labels).replace("<", "\\u003c")  # no label ends the script
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n<h1>{html.escape(title)}</h1>\n{svg[svg.index('<svg') :]}\n"
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>\n"
        f'<div id="tip" hidden></div>\n<script>const LABELS = {quoted};{_SCRIPT}</script></html>'
    )


def _cells(forecast: Forecast) -> list[str]:
    price = forecast.dollars_per_million_output_tokens
    numbers = [
        _ttft_ms(forecast),
        _tpot_ms(forecast),
        forecast.metrics.output_tokens_per_second,
        price,
        forecast.joules_per_output_token,
    ]
    return [
        forecast.option.devices,
        forecast.option.recipe.name,
        forecast.traffic.label,
        *("-" if each is None else f"{each:.4g}" for each in numbers),
    ]
