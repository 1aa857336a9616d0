"""Forecasts beside published serving measurements on GPUs that nobody here has.

    python -m benchmarks.hardware.plan_published

1. QServe's tables (arXiv 2405.04532): tokens per second of whole batches, 1024 prompt and 512 generated tokens, on A100
   and L40S, of QServe and of TensorRT-LLM 0.9.0 (early 2024). Its kernels are older than those that our models of GPUs
   were fitted on, so forecasts of TensorRT-LLM should come out high.
2. End-to-end measurements collected by aiconfigurator (Apache-2.0), where the file is present: dense models, one
   engine, fp8 and bf16; a closed loop of clients. Claims: median error of TPOT at most 10 %, of TTFT at most 20 %.

The share of a device's memory and the sizes of a step are those that the systems have by default.
"""

import argparse
import re
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.hardware.published_serving import QSERVE, Throughput, shape
from benchmarks.result_file import write_result
from lapidist.planner.machines import find_machine
from lapidist.planner.plan import Forecast, Option, PlanSettings, Traffic, plan
from lapidist.planner.recipes import plan_recipe
from lapidist.workload.generated_trace import generate_trace
from lapidist.workload.length_distribution import Fixed, Uniform

E2E = Path(__file__).parents[2].parent / "shared/data/gemm_predictor/aiconfigurator_e2e_silicon.parquet"
_SETTINGS = PlanSettings(max_num_seqs=512, max_num_batched_tokens=8192)
_MODELS = {
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "meta-llama/Llama-3.1-70B": "llama-3-70b",
    "Qwen/Qwen3-32B": "qwen3-32b",
}
_SYSTEMS = {"h100_sxm": "h100", "h200_sxm": "h200", "b200_sxm": "b200", "b300_sxm": "b300"}
_SYSTEMS |= {"gb200": "gb200", "gb300": "gb300"}
_CLAIMS = {"tpot": 0.10, "ttft": 0.20}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--e2e", type=Path, default=E2E)
    parser.add_argument("--rows", type=int, help="of the end-to-end file at most")
    args = parser.parse_args()
    result: dict[str, Any] = {"throughput": [_throughput(each) for each in QSERVE]}
    result["throughput_median_ratio"] = _by(result["throughput"], "gpu", "system", "recipe")
    if args.e2e.exists():
        rows = _end_to_end(args.e2e, args.rows)
        result["end_to_end"] = rows
        result["end_to_end_median_error"] = _errors(rows, "system")
        result["end_to_end_median_error_by_backend"] = _errors(rows, "system", "backend", "model")
    print(f"written to {write_result('plan_published', result)}")


def _throughput(each: Throughput) -> dict[str, Any]:
    config = shape(each.model)
    recipe = plan_recipe(each.recipe, config)
    option = Option(find_machine(each.gpu, config, recipe), recipe, 1)
    batch = each.batch or _largest_batch(option, config)
    row: dict[str, Any] = {
        "gpu": each.gpu,
        "model": each.model,
        "system": each.system,
        "recipe": each.recipe,
        "batch": batch,
        "published": each.tokens_per_second,
    }
    traffic = Traffic(generate_trace(batch, float("inf"), Fixed(1024), Fixed(512)), None)
    forecasts, refusals = plan(config, [option], [traffic], _SETTINGS)
    if refusals:
        return row | {"refused": refusals[0].reason}
    found = forecasts[0].metrics.output_tokens_per_second
    row |= {"forecast": found, "ratio": found / each.tokens_per_second}
    print(
        f"{each.gpu} {each.model} {each.system} {each.recipe}, batch {batch}: "
        f"{found:.0f} for {each.tokens_per_second:.0f}"
    )
    return row


def _largest_batch(option: Option, config: Any) -> int:
    """As many as the memory holds, at most 256: one request tells."""
    traffic = Traffic(generate_trace(1, float("inf"), Fixed(1024), Fixed(512)), None)
    forecasts, _ = plan(config, [option], [traffic], _SETTINGS)
    return max(1, min(256, forecasts[0].max_batch)) if forecasts else 1


