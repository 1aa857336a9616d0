"""GEMM forecasts against measurements that the models have not seen.

    python -m benchmarks.hardware.gpu_gemm ../shared/data/gemm_predictor

Data: NVIDIA aiconfigurator (Apache-2.0), and Vidur's A100 profile (MIT) as an independent source. No split is by
random rows: whole (n, k) sites (SITE20: a fifth of them), n beyond 8192, more than 1e11 FLOP, or whole GPUs with their
siblings are left out. Unseen sites are judged by the trial fits of the bundled models (``recipes/gpu_models``
makes them again), extrapolation by fits of one measured group with the default size. A quarter of an hour on one core;
``--only`` runs a part. Writes ``results/gpu_gemm.json``.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.hardware.gemm_interpolator import UtilizationInterpolator
from benchmarks.result_file import RESULTS, write_result
from lapidist.hardware.gpu.accuracy import accuracy
from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.gemm_fit import GEMMRows, fit_gemm_models, fit_pool, pools_of
from lapidist.hardware.gpu.gemm_format import gemm_format
from lapidist.hardware.gpu.gemm_model import GEMMModel
from lapidist.hardware.gpu.gemm_predictor import GemmPredictor, gemm_predictor
from lapidist.hardware.gpu.gemm_store import BUNDLED, GEMMModels
from lapidist.hardware.gpu.gemm_transfer import TransferModel, fit_transfer
from lapidist.hardware.gpu.leakage import check_no_leakage
from lapidist.hardware.gpu.measurements import read_gemm_table, select
from lapidist.hardware.gpu.splits import (
    Split,
    drop_repeated_shapes,
    few_points,
    frontier,
    scale_extrapolation,
    site20,
)
from lapidist.hardware.gpu.throttling import ClockFall, throttling
from recipes.gpu_models.fit_gemm import REFERENCES, shipped_size, transfer_members, usable

GEMMS = "aiconfigurator_gemm.parquet"
VIDUR = "vidur_gemm_fp16_a100.parquet"
BF16 = {
    "h200_sxm": ("TRTLLM", "1.3.0rc20"),
    "a100_sxm": ("VLLM", "0.14.0"),
    "b200_sxm": ("TRTLLM", "1.3.0rc20"),
    "l40s": ("TRTLLM", "1.3.0rc20"),
    "rtx_pro_6000_server": ("TRTLLM", "1.3.0rc20"),
}
QUANTIZED = (
    ("h200_sxm", "TRTLLM", "1.3.0rc20", ("fp8", "fp8_block")),
    ("h100_sxm", "TRTLLM", "1.3.0rc20", ("fp8", "fp8_block")),
    ("l40s", "TRTLLM", "1.3.0rc20", ("fp8", "fp8_block")),
    ("b200_sxm", "TRTLLM", "1.3.0rc20", ("fp8", "fp8_block", "nvfp4")),
    ("rtx_pro_6000_server", "TRTLLM", "1.3.0rc20", ("fp8", "nvfp4")),
    ("h200_sxm", "SGLang", "0.5.14", ("bf16", "fp8", "fp8_block")),
    ("h200_sxm", "TRTLLM", "1.2.0rc5", ("int4_wo", "int8_wo", "sq")),
    ("a100_sxm", "TRTLLM", "1.0.0", ("int4_wo", "int8_wo", "sq")),
)
# The same kernels collected twice: nothing below this is meaningful.
AGAIN = {
    "h200_sxm": ("TRTLLM", "1.3.0rc10"),
    "b200_sxm": ("TRTLLM", "1.3.0rc15"),
    "l40s": ("TRTLLM", "1.3.0rc15"),
    "a100_sxm": ("SGLang", "0.5.9"),
}
FEW = (50, 200)
DRAWS = 5


def group(table: pd.DataFrame, system: str, backend: str, version: str, dtype: str) -> pd.DataFrame:
    found = select(table, system=system, backend=backend, version=version, dtype=dtype)
    for column in ("system", "backend", "version", "dtype"):
        found[column] = found[column].cat.remove_unused_categories()
    return drop_repeated_shapes(found)


def fitted_apart(frame: pd.DataFrame, split: Split) -> tuple[GEMMModel, pd.DataFrame]:
    """Fitted on the train part, and the test part."""
    train, test = split.apply(frame)
    check_no_leakage(train, test)
    pool = fit_gemm_models(train)[0]
    return pool.model(pool.groups[0]), test


def site20_beside_interpolator(table: pd.DataFrame, key: tuple[str, str, str, str]) -> dict[str, float]:
    """The bundled model's trial fit on SITE20, whose errors are stored with it, and the baseline on the same split.

    The trial fit left the same sites out of every other group of the pool, too.
    """
    frame = group(table, *key)
    sheet, form = load_data_sheet(key[0]), gemm_format(key[3])
    of_trial = next(g for g in GEMMModels(BUNDLED).groups() if g.key == (sheet.name, key[3], key[1], key[2]))
    train, test = site20(frame).apply(frame)
    check_no_leakage(train, test)
    measured = test["seconds"].to_numpy()
    baseline = accuracy(measured, UtilizationInterpolator.fit(train, sheet, form).seconds(*sizes(test)))
    return {
        **of_trial.errors,
        "same_sites": float(of_trial.errors["count"] == len(test)),
        "interpolator_mape": baseline.mape,
        "interpolator_over_ours": baseline.mape / of_trial.errors["mape"],
    }


def judge(model: GEMMModel | TransferModel, test: pd.DataFrame) -> dict[str, float]:
    seconds, low, high, _ = model.seconds(*sizes(test))
    measured = test["seconds"].to_numpy()
    errors = accuracy(measured, seconds).to_dict()
    inside = (measured >= low) & (measured <= high)
    return {**errors, "coverage": float(inside.mean()), "interval_ratio": float(np.median(high / low))}


def sizes(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    m, n, k = (frame[name].to_numpy(float) for name in ("m", "n", "k"))
    return m, n, k


def unseen_sites(table: pd.DataFrame, data: Path) -> Iterator[tuple[str, Any]]:
    for system, key in BF16.items():
        found = site20_beside_interpolator(table, (system, *key, "bf16"))
        if system in AGAIN:
            frame = group(table, system, *key, "bf16")
            found["noise_floor_mape"] = noise(frame, group(table, system, *AGAIN[system], "bf16"))
        yield system, found


def a100_sites(table: pd.DataFrame, data: Path) -> Iterator[tuple[str, Any]]:
    """A100's unseen sites by what else is known: fewer sites of all engines, or the same sites of other engines.

    The bundled models, which know every site, stand where the curve over sites goes on to.
    """
    system = "a100_sxm"
    key = ("a100", *BF16[system])
    [(name, members)] = pools_of(usable(select(table, system=system, dtype="bf16"))).items()
    [asked] = [rows for rows in members if rows.key == key]
    train, test = site20(asked.frame).apply(asked.frame)
    check_no_leakage(train, test)

    def judged(known: list[GEMMRows]) -> dict[str, float]:
        size = shipped_size(name, sum(len(rows.frame) for rows in members))
        pool = fit_pool(name, known, size, REFERENCES)
        [fitted] = [group for group in pool.groups if (group.gpu, group.backend, group.version) == key]
        return judge(pool.model(fitted), test)

    left = np.random.RandomState(0).permutation(train[["n", "k"]].drop_duplicates())
    for share in (0.5, 0.64, 0.8, 1.0):
        sites = pd.MultiIndex.from_arrays(left[: int(share * len(left))].T)
        known = [rows.take(pd.MultiIndex.from_frame(rows.frame[["n", "k"]]).isin(sites)) for rows in members]
        yield f"{0.8 * share:.2f} of the sites", judged(known)
    yield (
        "sites of other engines",
        judged([replace(rows, frame=train) if rows is asked else rows for rows in members]),
    )


def noise(frame: pd.DataFrame, again: pd.DataFrame) -> float:
    both = frame.merge(again, on=["m", "n", "k"], suffixes=("", "_again"))
    return accuracy(both["seconds"], both["seconds_again"]).mape


def extrapolation(table: pd.DataFrame, data: Path) -> Iterator[tuple[str, Any]]:
    """Besides, the law of throttling with constants chosen by the other GPUs, since its own were chosen by all."""
    large = {}
    for system, key in BF16.items():
        frame = group(table, system, *key, "bf16")
        yield f"{system} n <= 8192 to larger", judge(*fitted_apart(frame, frontier(frame)))
        model, test = fitted_apart(frame, scale_extrapolation(frame))
        yield f"{system} <= 1e11 FLOP to larger", judge(model, test)
        large[system] = model, test
    yield "<= 1e11 FLOP to larger, throttling by the other GPUs", throttling_by_others(large)


def throttling_by_others(large: dict[str, tuple[GEMMModel, pd.DataFrame]]) -> dict[str, dict[str, float]]:
    """By GPU its mean error without the law, and with constants that are best for the other GPUs, each as important."""
    falls = [
        ClockFall(*numbers)
        for numbers in itertools.product(
            (1e-3, 1.5e-3, 2e-3),
            (0.75, 1.0, 1.25, 1.5),
            (0.0, 0.1, 0.15, 0.2, 0.25, 0.3),
            (1.1e-12, 1.3e-12, 1.5e-12),
        )
    ]
    errors = {}
    for system, (model, test) in large.items():
        seconds = model.seconds(*sizes(test))[0] / throttled(model, test, ClockFall())
        errors[system] = np.array(
            [accuracy(test["seconds"], seconds * throttled(model, test, fall)).mape for fall in falls]
        )
    plain = next(number for number, fall in enumerate(falls) if fall.depth == 0)
    found = {}
    for system, own in errors.items():
        others = [each / each[plain] for name, each in errors.items() if name != system]
        best = int(np.argmin(np.mean(others, axis=0)))
        found[system] = {"without": float(own[plain]), "mape": float(own[best]), **asdict(falls[best])}
    return found


def throttled(model: GEMMModel, test: pd.DataFrame, fall: ClockFall) -> np.ndarray:
    m, n, k = sizes(test)
    largest = 2.0 ** (model.group.largest[-1] + 1)
    return throttling(
        2 * m * n * k, largest, model.sheet, model.format, model.group.parameters.power_cap, fall
    )


def quantized(table: pd.DataFrame, data: Path) -> Iterator[tuple[str, Any]]:
    for system, backend, version, dtypes in QUANTIZED:
        for dtype in dtypes:
            key = (system, backend, version, dtype)
            yield " ".join(key), site20_beside_interpolator(table, key)


def new_gpu(table: pd.DataFrame, data: Path) -> Iterator[tuple[str, Any]]:
    """GPUs of which nothing, or a few points, are known; siblings are unknown, too. bf16 first, then the others."""
    for label, members in tables_of_gpus(table).items():
        families = sorted({rows.family for rows in members})
        for left_out in families if len(families) > 1 else []:
            pool = fit_transfer([rows for rows in members if rows.family != left_out])
            for rows in (rows for rows in members if rows.family == left_out):
                model = pool.model(rows.sheet)
                model = replace(model, group=model.group.measured_by(*rows.key[1:]))
                found = {"0 points": judge(model, rows.frame)}
                if label == "bf16":
                    yield rows.key[0], found | few(model, rows.frame)
                else:
                    yield f"{label} {rows.key[0]}", found | few(model, rows.frame, FEW[:1], draws=2)


def tables_of_gpus(table: pd.DataFrame) -> dict[str, list[GEMMRows]]:
    """By format those that the bundled models of any GPU are fitted on, and of other backends one of each GPU."""
    found = transfer_members(usable(table))
    found = {dtype: found[dtype] for dtype in ("bf16", *(dtype for dtype in found if dtype != "bf16"))}
    for dtype, backend in (("bf16", "VLLM"), ("bf16", "SGLang"), ("fp8", "VLLM"), ("fp8", "SGLang")):
        of_backend = table[(table["backend"] == backend) & (table["dtype"] == dtype)]
        newest = of_backend["version"].astype(str).groupby(of_backend["system"], observed=True).max()
        found[f"{dtype} {backend}"] = [
            rows_of(group(table, str(system), backend, version, dtype)) for system, version in newest.items()
        ]
    return found


def rows_of(frame: pd.DataFrame) -> GEMMRows:
    return next(iter(pools_of(frame).values()))[0]


def few(
    model: GEMMModel | TransferModel,
    frame: pd.DataFrame,
    sizes_of_draws: tuple[int, ...] = FEW,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Mean over draws of the points; beside it what a common factor of the points alone does."""
    found: dict[str, Any] = {}
    predictor = GemmPredictor(model.sheet, model.format, model)
    plain = predictor.predict(*sizes(frame)).seconds
    for points in sizes_of_draws:
        errors, covered, scaled = [], [], []
        for seed in range(draws):
            drawn = few_points(len(frame), points, seed)
            known, rest = drawn.apply(frame)
            factor = np.median(known["seconds"] / plain[drawn.train])
            answer = predictor.calibrated(*sizes(known), known["seconds"]).predict(*sizes(rest))
            measured = rest["seconds"].to_numpy()
            errors.append(accuracy(measured, answer.seconds).mape)
            scaled.append(accuracy(measured, factor * plain[drawn.test]).mape)
            covered.append(float(((measured >= answer.low) & (measured <= answer.high)).mean()))
        found[f"{points} points"] = {
            "mape": float(np.mean(errors)),
            "worst_draw_mape": max(errors),
            "one_factor_mape": float(np.mean(scaled)),
            "coverage": float(np.mean(covered)),
        }
    return found


