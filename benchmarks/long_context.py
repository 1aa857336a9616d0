"""Prompt filters on the bundled model: what is found of a long prompt of which a tenth is kept.

    python -m benchmarks.long_context --haystack needle_haystack_essays.txt.gz --plots docs

First GemFilter's filter layer and policy are chosen on needles in generated prose: of the policies below, in their
order, the first one that finds as much as the full prompt (98 %), at its earliest such layer, or else the best. Then
all methods are run on other needles in the haystack, and on RULER's tasks in the wording that the model was trained on.
Writes ``results/long_context.json``; takes about eight minutes on two quiet cores. With ``--replies`` a run that was
stopped goes on.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.result_file import write_result
from lapidist.bundled import resolve_model
from lapidist.engine.llm import LLM
from lapidist.evaluation.haystack import haystack_of
from lapidist.evaluation.long_context.generated_prose import generated_prose
from lapidist.evaluation.long_context.heat_map import plot_heat_maps
from lapidist.evaluation.long_context.methods import parse_methods
from lapidist.evaluation.long_context.needle import NeedleSettings, evaluate_needle
from lapidist.evaluation.long_context.needle_grid import needle_cases
from lapidist.evaluation.long_context.report import method_fields
from lapidist.evaluation.long_context.result import MethodResult
from lapidist.evaluation.long_context.run import run_methods
from lapidist.evaluation.long_context.store import OutcomeStore, fingerprint
from lapidist.evaluation.ruler.evaluation import RulerSettings, evaluate_ruler

KEEP = 0.1
LENGTHS = (512, 1024, 2048)
STYLE = "number"
ENOUGH = 0.98

# GemFilter's options beside the layer. The published policy first; then the last tokens, which hold the question, are
# kept in any case; then tokens are scored with attention weights of a few queries, averaged over a span that covers a
# number of five digits, each of which is a token of its own in the bundled model. Window and pool were picked by hand,
# among a dozen settings, on needles of another seed than those below.
POLICIES = {
    "as published": "",
    "ends kept": ":keep_first=1:keep_last=24",
    "ends kept, attention weights of 4 queries": ":keep_first=1:keep_last=24:softmax=true:window=4:pool=13",
}
SPAN = ":window=4:pool=13"


def rivals(layer: int, last: int) -> dict[str, list[str]]:
    """The other methods. Those that look at one layer look at the one chosen for GemFilter; with ``SPAN`` they have its
    window and pool too, so that the published ones, made for models of 8 billion parameters, are no handicap. The
    adaptive filter then spends its whole budget: with less of the attention's mass it keeps fewer tokens."""
    adaptive = f"adaptive:first_layer={layer}:last_layer={min(layer + 2, last)}"
    return {
        "gemfilter": ["gemfilter"],
        "snapkv": ["snapkv", f"snapkv{SPAN}"],
        "h2o": ["h2o"],
        "streamingllm": ["streamingllm"],
        "fastkv": [f"fastkv:layer={layer}", f"fastkv:layer={layer}{SPAN}"],
        "adaptive": [adaptive, f"{adaptive}:keep_last=24:mass=0.99{SPAN}"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--haystack", type=Path, help="text to hide needles in; generated prose otherwise")
    parser.add_argument("--trials", type=int, default=2, help="needles per length and depth")
    parser.add_argument("--samples", type=int, default=3, help="of each of RULER's tasks and lengths")
    parser.add_argument("--replies", type=Path, help="folder for replies, from which a stopped run goes on")
    parser.add_argument("--plots", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    model = resolve_model(options.model)
    sweep, chosen, last = choose(model, folder(options.replies, "sweep"))
    others = rivals(int(chosen.removeprefix("gemfilter:layer=").split(":")[0]), last)
    needle = evaluate_needle(
        model,
        parse_methods(",".join(["full", chosen, *chain(*others.values())]), KEEP),
        NeedleSettings(
            lengths=LENGTHS, trials=options.trials, style=STYLE, seed=2, haystack=options.haystack
        ),
        folder(options.replies, "needle"),
        Printed("needle"),
    )
    ruler = evaluate_ruler(
        model,
        parse_methods(
            ",".join(["full", chosen, *others["snapkv"], *others["fastkv"], *others["adaptive"]]), KEEP
        ),
        RulerSettings(
            lengths=LENGTHS,
            samples=options.samples,
            phrasing="plain",
            chat=False,
            seed=2,
            haystack=options.haystack,
        ),
        folder(options.replies, "ruler"),
        Printed("ruler"),
    )
    result: dict[str, Any] = {
        "model": model.name,
        "kept_share": KEEP,
        "layer_sweep": sweep,
        "chosen": chosen,
        "needle": {
            "settings": needle.settings,
            "methods": [method_fields(each, False) for each in needle.results],
        },
        "ruler": {
            "settings": ruler.settings,
            "methods": [method_fields(each, False) for each in ruler.results],
        },
        "claims": claims(needle.results, ruler.results, chosen, others),
    }
    print(write_result("long_context", result))
    for claim, fact in result["claims"].items():
        print(f"{'met    ' if fact['met'] else 'NOT MET'} {claim}: {fact}")
    if options.plots is not None:
        plot_sweep(sweep, options.plots / "prompt_filter_layers.png")
        plot_heat_maps(
            needle.results,
            options.plots / "prompt_filter_needles.png",
            f"Needles found, {KEEP:.0%} of the prompt kept",
            "depth",
        )
        plot_heat_maps(
            ruler.results,
            options.plots / "prompt_filter_ruler.png",
            f"RULER's tasks in plain words, {KEEP:.0%} of the prompt kept",
            "task",
        )


class Printed:
    """Progress as lines, one per part."""

    def __init__(self, label: str) -> None:
        self._label, self._began = label, time.perf_counter()

    def __call__(self, part: str, done: int, total: int) -> None:
        if done == total:
            print(
                f"{self._label} {part}: {done} prompts, {time.perf_counter() - self._began:.0f} s", flush=True
            )


def folder(replies: Path | None, part: str) -> Path | None:
    return None if replies is None else replies / part


def choose(model: Path, replies: Path | None) -> tuple[list[dict[str, Any]], str, int]:
    """Accuracy of every policy at every layer, on needles in generated prose; the method chosen by it; the last
    layer."""
    llm = LLM(model)
    tokenizer = llm.get_tokenizer()
    haystack = haystack_of(generated_prose(40_000, seed=1), tokenizer)
    layers = range(llm.engine.config.num_layers)
    names = {
        policy: [f"gemfilter:layer={layer}{options}" for layer in layers]
        for policy, options in POLICIES.items()
    }
    results = run_methods(
        llm,
        parse_methods(",".join(["full", *chain(*names.values())]), KEEP),
        [str(length) for length in LENGTHS],
        lambda column: needle_cases(
            haystack, tokenizer, int(column), (0.1, 0.5, 0.9), trials=2, style=STYLE, seed=1
        ),
        OutcomeStore(replies, {"model": fingerprint(model)}),
        Printed("sweep"),
    )
    found = {result.method.label: result.mean for result in results}
    full = found["full"]
    sweep = [
        {
            "policy": policy,
            "options": POLICIES[policy].removeprefix(":"),
            "full": full,
            "accuracy_by_layer": [found[name] for name in own],
        }
        for policy, own in names.items()
    ]
    enough = [name for own in names.values() for name in own if found[name] >= ENOUGH * full]
    best = max(found.keys() - {"full"}, key=lambda name: found[name])
    return sweep, enough[0] if enough else best, layers[-1]


def claims(
    needle: Sequence[MethodResult], ruler: Sequence[MethodResult], chosen: str, others: dict[str, list[str]]
) -> dict[str, Any]:
    """What was to be shown, with the numbers."""
    found = {result.method.label: result.mean for result in needle}
    tasks = {result.method.label: result.mean for result in ruler}
    same = [chosen, *others["snapkv"], *others["h2o"]]
    found_claims: dict[str, Any] = {
        "GemFilter finds at least 95 % of the needles that the full prompt does": {
            "scores": {name: found[name] for name in (chosen, "full")},
            "met": found[chosen] >= 0.95 * found["full"],
        },
        "GemFilter finds as many as SnapKV and H2O of which the same share is kept": {
            "scores": {name: found[name] for name in same},
            "met": found[chosen] == max(found[name] for name in same),
        },
    }
    spans = ("its published window and pool", "the window and pool of GemFilter")
    for span, own, other in zip(spans, others["adaptive"], others["fastkv"], strict=True):
        found_claims[f"the adaptive filter scores as much as FastKV with {span} on RULER's tasks"] = {
            "scores": {name: tasks[name] for name in (own, other, "full")},
            "bypassed": next(result.bypassed for result in ruler if result.method.label == own),
            "met": tasks[own] >= tasks[other],
        }
    return found_claims


def plot_sweep(sweep: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy over the filter layer, a line per policy."""
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    for each in sweep:
        axes.plot(each["accuracy_by_layer"], marker="o", markersize=4, label=each["policy"])
    axes.axhline(sweep[0]["full"], color="grey", linestyle="--", linewidth=1, label="full prompt")
    axes.set(xlabel="filter layer, counted from 0", ylabel="needles found", ylim=(-0.03, 1.03))
    axes.set_title(f"GemFilter by filter layer, {KEEP:.0%} of the prompt kept", fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
