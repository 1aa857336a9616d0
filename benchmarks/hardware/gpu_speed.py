"""How fast forecasts are: attention, mixture of experts, a whole step. ``python -m benchmarks.hardware.gpu_speed``.

Processor time of one thread, which other programs on the machine do not count into; wall time is no less.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.result_file import write_result
from lapidist.hardware.gpu.attention_law import AttentionShapes
from lapidist.hardware.gpu.attention_predictor import attention_predictor
from lapidist.hardware.gpu.gpu import GPU
from lapidist.hardware.gpu.moe_predictor import moe_predictor
from lapidist.models.config import ModelConfig
from lapidist.workload import Recipe, SequenceStep, Step, lower

BATCH = 10_000


def processor_seconds(run: Callable[[], object], repeats: int) -> float:
    """The least of ``repeats``."""
    found = []
    for _ in range(repeats):
        began = time.process_time()
        run()
        found.append(time.process_time() - began)
    return min(found)


def main() -> None:
    began = time.process_time()
    attention = attention_predictor("h200")
    attention.predict(1, 1, 1000, 32, 8, 128)
    result = {"attention_load_and_first": time.process_time() - began}
    lengths = np.random.default_rng(0).integers(16, 65536, BATCH)
    for phase, queries in (("decode", np.ones(BATCH)), ("prefill", lengths)):
        shapes = AttentionShapes.of(8, queries, lengths, 32, 8, 128)
        seconds = processor_seconds(partial(attention.predict_shapes, shapes), 5)
        result[f"attention_{phase}_per_row"] = seconds / BATCH
    result["attention_single"] = processor_seconds(lambda: attention.predict(8, 1, 1234, 32, 8, 128), 50)
    moe = moe_predictor("h200")
    tokens = np.random.default_rng(1).integers(1, 8192, BATCH)
    result["moe_per_row"] = processor_seconds(lambda: moe.predict(tokens, 4096, 1536, 8, 128), 5) / BATCH
    gpu, config, recipe = GPU("h200"), ModelConfig.of_shape("llama-3.1-70b"), Recipe.named("bf16")
    contexts = iter(range(1000, 1_000_000))

    def new_step() -> None:
        step = Step(tuple(SequenceStep(1, next(contexts)) for _ in range(64)), 64)
        gpu.step(lower(config, recipe, step, 4))

    new_step()
    result["step_of_64_sequences"] = processor_seconds(new_step, 50)
    operators = lower(config, recipe, Step(tuple(SequenceStep(1, 500) for _ in range(64)), 64), 4)
    gpu.step(operators)
    result["step_seen_before"] = processor_seconds(lambda: gpu.step(operators), 50)
    for name, seconds in result.items():
        print(f"{name}: {seconds * 1e6:.1f} us")
    print(write_result("gpu_speed", {"processor_seconds": result}))


if __name__ == "__main__":
    main()