def siblings(table: pd.DataFrame, data: Path) -> Iterator[tuple[str, Any]]:
    """One Hopper GPU by the bundled model of the other: the way in which B300 is answered from B200."""
    stored = GEMMModels(BUNDLED)
    form = gemm_format("bf16")
    for system, donor in (("h100_sxm", "h200"), ("h200_sxm", "h100")):
        sheet = load_data_sheet(system)
        found = next(g for g in stored.groups() if g.key == (donor, "bf16", "TRTLLM", "1.3.0rc20"))
        frame = group(table, system, "TRTLLM", "1.3.0rc20", "bf16")
        yield f"{sheet.name} by {donor}", judge(stored.model(found, sheet, form), frame)


def other_sources(table: pd.DataFrame, data: Path) -> Iterator[tuple[str, Any]]:
    """The bundled A100 model and an independent project's measurements."""
    vidur = read_gemm_table(data / VIDUR, backend="vidur", version="-", dtype="fp16")
    medians = vidur.groupby(["m", "n", "k"], as_index=False)["seconds"].median()
    for backend, version in (("VLLM", "0.14.0"), ("TRTLLM", "1.0.0"), ("SGLang", "0.5.10")):
        predictor = gemm_predictor("a100", "fp16", backend, version)
        yield f"vidur a100 by {backend}", few_of(predictor.model, medians)
    stored = GEMMModels(BUNDLED)
    any_gpu = next(group for group in stored.groups() if group.gpu == "any" and group.dtype == "bf16")
    yield (
        "vidur a100 by the model of any GPU",
        few_of(stored.model(any_gpu, load_data_sheet("a100"), gemm_format("bf16")), medians),
    )


