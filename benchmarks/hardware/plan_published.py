"""Forecasts of ``lapidist plan`` beside published throughputs of GPUs that nobody here has.

    python -m benchmarks.hardware.plan_published        # about a minute

QServe's tables (arXiv 2405.04532): generated tokens per second of whole batches, 1024 prompt and 512 generated tokens,
on A100 and L40S, of QServe and of TensorRT-LLM 0.9.0 (early 2024). Our models of GPUs were fitted on kernels of 2025
and 2026, so forecasts should come out high, and by how much is what this measures; nothing is fitted here. What can be
expected to carry over is the ratio of two recipes on one GPU, so the speed-up of QServe over each is compared too.
"""

import argparse
import math
import statistics
from collections import defaultdict
from typing import Any

from benchmarks.hardware.measured_serving import kernel_models
from benchmarks.hardware.published_serving import QSERVE, Throughput, shape
from benchmarks.result_file import write_result
from lapidist.models.config import ModelConfig
from lapidist.planner.machines import find_machine
from lapidist.planner.plan import Option, PlanSettings, Traffic, plan
from lapidist.planner.recipes import plan_recipe
from lapidist.workload.generated_trace import generate_trace
from lapidist.workload.length_distribution import Fixed

PROMPT, OUTPUT, LARGEST_BATCH = 1024, 512, 256
SETTINGS = PlanSettings(max_num_seqs=512, max_num_batched_tokens=8192)


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    rows = [forecast(each) for each in QSERVE]
    result = {
        "kernel_models": kernel_models(),
        "rows": rows,
        "ratio_by_system": ratios(rows),
        "speedup_of_qserve": speedups(rows),
    }
    for name, value in {**result["ratio_by_system"], **result["speedup_of_qserve"]["summary"]}.items():  # type: ignore[dict-item,index]
        print(f"{name}: {value:.2f}")
    print(f"written to {write_result('plan_published', result)}")


def forecast(each: Throughput) -> dict[str, Any]:
    config = shape(each.model)
    recipe = plan_recipe(each.recipe, config)
    option = Option(find_machine(each.gpu, config, recipe), recipe, 1)
    batch = each.batch or largest_batch(config, option)
    row: dict[str, Any] = {
        "gpu": each.gpu,
        "model": each.model,
        "system": each.system,
        "recipe": each.recipe,
        "batch": batch,
        "published": each.tokens_per_second,
    }
    forecasts, refusals = plan(config, [option], [together(batch)], SETTINGS)
    if refusals:
        return row | {"refused": refusals[0].reason}
    found = forecasts[0].metrics.output_tokens_per_second
    row |= {"forecast": found, "ratio": found / each.tokens_per_second}
    print(
        f"{each.gpu} {each.model} {each.system} {each.recipe}, batch {batch}: "
        f"{found:.0f}, published {each.tokens_per_second:.0f}",
        flush=True,
    )
    return row


def together(batch: int) -> Traffic:
    """A batch that starts at once."""
    return Traffic(generate_trace(batch, math.inf, Fixed(PROMPT), Fixed(OUTPUT)), None)


def largest_batch(config: ModelConfig, option: Option) -> int:
    """As many as the memory holds, at most 256; 1 where the plan is refused."""
    forecasts, _ = plan(config, [option], [together(1)], SETTINGS)
    return max(1, min(LARGEST_BATCH, forecasts[0].max_batch)) if forecasts else 1


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Median of forecast over published, by GPU and system."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if "ratio" in row:
            groups[f"{row['gpu']}, {row['system']}, {row['recipe']}, forecast / published"].append(
                row["ratio"]
            )
    return {group: statistics.median(found) for group, found in groups.items()}


def speedups(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """QServe over each other recipe on the same GPU and model: published and forecast."""
    qserve = {
        (row["gpu"], row["model"]): row for row in rows if row["system"] == "QServe" and "forecast" in row
    }
    compared = []
    for row in rows:
        own = qserve.get((row["gpu"], row["model"]))
        if row["system"] != "QServe" and own is not None and "forecast" in row:
            published = own["published"] / row["published"]
            found = own["forecast"] / row["forecast"]
            names = {name: row[name] for name in ("gpu", "model", "recipe")}
            compared.append(
                names | {"published": published, "forecast": found, "error": found / published - 1}
            )
    summary: dict[str, float] = {}
    for gpu in sorted({row["gpu"] for row in compared}):
        errors = [abs(row["error"]) for row in compared if row["gpu"] == gpu]
        summary[f"{gpu}, QServe's speed-up, median error"] = statistics.median(errors)
    return {"rows": compared, "summary": summary}


if __name__ == "__main__":
    main()
