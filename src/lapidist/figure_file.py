"""A figure as a file: which formats there are, and writing one whole or not at all."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")


def check_format(path: Path, formats: tuple[str, ...] = FORMATS) -> None:
    """Refuse a format that cannot be written, before the work rather than after it; raises ValueError."""
    if path.suffix.lower() not in formats:
        raise ValueError(f"{path}: a plot is written as {', '.join(formats)}")


def check_plot(path: Path) -> None:
    """Refuse what cannot be written, a folder that is not there included; raises ValueError."""
    check_format(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist")


def save_figure(figure: "Figure", path: Path, dpi: int = 150) -> None:
    """Write ``figure`` under a temporary name, then rename it to ``path``."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        figure.savefig(temporary, dpi=dpi)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