def few_of(model: GEMMModel | TransferModel | None, frame: pd.DataFrame) -> dict[str, Any]:
    assert model is not None
    return {"0 points": judge(model, frame), **few(model, frame)}


def shipped(table: pd.DataFrame, data: Path) -> Iterator[tuple[str, Any]]:
    yield "bytes", BUNDLED.stat().st_size
    for each in GEMMModels(BUNDLED).groups():
        yield " ".join(each.key).strip(), {"rows": each.rows, **each.errors}


def speed(table: pd.DataFrame, data: Path) -> Iterator[tuple[str, Any]]:
    """Processor seconds, so that other work on the machine counts less."""
    start = time.process_time()
    predictor = gemm_predictor("h200")
    yield "load_seconds", time.process_time() - start
    start = time.process_time()
    predictor.predict(128, 4096, 4096)
    yield "first_call_seconds", time.process_time() - start
    singles = []
    for number in range(200):
        start = time.process_time()
        predictor.predict(64 + number, 4096, 4096)
        singles.append(time.process_time() - start)
    yield "single_call_median_seconds", float(np.median(singles))
    start = time.process_time()
    for _ in range(10_000):
        predictor.predict(64, 4096, 4096)
    yield "repeated_call_seconds", (time.process_time() - start) / 10_000
    generator = np.random.default_rng(0)
    m, n, k = (2 ** generator.integers(5, 14, 10_000) for _ in range(3))
    start = time.process_time()
    predictor.predict(m, n, k)
    yield "batch_seconds_per_row", (time.process_time() - start) / 10_000


