"""What ``lapidist generate --show-filter`` prints: the prompt, with what the filter kept highlighted."""

from rich.console import Console
from rich.text import Text

from lapidist.cli.filter_pieces import stretches, token_pieces
from lapidist.engine.outputs import RequestOutput
from lapidist.engine.prompt_filters import FilterReport
from lapidist.models.tokenizer import Tokenizer


def print_filter(output: RequestOutput, tokenizer: Tokenizer, console: Console) -> None:
    """Kept text in colour on a terminal that has colours, elsewhere between ⟦ and ⟧."""
    report = output.prompt_filter
    if report is None:
        return
    pieces = token_pieces(output, tokenizer)
    in_colour = console.is_terminal and not console.no_color
    text = Text()
    for kept, part in stretches(pieces or []):
        if in_colour:
            text.append(part, style="bold black on yellow" if kept else "dim")
        else:
            text.append(f"⟦{part}⟧" if kept else part)
    if pieces:
        console.print(text, soft_wrap=True)
    console.print(Text(f"--- {summary(report)}", style="dim"), soft_wrap=True)


def summary(report: FilterReport) -> str:
    """One line."""
    if report.bypassed is not None:
        return f"{report.method}: the prompt of {report.prompt_tokens} tokens was not filtered: {report.bypassed}"
    parts = [
        f"{report.method}: {report.kept_tokens} of {report.prompt_tokens} tokens kept",
        None if report.layer is None else f"by layer {report.layer}",
        "from memory" if report.from_memory else f"in {report.seconds:.2f} s",
        f"{report.scratch_bytes / 2**20:.1f} MiB beside weights and KV cache"
        if report.scratch_bytes
        else None,
        None
        if not report.forecast_gain or report.forecast_gain == 1
        else f"forecast {report.forecast_gain:.2f}x",
    ]
    return ", ".join(part for part in parts if part)
