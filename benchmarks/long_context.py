"""Prompt filters on the bundled model: what is found of a long prompt of which a tenth is kept.

    python -m benchmarks.long_context --haystack needle_haystack_essays.txt.gz --plots docs

The model must be calibrated (``lapidist calibrate-filter``), which was done on other text and with other facts. First
GemFilter's layers are swept on needles in generated prose, with the published policy and with the calibrated one. Then
all methods are run on other needles in the haystack, and on RULER's tasks in the wording that the model was trained on.
FastKV and SnapKV stand there with their published windows and spans, and with those of the calibrated filters; and
FastKV once more with a budget of as many tokens as the adaptive filter kept.

Writes ``results/long_context.json``; takes about ten minutes on two quiet cores. With ``--replies`` a run that was
stopped goes on.
"""

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.result_file import write_result
from lapidist.bundled import resolve_model
from lapidist.engine.llm import LLM
from lapidist.evaluation.haystack import haystack_of
from lapidist.evaluation.long_context.evaluation_run import EvaluationRun
from lapidist.evaluation.long_context.generated_prose import generated_prose
from lapidist.evaluation.long_context.heat_map import plot_heat_maps
from lapidist.evaluation.long_context.methods import parse_methods
from lapidist.evaluation.long_context.needle import NeedleSettings, evaluate_needle
from lapidist.evaluation.long_context.needle_grid import needle_cases
from lapidist.evaluation.long_context.report import method_fields
from lapidist.evaluation.long_context.result import Evaluation, MethodResult
from lapidist.evaluation.long_context.run import run_methods
from lapidist.evaluation.long_context.store import OutcomeStore, fingerprint
from lapidist.evaluation.ruler.evaluation import RulerSettings, evaluate_ruler
from lapidist.figure_file import save_figure
from lapidist.models.config import ModelConfig
from lapidist.models.filter_config import AdaptivePolicy, FilterDefaults, GemFilterPolicy

