"""What ``lapidist wafer`` prints for people."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lapidist.hardware.wafer.calibration import Accuracy, Calibration
from lapidist.hardware.wafer.contest import Entry
from lapidist.hardware.wafer.contradictions import Contradiction
from lapidist.hardware.wafer.cost import COMPUTE
from lapidist.hardware.wafer.cost_constants import meaning
from lapidist.hardware.wafer.device import Device
from lapidist.hardware.wafer.llm_cost import PhaseCost, RequestCost, component_shares
from lapidist.hardware.wafer.reproduction import Cell


def print_contest(entries: Sequence[Entry], device: Device, title: str) -> None:
    """A line per algorithm: routes and memory of a core, hops of its longest step, stages in all.

    The fastest that runs is bold; those with a star do not, for the reason given below.
    """
    running = [entry.cost.cycles for entry in entries if not entry.refusal]
    fastest = min(running, default=0.0)
    columns = ("cycles", "µs", "x best", "work", "routes", "hops", "stages", "KB", "J")
    table = _table(title, "algorithm", *columns)
    for entry in entries:
        cost, summary = entry.cost, entry.summary
        seconds = cost.cycles / device.clock_hz
        name = f"{entry.name} *" if entry.refusal else entry.name
        if cost.cycles == fastest and not entry.refusal:
            name = f"[bold]{name}[/bold]"
        table.add_row(
            name,
            f"{cost.cycles:,.0f}",
            f"{1e6 * seconds:.4g}",
            f"{cost.cycles / fastest:.2f}" if fastest else "-",
            f"{cost.share(COMPUTE):.0%}",
            str(summary.paths_per_core),
            str(summary.hops_per_step),
            str(summary.stages),
            f"{summary.peak_bytes / 1024:.1f}",
            "-" if device.watts is None else f"{device.watts * seconds:.3g}",
        )
    console = Console()
    console.print(table)
    for entry in entries:
        if entry.refusal:
            console.print(f"* {escape(entry.refusal)}", highlight=False, soft_wrap=True)


def print_request(cost: RequestCost, device: Device, title: str) -> None:
    """The phases of a request, what it comes to, and what makes up the cycles of each phase."""
    console = Console()
    table = _table(title, "phase", "grid", "cycles", "ms", "regions", "KB/core", "tokens/s")
    for phase, tokens in ((cost.prefill, cost.prompt), (cost.decode, 1)):
        seconds = phase.cycles / device.clock_hz
        table.add_row(
            "prefill" if phase.phase == "prefill" else "one token",
            str(phase.grid),
            f"{phase.cycles:,.0f}",
            f"{1e3 * seconds:.4g}",
            f"{phase.regions} of {phase.regions_on_wafer}",
            f"{phase.bytes_per_core / 1024:.1f}",
            f"{tokens / seconds:,.0f}",
        )
    console.print(table)
    moved = cost.transition
    what = "weights and KV cache" if moved.weights_move else "KV cache"
    energy = (
        "" if cost.joules is None else f", {cost.joules:.4g} J, {cost.joules / cost.output:.3g} J a token"
    )
    interval = ""
    if cost.interval_seconds is not None:
        low, high = (f"{1e3 * edge:.4g}" for edge in cost.interval_seconds)
        interval = f" ({low} to {high} in nine of ten cases)"
    console.print(
        f"between the phases: {what}, {moved.moved_bytes / 1e9:.3g} GB, {1e3 * moved.cycles / device.clock_hz:.3g} ms\n"
        f"{cost.prompt} tokens in, {cost.output} out: {1e3 * cost.seconds:.4g} ms{interval}, first token after "
        f"{1e3 * cost.time_to_first_token_seconds:.4g} ms, "
        f"{cost.output_tokens_per_second:,.1f} output tokens/s{energy}",
        highlight=False,
        soft_wrap=True,
    )
    for phase in (cost.prefill, cost.decode):
        shares = ", ".join(f"{name} {share:.1%}" for name, share in component_shares(phase).items())
        console.print(f"{phase.phase}: {shares}", highlight=False, soft_wrap=True)
        if not phase.fits:
            console.print(
                f"{phase.phase} needs {phase.regions} regions of {phase.grid} and the wafer has room for "
                f"{phase.regions_on_wafer}: costed as if there were more wafers",
                highlight=False,
                soft_wrap=True,
            )


def print_grids(costs: Sequence[PhaseCost], device: Device, title: str, count: int = 8) -> None:
    """The fastest grids of a phase; of regions those needed and those for which the wafer has room."""
    table = _table(title, "grid", "cycles", "ms", "regions", "KB/core")
    for cost in costs[:count]:
        table.add_row(
            str(cost.grid),
            f"{cost.cycles:,.0f}",
            f"{1e3 * cost.cycles / device.clock_hz:.4g}",
            f"{cost.regions} of {cost.regions_on_wafer}",
            f"{cost.bytes_per_core / 1024:.1f}",
        )
    Console().print(table)


def print_calibration(fit: Calibration, held_out: Accuracy | None) -> None:
    """Constants with their standard errors, what the measurements leave open, and errors in and out of the fit."""
    console = Console()
    table = _table("", "constant", "cycles", "±", "per", "what")
    for name in fit.fitted:
        what, unit = meaning(name)
        error = fit.deviations[name]
        open_ = error == float("inf")
        value = getattr(fit.model.constants, name)
        table.add_row(
            name, f"{value:.4g}", "open" if open_ else f"{error:.2g}", unit.removeprefix("cycles per "), what
        )
    for column in table.columns[3:]:
        column.justify = "left"
    console.print(table)
    for label, found in (("fit", fit.accuracy), ("held out", held_out)):
        if found is not None:
            console.print(
                f"{label}: {len(found.labels)} runs, mean error {found.mape:.2%}, largest {found.largest:.2%} "
                f"({found.worst}), bias {found.bias:+.2%}",
                highlight=False,
            )
    console.print(f"condition of the design matrix: {fit.condition:.3g}", highlight=False)


def print_reproduction(
    cells: Sequence[Cell], found: Sequence[Contradiction], missing: dict[str, str]
) -> None:
    """Every table of the paper beside ours, then what contradicts itself and what is not modelled."""
    console = Console()
    for number in dict.fromkeys(cell.table for cell in cells):
        table = _table(f"Table {number}", "row", "column", "published", "ours", "error", "ours is")
        table.columns[1].justify = table.columns[5].justify = "left"
        table.columns[0].no_wrap = False
        for column in table.columns[1:5]:
            column.no_wrap = True
        for cell in cells:
            if cell.table == number:
                column_text = cell.column if cell.unit == "tokens/s" else f"{cell.column}, {cell.unit}"
                numbers = (f"{cell.published:,.7g}", _like(cell), f"{cell.error:+.1%}")
                table.add_row(cell.row, column_text, *numbers, cell.how)
        console.print(table)
    for each in found:
        console.print(
            f"[bold]{each.where}[/bold]: {each.says}; but {each.but}", highlight=False, soft_wrap=True
        )
    for what, why in missing.items():
        console.print(f"not modelled: {what} ({why})", highlight=False, soft_wrap=True)


def _like(cell: Cell) -> str:
    """Ours with as many digits as one would print."""
    return f"{cell.ours:,.0f}" if cell.unit == "tokens" else f"{cell.ours:,.5g}"


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first, no_wrap=True, min_width=12)
    for name in others:
        table.add_column(name, justify="right")
    return table
