"""``lapidist wafer llm``: a model's requests on a wafer, without running them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapidist.cli.progress import progress_bar
from lapidist.cli.wafer_options import (
    AsJson,
    ClockGHz,
    Constants,
    DeviceName,
    Picture,
    check_pictures,
    load_wafer,
)

if TYPE_CHECKING:
    from lapidist.hardware.wafer.decoder_variant import ModelShape
    from lapidist.hardware.wafer.device import Device
    from lapidist.hardware.wafer.grid_search import GridSearch
    from lapidist.hardware.wafer.llm_cost import LLMCost, PhaseCost, RequestCost
    from lapidist.hardware.wafer.llm_memory import CacheCapacity, Phase
    from lapidist.hardware.wafer.regions import Grid

_STEP = 30


def llm(
    model: Annotated[
        str,
        typer.Argument(
            help="Checkpoint directory ('tiny' is the bundled one), a public shape such as llama-3-8b, or a model of "
            "the paper: LLaMA3-8B, LLaMA2-13B, CodeLLaMA-34B, QWen2-72B.",
            metavar="MODEL",
        ),
    ],
    prompt: Annotated[int, typer.Option(help="Tokens in.", min=1)] = 4096,
    output: Annotated[int, typer.Option(help="Tokens out.", min=1)] = 128,
    prefill_grid: Annotated[
        str, typer.Option(help="Cores for prefill: a side, ROWSxCOLS, or auto.", metavar="GRID")
    ] = "auto",
    decode_grid: Annotated[
        str, typer.Option(help="Cores for decode: a side, ROWSxCOLS, or auto.", metavar="GRID")
    ] = "auto",
    kernels: Annotated[
        str,
        typer.Option(
            help="complete (what the model computes) or released (what the paper timed).", metavar="KIND"
        ),
    ] = "complete",
    rectangles: Annotated[
        bool, typer.Option("--rectangles", help="auto tries oblong grids too, not just squares.")
    ] = False,
    code_bytes: Annotated[
        int, typer.Option(help="Memory of a core that code takes beyond what the device reserves.", min=0)
    ] = 0,
    device: DeviceName = "wse-2",
    constants: Constants = None,
    clock_ghz: ClockGHz = None,
    plot_phases: Picture = None,
    plot_cache: Picture = None,
    as_json: AsJson = False,
) -> None:
    """Prefill, hand-over and decode of one request: cycles, seconds, joules, regions and memory of cores.

    Example: lapidist wafer llm LLaMA3-8B --prompt 4096 --output 128

    Example: lapidist wafer llm LLaMA3-8B --prefill-grid 660 --decode-grid 360 --kernels released
    """
    import json

    from lapidist.cli import wafer_plot
    from lapidist.cli.wafer_report import print_grids, print_request
    from lapidist.hardware.wafer.llm_cost import KERNELS, LLMCost

    check_pictures(plot_phases, plot_cache)
    found, costs = load_wafer(device, constants, clock_ghz)
    chosen = next((each for each in KERNELS if each == kernels), None)
    if chosen is None:
        raise ValueError(f"unknown kernels {kernels!r}; known are {', '.join(KERNELS)}")
    llm = LLMCost(_shape(model), found, costs, chosen, code_bytes)
    searches: dict[str, GridSearch] = {}
    context = prompt + -(-output // 2)
    prefill = _grid(llm, "prefill", prompt, prefill_grid, rectangles, searches)
    decode = _grid(llm, "decode", context, decode_grid, rectangles, searches)
    cost = llm.request(prompt, output, prefill, decode)
    title = f"{model} on {found.title}, {chosen} kernels"
    if as_json:
        typer.echo(
            json.dumps(
                {**_to_json(cost, found, searches), "cache": _capacity_json(llm, cost.decode)}, indent=2
            )
        )
    else:
        for phase, search in searches.items():
            print_grids(
                search.costs,
                found,
                f"fastest grids for {phase}, of {len(search.costs)} that can hold a layer",
            )
        print_request(cost, found, title)
        typer.echo(_capacity_text(llm, cost.decode))
    if plot_cache is not None:
        wafer_plot.plot_cache_maps(
            cost, plot_cache, f"KV cache after {prompt} tokens in and {output} out, {title}"
        )
    if plot_phases is not None:
        squares = [_squares(llm, phase, tokens) for phase, tokens in _phases(prompt, context)]
        wafer_plot.plot_phases(squares[0], squares[1], found, plot_phases, title)


def _phases(prompt: int, context: int) -> "tuple[tuple[Phase, int], tuple[Phase, int]]":
    return ("prefill", prompt), ("decode", context)


def _shape(model: str) -> "ModelShape":
    from lapidist.bundled import resolve_model
    from lapidist.hardware.wafer.published import published_models
    from lapidist.models.config import ModelConfig
    from lapidist.models.shapes import SHAPES

    for name, published in published_models().items():
        if name.casefold() == model.casefold():
            return published
    if model in SHAPES:
        return ModelConfig.of_shape(model)
    path = resolve_model(model)
    if not Path(path).is_dir():
        known = ", ".join([*published_models(), *SHAPES])
        raise ValueError(f"{model}: neither a checkpoint directory nor a known shape; known are {known}")
    return ModelConfig.from_directory(path)


def _grid(
    llm: "LLMCost",
    phase: "Phase",
    tokens: int,
    text: str,
    rectangles: bool,
    searches: "dict[str, GridSearch]",
) -> "Grid":
    from lapidist.hardware.wafer.regions import Grid

    if text != "auto":
        return Grid.parse(text)
    searches[phase] = _search(llm, phase, tokens, not rectangles)
    return searches[phase].best.grid


def _search(llm: "LLMCost", phase: "Phase", tokens: int, squares_only: bool) -> "GridSearch":
    from lapidist.hardware.wafer.grid_search import candidate_grids, search_grids

    with progress_bar() as progress:
        return search_grids(
            llm,
            phase,
            tokens,
            candidate_grids(llm.device, _STEP, squares_only),
            lambda done, total: progress(f"grids for {phase}", done, total),
        )


def _squares(llm: "LLMCost", phase: "Phase", tokens: int) -> "tuple[PhaseCost, ...]":
    return _search(llm, phase, tokens, squares_only=True).costs


def _to_json(cost: "RequestCost", device: "Device", searches: "dict[str, GridSearch]") -> dict[str, object]:
    return {
        "device": device.name,
        "clock_hz": device.clock_hz,
        "prompt": cost.prompt,
        "output": cost.output,
        "cycles": cost.cycles,
        "seconds": cost.seconds,
        "interval_seconds": cost.interval_seconds,
        "time_to_first_token_seconds": cost.time_to_first_token_seconds,
        "output_tokens_per_second": cost.output_tokens_per_second,
        "joules": cost.joules,
        "prefill": _phase_json(cost.prefill),
        "transition": {
            "cycles": cost.transition.cycles,
            "moved_bytes": cost.transition.moved_bytes,
            "weights_move": cost.transition.weights_move,
        },
        "decode": _phase_json(cost.decode),
        "searched": {
            phase: [_phase_json(each) for each in search.costs] for phase, search in searches.items()
        },
    }


def _capacity_text(llm: "LLMCost", decode: "PhaseCost") -> str:
    try:
        found = _capacity(llm, decode)
    except ValueError as error:
        return f"KV cache: {error}"
    return (
        f"KV cache in {found.regions} region{'s' * (found.regions > 1)} of {decode.grid}: room for {found.shift:,} "
        f"tokens if rows are kept even (shift), for {found.concat:,} new ones if they all go to the last row (concat)"
    )


def _capacity_json(llm: "LLMCost", decode: "PhaseCost") -> dict[str, object] | None:
    try:
        found = _capacity(llm, decode)
    except ValueError:
        return None
    return {
        "regions": found.regions,
        "tokens_per_row": found.per_row,
        "concat": found.concat,
        "shift": found.shift,
    }


def _capacity(llm: "LLMCost", decode: "PhaseCost") -> "CacheCapacity":
    """In all regions that the wafer has room for, or as many as the request needs if those are more."""
    return llm.memory.cache_capacity(decode.grid, max(decode.regions, decode.regions_on_wafer))


def _phase_json(cost: "PhaseCost") -> dict[str, object]:
    return {
        "rows": cost.grid.rows,
        "cols": cost.grid.cols,
        "cycles": cost.cycles,
        "layers": cost.layers,
        "layer_cycles": cost.layer.cycles,
        "cycles_by_component": dict(cost.by_component),
        "regions": cost.regions,
        "regions_on_wafer": cost.regions_on_wafer,
        "fits": cost.fits,
        "bytes_per_core": cost.bytes_per_core,
    }
