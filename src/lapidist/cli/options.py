"""Arguments that several commands share, each defined once."""

from pathlib import Path
from typing import Annotated, Any

import typer

MODEL_HELP = "Directory of a Hugging Face checkpoint, or 'tiny' for the bundled model."
Model = Annotated[str, typer.Argument(help=MODEL_HELP, metavar="MODEL")]
Dtype = Annotated[
    str, typer.Option(help="auto (the checkpoint's), float32, bfloat16 or float16.", metavar="DTYPE")
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.", metavar="DEVICE")]
MaxModelLen = Annotated[
    int | None,
    typer.Option(help="Prompt and generated tokens at most. (default: the model's context)", min=1),
]
MaxTokens = Annotated[int, typer.Option(help="Tokens to generate at most.", min=1)]
Temperature = Annotated[
    float | None, typer.Option(help="0 is greedy. (default: the checkpoint's, else 1)", min=0.0)
]
TopP = Annotated[
    float | None, typer.Option(help="Sample from the likeliest tokens with this total probability.")
]
TopK = Annotated[int | None, typer.Option(help="Sample from this many likeliest tokens; 0 is all.")]
Seed = Annotated[int | None, typer.Option(help="Makes sampling repeatable.")]
Stop = Annotated[
    list[str] | None, typer.Option(help="Text that ends the generation; may be given several times.")
]
AttentionSoftmax = Annotated[
    str,
    typer.Option(
        help="auto (what calibrate-attention found, else lazy), online, lazy or unified.", metavar="MODE"
    ),
]
Record = Annotated[
    Path | None, typer.Option(help="Write one JSON line per engine step to this file.", dir_okay=False)
]


def given(**values: Any) -> dict[str, Any]:
    """The values that were given: without those that are None."""
    return {name: value for name, value in values.items() if value is not None}
