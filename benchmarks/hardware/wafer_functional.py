"""How fast the functional simulator of the wafer is, and how near its results are to exact ones.

``python -m benchmarks.hardware.wafer_functional`` runs MeshGEMM of 1024 x 1024 x 1024 on 64 x 64 cores and one prefill
layer of hidden size 512 on 32 x 32 cores, both in fp32, and writes wall and processor time with the machine's load.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.result_file import write_result
from lapidist.hardware.wafer.decode_layer import DecodePlan
from lapidist.hardware.wafer.decoder_layouts import matrices, parameters, prefill_hidden
from lapidist.hardware.wafer.decoder_weights import LayerWeights
from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.functional import run_gemm
from lapidist.hardware.wafer.layer_numbers import LayerNumbers
from lapidist.hardware.wafer.mesh import Mesh
from lapidist.hardware.wafer.prefill_layer import PrefillPlan, prefill_layer
from lapidist.hardware.wafer.prefill_operations import prefill_operations
from lapidist.hardware.wafer.rope import Rope
from lapidist.hardware.wafer.simulator import Simulator

REPEATS = 5
GEMM_SIDE, GEMM_CORES = 1024, 64
LAYER_CORES = 32


@dataclass(frozen=True)
class Shape:
    """A layer of hidden size 512 in Llama's proportions."""

    num_kv_heads: int
    hidden_size: int = 512
    intermediate_size: int = 1376
    num_heads: int = 8
    head_dim: int = 64


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Median wall and processor seconds of one run, after one to warm up."""
    work()
    wall, processor = [], []
    for _ in range(REPEATS):
        start, used = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return {"seconds": statistics.median(wall), "processor_seconds": statistics.median(processor)}


def measure_gemm() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((GEMM_SIDE, GEMM_SIDE), dtype=np.float32) for _ in range(2))
    mesh = Mesh(load_device("wse-2"), GEMM_CORES, GEMM_CORES)
    found = run_gemm(mesh, "meshgemm", a, b).output
    exact = a.astype(np.float64) @ b.astype(np.float64)
    return {
        "work": f"MeshGEMM {GEMM_SIDE} x {GEMM_SIDE} x {GEMM_SIDE} on {GEMM_CORES} x {GEMM_CORES} cores",
        "limit_seconds": 1.0,
        "largest_error": float(np.abs(found - exact).max()),
        **timed(lambda: run_gemm(mesh, "meshgemm", a, b)),
    }


def measure_layer(kv_heads: int, tokens: int) -> dict[str, Any]:
    shape = Shape(kv_heads)
    plan = PrefillPlan(shape, LAYER_CORES, LAYER_CORES, tokens)
    program = prefill_layer(plan, element_bytes=4)
    numbers = LayerNumbers(Rope.plain(10000.0 ** (-np.arange(32) / 32)), 1e-5, shape.head_dim**-0.5)
    operations = prefill_operations(plan, numbers)
    rng = np.random.default_rng(0)
    weights = matrices(random_layer(shape, rng))
    decode = DecodePlan(shape, LAYER_CORES, LAYER_CORES, tokens)
    placed = {
        parameter.prefill_name: parameter.prefill.place(weights[parameter.prefill_name])
        for parameter in parameters(plan, decode)
    }
    x = prefill_hidden(plan).place(rng.standard_normal((tokens, shape.hidden_size), dtype=np.float32))

    def work() -> None:
        tiles = {name: tile.copy() for name, tile in {**placed, "x": x}.items()}
        Simulator(LAYER_CORES, LAYER_CORES, tiles, operations).run(program)

    return {
        "work": f"prefill layer, hidden size 512, 8 heads, {kv_heads} key/value heads, {tokens} tokens, "
        f"{LAYER_CORES} x {LAYER_CORES} cores",
        "limit_seconds": 10.0,
        "peak_bytes_per_core": program.summary().peak_bytes,
        **timed(work),
    }


def random_layer(shape: Shape, rng: np.random.Generator) -> LayerWeights:
    def matrix(outputs: int, inputs: int) -> np.ndarray:
        return (rng.standard_normal((outputs, inputs)) * inputs**-0.5).astype(np.float32)

    hidden, wide = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    ones = np.ones(hidden, np.float32)
    return LayerWeights(
        ones,
        matrix(queries, hidden),
        matrix(keys, hidden),
        matrix(keys, hidden),
        matrix(hidden, queries),
        ones,
        matrix(wide, hidden),
        matrix(wide, hidden),
        matrix(hidden, wide),
    )


def main() -> None:
    rows = [measure_gemm()]
    rows += [measure_layer(kv_heads, tokens) for kv_heads in (8, 2) for tokens in (128, 512, 1024)]
    for row in rows:
        print(f"{row['seconds']:8.3f} s  (limit {row['limit_seconds']:g} s)  {row['work']}")
    file = write_result(
        "wafer_functional",
        {"repeats": REPEATS, "load_average": os.getloadavg()[0], "rows": rows},
    )
    print(file)


if __name__ == "__main__":
    main()