def limits(table: pd.DataFrame, data: Path) -> Iterator[tuple[str, Any]]:
    """A hundred thousand random GEMMs up to 2**20, steps in aligned sizes, and one row beyond a multiple of 128."""
    generator = np.random.default_rng(0)
    for system, (backend, version) in BF16.items():
        predictor = gemm_predictor(system, "bf16", backend, version)
        m, n, k = np.maximum(1, np.rint(2 ** generator.uniform(0, 20, (3, 100_000))))
        bound = 2 * m * n * k / predictor.sheet.operations_per_second("bf16", "max")
        found = predictor.predict(m, n, k)
        yield (
            system,
            {
                "below_peak_at_maximum_clock": int((found.low < bound * (1 - 1e-12)).sum()),
                "not_finite": int((~np.isfinite(found.high)).sum()),
                "shortest_predicted_seconds": float(found.low.min()),
                **{f"steps_down_in_{axis}": steps_down(predictor, axis) for axis in "mnk"},
                "one_row_more": one_row_more(predictor, group(table, system, backend, version, "bf16")),
            },
        )


def steps_down(predictor: GemmPredictor, axis: str) -> dict[str, float]:
    """Parts of the steps between adjacent aligned sizes, at 100 random others, that save more than 2 % and 5 %."""
    generator = np.random.default_rng(1)
    steps = np.arange(128, 8193, 128) if axis == "m" else np.arange(256, 8193, 256)
    fixed = {name: 128.0 * generator.integers(1, 65, (100, 1)) for name in "mnk"}
    seconds = predictor.predict(**{**fixed, axis: steps[None, :].astype(float)}).seconds
    ratio = seconds[:, 1:] / seconds[:, :-1]
    return {"by_2_percent": float((ratio < 0.98).mean()), "by_5_percent": float((ratio < 0.95).mean())}


