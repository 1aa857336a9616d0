"""Arguments that the commands of ``lapidist eval`` share."""

from collections.abc import Sequence
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
    from lapidist.models.calibration.text_files import read_texts

    if not files:
        raise ValueError(
            "name a text with --text FILE. There is no default: the text that ships is what quantization is "
            "calibrated on, and on it a model looks better than it is"
        )
    return read_texts(files)


Methods = Annotated[
    str,
    typer.Option(
        help="full, gemfilter, snapkv, h2o, streamingllm, fastkv, adaptive; a filter's options follow it, as in "
        "gemfilter:layer=3:positions=original.",
        metavar="NAME,NAME,...",
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        help="What filters keep of a prompt: a share such as 0.1, or tokens such as 1024. (default: the checkpoint's, "
        "else 1024)",
        metavar="SHARE|N",
    ),
]
Lengths = Annotated[
    str | None,
    typer.Option(help="Lengths of the prompts in the model's tokens, such as 512,1024.", metavar="N,N,..."),
]
Haystack = Annotated[
    Path | None,
    typer.Option(
        help="Text around what is hidden: a .txt or .jsonl file, also as .gz, or a folder of these. "
        "(default: generated sentences)",
        metavar="FILE|DIR",
    ),
]
Results = Annotated[
    Path | None,
    typer.Option(
        help="Keep replies in this folder, a file per method and length or task; a run that was stopped goes on from "
        "there.",
        metavar="DIR",
        file_okay=False,
    ),
]
JsonFile = Annotated[
    str | None, typer.Option("--json", help="Write all numbers and replies to a file; - is standard output.")
]
Plot = Annotated[
    Path | None, typer.Option(help="Draw heat maps, one per method: .png, .svg or .pdf.", dir_okay=False)
]


def whole_numbers(option: str, given: str | None) -> tuple[int, ...] | None:
    """Numbers from 0 up, separated by commas.

    Raises
    ------
    ValueError : they are not.
    """
    if given is None:
        return None
    try:
        numbers = tuple(int(each) for each in given.split(","))
    except ValueError:
        numbers = (-1,)
    if min(numbers) < 0:
        raise ValueError(f"{option} must be numbers such as 256,1024, got {given!r}")
    return numbers


def names(given: str | None) -> tuple[str, ...] | None:
    """Names separated by commas."""
    return None if given is None else tuple(each.strip() for each in given.split(","))


def percentages(option: str, given: str | None) -> tuple[int, ...] | None:
    """Numbers from 0 to 100, separated by commas.

    Raises
    ------
    ValueError : they are not.
    """
    numbers = whole_numbers(option, given)
    if numbers is not None and max(numbers) > 100:
        raise ValueError(f"{option} must be percentages from 0 to 100, got {given!r}")
    return numbers


def check_choice(option: str, given: str, choices: Sequence[str]) -> None:
    """
    Raises
    ------
    ValueError : ``given`` is none of ``choices``.
    """
    if given not in choices:
        raise ValueError(f"{option} must be one of {', '.join(choices)}, got {given!r}")


def check_outputs(json_file: str | None, plot: Path | None) -> None:
    """What cannot be written is noticed before the measurement, not after it.

    Raises
    ------
    ValueError : a folder does not exist, or a picture has no known format.
    """
    from lapidist.figure_file import check_plot

    if plot is not None:
        check_plot(plot)
    if json_file not in (None, "-") and not Path(json_file).parent.is_dir():
        raise ValueError(f"{json_file}: the folder {Path(json_file).parent} does not exist")