def _end_to_end(file: Path, limit: int | None) -> list[dict[str, Any]]:
    import pandas as pd

    table = pd.read_parquet(file)
    keep = (table["mode"] == "agg") & table["model_path"].isin(_MODELS) & table["system"].isin(_SYSTEMS)
    keep &= table["gemm_quant_mode"].isin(["fp8", "fp8_block", "bf16"]) | (table["precision"] == "bf16")
    rows = []
    for record in table[keep].head(limit or len(table)).to_dict("records"):
        row = _one_end_to_end(record)
        if row is not None:
            rows.append(row)
            print({key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()})
    return rows


def _one_end_to_end(record: dict[str, Any]) -> dict[str, Any] | None:
    clients = re.search(r"silicon_concurrency=(\d+)", record["silicon_data_source"])
    concurrency = int(clients[1]) if clients else int(record["batch_size"])
    config = shape(_MODELS[record["model_path"]])
    recipe = plan_recipe("bf16" if record["precision"] == "bf16" else "fp8", config)
    machine = find_machine(_SYSTEMS[record["system"]], config, recipe)
    option = Option(machine, recipe, int(record["tp_size"]))
    forecast = _closed_loop(config, option, int(record["isl"]), int(record["osl"]), concurrency)
    row = {name: record[name] for name in ("system", "backend", "backend_version", "isl", "osl")}
    row |= {"model": _MODELS[record["model_path"]], "recipe": recipe.name, "concurrency": concurrency}
    row |= {"tensor_parallel": option.tensor_parallel}
    if isinstance(forecast, str):
        return row | {"refused": forecast}
    metrics = forecast.metrics
    if metrics.ttft is None or metrics.tpot is None:
        return None
    measured = {"ttft_ms": float(record["silicon_ttft_ms"]), "tpot_ms": float(record["silicon_tpot_ms"])}
    found = {"ttft_ms": 1000 * metrics.ttft.p50, "tpot_ms": 1000 * metrics.tpot.p50}
    row |= {f"measured_{name}": value for name, value in measured.items()}
    row |= {f"forecast_{name}": value for name, value in found.items()}
    return row | {
        "ttft_error": found["ttft_ms"] / measured["ttft_ms"] - 1,
        "tpot_error": found["tpot_ms"] / measured["tpot_ms"] - 1,
    }


def _closed_loop(config: Any, option: Option, prompt: int, output: int, concurrency: int) -> Forecast | str:
    """Lengths from 80 % of the named ones, as the collecting benchmark draws them; three requests per client."""
    lengths = [Uniform(max(1, round(0.8 * length)), length) for length in (prompt, output)]
    trace = generate_trace(3 * concurrency, float("inf"), lengths[0], lengths[1])
    forecasts, refusals = plan(config, [option], [Traffic(trace, None, concurrency)], _SETTINGS)
    return forecasts[0] if forecasts else refusals[0].reason


def _errors(rows: list[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if "tpot_error" in row:
            groups[tuple(row[key] for key in keys)].append(row)
    found = []
    for group, own in sorted(groups.items()):
        entry: dict[str, Any] = dict(zip(keys, group, strict=True)) | {"rows": len(own)}
        for name, limit in _CLAIMS.items():
            errors = [row[f"{name}_error"] for row in own]
            entry[f"{name}_median_absolute_error"] = statistics.median(map(abs, errors))
            entry[f"{name}_median_bias"] = statistics.median(errors)
            entry[f"{name}_met"] = entry[f"{name}_median_absolute_error"] <= limit
        print(entry)
        found.append(entry)
    return found


def _by(rows: list[dict[str, Any]], *keys: str) -> dict[str, float]:
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if "ratio" in row:
            groups[", ".join(str(row[key]) for key in keys)].append(row["ratio"])
    medians = {group: statistics.median(ratios) for group, ratios in groups.items()}
    for group, ratio in medians.items():
        print(f"{group}: forecast / published {ratio:.2f}")
    return medians


if __name__ == "__main__":
    main()