def one_row_more(predictor: GemmPredictor, frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    times = frame.pivot(index=["n", "k"], columns="m", values="seconds")
    n, k = np.array(times.index.to_list(), dtype=float).T
    found = {}
    for m in (m for m in (128, 256, 512, 1024) if m + 1 in times):
        ratio = predictor.predict(m + 1, n, k).seconds / predictor.predict(m, n, k).seconds
        measured = float(np.nanmedian(times[m + 1] / times[m]))
        found[f"{m + 1} over {m}"] = {"measured": measured, "predicted": float(np.median(ratio))}
    return found


PARTS: dict[str, Callable[[pd.DataFrame, Path], Iterator[tuple[str, Any]]]] = {
    "shipped": shipped,
    "speed": speed,
    "limits": limits,
    "unseen_sites": unseen_sites,
    "a100_sites": a100_sites,
    "extrapolation": extrapolation,
    "new_gpu": new_gpu,
    "siblings": siblings,
    "other_sources": other_sources,
    "quantized": quantized,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--only", choices=sorted(PARTS), action="append", help="Run a part, keep the others' results."
    )
    args = parser.parse_args()
    table = read_gemm_table(args.data / GEMMS)
    result: dict[str, Any] = {}
    if args.only and (RESULTS / "gpu_gemm.json").exists():
        result = json.loads((RESULTS / "gpu_gemm.json").read_text())
    for part in args.only or PARTS:
        result[part] = {}
        for name, found in PARTS[part](table, args.data):
            result[part][name] = found
            print(part, name, found, flush=True)
    kept = {part: result[part] for part in PARTS if part in result}
    write_result("gpu_gemm", {"unit": "errors are fractions: 0.027 is 2.7 %", **kept})


if __name__ == "__main__":
    main()