KEEP = 0.1
LENGTHS = (512, 1024, 2048)
STYLE = "number"
SWEEP_SEED, SEED = 3, 2  # calibration has 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--haystack", type=Path, help="text to hide needles in; generated prose otherwise")
    parser.add_argument("--trials", type=int, default=4, help="needles per length and depth")
    parser.add_argument("--samples", type=int, default=10, help="of each of RULER's tasks and lengths")
    parser.add_argument("--replies", type=Path, help="folder for replies, from which a stopped run goes on")
    parser.add_argument("--plots", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    model = resolve_model(options.model)
    calibrated = ModelConfig.from_directory(model).prompt_filter
    if calibrated is None or calibrated.adaptive is None:
        parser.error(f"{model} has no calibrated policies: run lapidist calibrate-filter on it")
    methods = Methods.of(calibrated)
    sweep = sweep_layers(model, folder(options.replies, "sweep"))
    needle = evaluate_needle(
        run_of(model, methods.of_needles(), options.replies, "needle"),
        NeedleSettings(
            lengths=LENGTHS, trials=options.trials, style=STYLE, seed=SEED, haystack=options.haystack
        ),
    )
    settings = RulerSettings(
        lengths=LENGTHS,
        samples=options.samples,
        phrasing="plain",
        chat=False,
        seed=SEED,
        haystack=options.haystack,
    )
    ruler = evaluate_ruler(run_of(model, methods.of_ruler(), options.replies, "ruler"), settings)
    [adaptive] = [result for result in ruler.results if result.method.label == "adaptive"]
    equal = [f"{name}:keep={equal_share(adaptive)}" for name in methods.fastkv]
    matched = evaluate_ruler(run_of(model, equal, options.replies, "ruler"), settings)
    result: dict[str, Any] = {
        "model": model.name,
        "kept_share": KEEP,
        "calibrated": {"layer": calibrated.layer, "keep": calibrated.keep},
        "layer_sweep": sweep,
        "needle": part(needle),
        "ruler": part(ruler),
        "ruler_equal_tokens": part(matched),
        "claims": needle_claims(needle.results, methods)
        | ruler_claims(adaptive, [each for each in ruler.results if "fastkv" in each.method.label], "10 %")
        | ruler_claims(adaptive, matched.results, "as many tokens"),
    }
    print(write_result("long_context", result))
    for claim, fact in result["claims"].items():
        print(f"{'met    ' if fact['met'] else 'NOT MET'} {claim}: {fact}")
    if options.plots is not None:
        plot(options.plots, sweep, needle, ruler)


@dataclass(frozen=True)
class Methods:
    """Names of methods. What looks at one layer looks at the calibrated one.

    Attributes
    ----------
    gem_span, adaptive_span : window and pool of the calibrated policies, as options, so that the published ones, made
        for models of 8 billion parameters, are no handicap.
    """

    layer: int
    gem_span: str
    adaptive_span: str

    @staticmethod
    def of(calibrated: FilterDefaults) -> "Methods":
        adaptive = calibrated.adaptive or AdaptivePolicy()
        return Methods(calibrated.layer, span(calibrated.gemfilter or GemFilterPolicy()), span(adaptive))

    @property
    def rivals(self) -> list[str]:
        """Of GemFilter."""
        spans = dict.fromkeys([self.gem_span, self.adaptive_span])
        return ["snapkv", *(f"snapkv{own}" for own in spans), "h2o"]

    @property
    def fastkv(self) -> list[str]:
        """Published first."""
        spans = dict.fromkeys(["", self.gem_span, self.adaptive_span])
        return [f"fastkv:layer={self.layer}{own}" for own in spans]

    def of_needles(self) -> list[str]:
        published = "gemfilter:policy=published"
        return ["full", "gemfilter", published, *self.rivals, "streamingllm", *self.fastkv, "adaptive"]

    def of_ruler(self) -> list[str]:
        return ["full", "gemfilter", *self.rivals[:-1], *self.fastkv, "adaptive"]


def span(policy: GemFilterPolicy | AdaptivePolicy) -> str:
    return f":window={policy.window}:pool={policy.pool}"


def run_of(model: Path, methods: Sequence[str], replies: Path | None, part: str) -> EvaluationRun:
    chosen = parse_methods(",".join(methods), KEEP)
    return EvaluationRun(model, chosen, folder(replies, part), progress=Printed(part))


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


def sweep_layers(model: Path, replies: Path | None) -> list[dict[str, Any]]:
    """Accuracy by layer on needles in generated prose, of the published and of the calibrated policy."""
    llm = LLM(model)
    tokenizer = llm.get_tokenizer()
    haystack = haystack_of(generated_prose(40_000, seed=SWEEP_SEED), tokenizer)
    layers = range(llm.engine.config.num_layers)
    names = {
        policy: [f"gemfilter:policy={policy}:layer={layer}" for layer in layers]
        for policy in ("published", "calibrated")
        if policy == "published" or has_policy(llm.engine.config.prompt_filter)
    }
    results = run_methods(
        llm,
        parse_methods(",".join(["full", *chain(*names.values())]), KEEP),
        [str(length) for length in LENGTHS],
        lambda column: needle_cases(
            haystack, tokenizer, int(column), (0.1, 0.5, 0.9), trials=2, style=STYLE, seed=SWEEP_SEED
        ),
        OutcomeStore(replies, {"model": fingerprint(model)}),
        Printed("sweep"),
    )
    found = {result.method.label: result.mean for result in results}
    return [
        {"policy": policy, "full": found["full"], "accuracy_by_layer": [found[name] for name in own]}
        for policy, own in names.items()
    ]


def has_policy(calibrated: FilterDefaults | None) -> bool:
    return calibrated is not None and calibrated.gemfilter is not None


def part(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "settings": evaluation.settings,
        "methods": [method_fields(each, with_replies=False) for each in evaluation.results],
    }


def needle_claims(results: Sequence[MethodResult], methods: Methods) -> dict[str, Any]:
    found = {result.method.label: result.mean for result in results}
    same = ["gemfilter", *methods.rivals]
    return {
        "GemFilter finds at least 95 % of the needles that the full prompt does": {
            "scores": {name: found[name] for name in ("gemfilter", "full")},
            "met": found["gemfilter"] >= 0.95 * found["full"],
        },
        "GemFilter finds as many as SnapKV and H2O of which the same share is kept": {
            "scores": {name: found[name] for name in same},
            "met": found["gemfilter"] == max(found[name] for name in same),
        },
    }


def ruler_claims(adaptive: MethodResult, rivals: Sequence[MethodResult], budget: str) -> dict[str, Any]:
    """The adaptive filter against each FastKV, with as many tokens kept or fewer."""
    claims = {}
    for rival in rivals:
        margin, error = difference(adaptive, rival)
        claims[f"the adaptive filter scores as much as {rival.method.label} with {budget}"] = {
            "scores": {"adaptive": adaptive.mean, "fastkv": rival.mean},
            "kept_tokens": {"adaptive": kept_tokens(adaptive), "fastkv": kept_tokens(rival)},
            "margin": margin,
            "standard_error": error,
            "bypassed": adaptive.bypassed,
            "met": margin >= 0 and kept_tokens(adaptive) <= kept_tokens(rival),
        }
    return claims


def equal_share(result: MethodResult) -> float:
    """Of the prompts, with which at least as many tokens are kept as by ``result``."""
    prompts = sum(each.prompt_tokens for own in result.outcomes.values() for each in own)
    return math.ceil(1000 * kept_tokens(result) / prompts) / 1000


def kept_tokens(result: MethodResult) -> int:
    """Of all prompts."""
    return sum(each.kept_tokens for own in result.outcomes.values() for each in own)


def difference(first: MethodResult, second: MethodResult) -> tuple[float, float]:
    """Of the means over the cells of the grid, and its standard error: both methods had the same prompts."""
    cells = []
    for column in first.columns:
        by_row: dict[str, list[float]] = {}
        for own, other in zip(first.outcomes[column], second.outcomes[column], strict=True):
            by_row.setdefault(own.row, []).append(own.score - other.score)
        cells += list(by_row.values())
    variance = sum(np.var(cell, ddof=1) / len(cell) for cell in cells if len(cell) > 1) / len(cells) ** 2
    return float(np.mean([np.mean(cell) for cell in cells])), math.sqrt(variance)


def plot(folder: Path, sweep: Sequence[Mapping[str, Any]], needle: Evaluation, ruler: Evaluation) -> None:
    plot_sweep(sweep, folder / "prompt_filter_layers.png")
    plot_heat_maps(
        needle.results,
        folder / "prompt_filter_needles.png",
        f"Needles found, {KEEP:.0%} of the prompt kept",
        "depth",
    )
    plot_heat_maps(
        ruler.results,
        folder / "prompt_filter_ruler.png",
        f"RULER's tasks in plain words, {KEEP:.0%} of the prompt kept",
        "task",
    )


def plot_sweep(sweep: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy over the filter layer, a line per policy."""
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    for each in sweep:
        axes.plot(each["accuracy_by_layer"], marker="o", markersize=4, label=f"{each['policy']} policy")
    axes.axhline(sweep[0]["full"], color="grey", linestyle="--", linewidth=1, label="full prompt")
    axes.set(xlabel="filter layer, counted from 0", ylabel="needles found", ylim=(-0.03, 1.03))
    axes.set_title(f"GemFilter by filter layer, {KEEP:.0%} of the prompt kept", fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
