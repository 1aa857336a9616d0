"""A perplexity for people and for programs."""

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from lapidist.evaluation.perplexity import Perplexity


def print_perplexity(found: Perplexity, window: int, console: Console) -> None:
    """Each number with what it is a mean over."""
    full = sum(each.is_full for each in found.windows)
    over = (
        f"mean over {full} full windows of {window} tokens" if full else "the text is shorter than a window"
    )
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("perplexity", f"{found.perplexity:.4f}", over)
    table.add_row(
        "token-weighted", f"{found.token_perplexity:.4f}", f"over {found.predictions:,} predicted tokens"
    )
    table.add_row(
        "bits per byte", f"{found.bits_per_byte:.4f}", f"over the {found.byte_count:,} bytes of these"
    )
    table.columns[1].justify = "right"
    console.print(table, highlight=False)


def perplexity_fields(found: Perplexity) -> dict[str, Any]:
    """The numbers by name, for JSON."""
    return {
        "perplexity": found.perplexity,
        "token_perplexity": found.token_perplexity,
        "bits_per_byte": None if math.isnan(found.bits_per_byte) else found.bits_per_byte,
        "predicted_tokens": found.predictions,
        "predicted_bytes": found.byte_count,
        "windows": len(found.windows),
        "full_windows": sum(window.is_full for window in found.windows),
    }
