"""``lapidist quantize``: cuts a checkpoint to fewer bits."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapidist.cli import options

if TYPE_CHECKING:
    from lapidist.quantization.recipe import Recipe


def quantize(
    model: Annotated[str | None, typer.Argument(help=options.MODEL_HELP, metavar="MODEL")] = None,
    out: Annotated[Path | None, typer.Argument(help="Directory to make.", metavar="OUT")] = None,
    recipe: Annotated[
        str, typer.Option(help="A recipe's name (see --list), or a .yaml file of one.", metavar="RECIPE")
    ] = "qoq-g128",
    text: Annotated[
        list[Path] | None,
        typer.Option(
            help='Calibration text, .txt or .jsonl with {"text": ...}; may be given several times. '
            "(default: a mixture that ships with Lapidist)",
            metavar="FILE",
        ),
    ] = None,
    sequences: Annotated[
        int | None, typer.Option(help="Passages of it to run. (default: the recipe's, 64)", metavar="N")
    ] = None,
    length: Annotated[
        int | None, typer.Option(help="Tokens of a passage. (default: the recipe's, 512)", metavar="N")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Which passages. (default: the recipe's, 42)", metavar="N")
    ] = None,
    list_recipes: Annotated[bool, typer.Option("--list", help="List the recipes and leave.")] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the recipe as YAML and leave; a start for your own.")
    ] = False,
) -> None:
    """Cut MODEL to fewer bits by a recipe, into the new directory OUT, which serves like any other checkpoint.

    A run that was stopped goes on where it was when the same command is given again.

    Example: lapidist quantize /models/llama-3.2-1b ./llama-3.2-1b-w4a8kv4

    Example: lapidist quantize tiny ./tiny-w4a8kv4 --recipe qoq-channel

    Example: lapidist quantize --recipe qoq-g128 --show > mine.yaml
    """
    from lapidist.quantization.recipe import load_recipe

    if list_recipes:
        _print_recipes()
        return
    changes = {"sequences": sequences, "length": length, "seed": seed}
    chosen = load_recipe(recipe).calibrated_by(options.given(**changes))
    if show:
        typer.echo(chosen.to_yaml(), nl=False)
        return
    if model is None or out is None:
        raise typer.BadParameter(
            "name a checkpoint and the directory to make, for example tiny ./tiny-w4a8kv4, or use --list"
        )
    _quantize(model, out, chosen, text)


def _quantize(model: str, out: Path, recipe: "Recipe", text: list[Path] | None) -> None:
    from lapidist.bundled import resolve_model
    from lapidist.cli.progress import progress_bar
    from lapidist.models.calibration.text_files import read_texts
    from lapidist.quantization.quantize import quantize as run

    texts = read_texts(text) if text else None
    source = resolve_model(model)
    with progress_bar() as progress:
        run(source, out, recipe, texts, lambda done, total, what: progress(what, done, total))
    made, before = _weight_bytes(out), _weight_bytes(source)
    typer.echo(f"{out}: {recipe.name}, {made / 1e9:.3f} GB of weights, {before / 1e9:.3f} GB before")


def _weight_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob("*.safetensors"))


def _print_recipes() -> None:
    from rich.console import Console
    from rich.table import Table

    from lapidist.quantization.recipe import RECIPES, load_recipe

    table = Table("recipe", "weights", "rounding", "inputs", "KV", "head", "passes")
    for name in RECIPES:
        recipe = load_recipe(name)
        weights = recipe.weights
        rounding = "" if weights.is_float else weights.rounding + (" + clip" if weights.clip else "")
        numbers = (_bits(recipe.activations), _bits(recipe.kv_cache), _bits(recipe.lm_head.bits))
        groups = " in groups" if weights.group_size else ""
        passes = ", ".join(recipe.passes).replace("_", " ")
        table.add_row(name, f"{_bits(weights.bits)}{groups}", rounding, *numbers, passes)
    Console().print(table)
    typer.echo("Numbers are bits. --recipe NAME --show prints a recipe as YAML.")


def _bits(bits: int) -> str:
    return "float" if bits == 16 else str(bits)
