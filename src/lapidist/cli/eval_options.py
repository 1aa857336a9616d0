"""Arguments that the commands of ``lapidist eval`` share."""

from pathlib import Path
from typing import Annotated

import typer

Text = Annotated[
    list[Path] | None,
    typer.Option(
        help='Text to predict: .txt, or .jsonl with {"text": ...}, also packed as .gz; may be given several times.',
        metavar="FILE",
    ),
]
Window = Annotated[
    int | None,
    typer.Option(help="Tokens in a window. (default: the model's context, 2048 at most)", metavar="N"),
]
Stride = Annotated[
    int | None,
    typer.Option(
        help="From one window's start to the next one's; less than a window gives tokens more context. "
        "(default: a window)",
        metavar="N",
    ),
]
Bos = Annotated[
    bool,
    typer.Option("--bos", help="Begin every window, not just the text, with the beginning-of-text token."),
]
MaxTokens = Annotated[int | None, typer.Option(help="Only so many tokens of the text.", metavar="N", min=2)]


def read_text(files: list[Path] | None) -> list[str]:
    """The documents of ``--text``.

    Raises
    ------
    ValueError : none was given, or a file cannot be read.
    """
    from lapidist.evaluation.text import read_text_files

    if not files:
        raise ValueError(
            "name a text with --text FILE. There is no default: the text that ships is what quantization is "
            "calibrated on, and on it a model looks better than it is"
        )
    return read_text_files(files)
