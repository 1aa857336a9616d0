"""Run every benchmark, one after another: ``python -m benchmarks`` (``make bench``).

The llama-3.2-1b shape with random weights is written to ``out/`` first, unless it is there.
"""

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("out/llama-3.2-1b"))
    parser.add_argument(
        "--measurements",
        type=Path,
        help="folder with public measurements of GPUs, for the models fitted on them",
    )
    args = parser.parse_args()
    checkpoint = str(args.checkpoint)
    if not args.checkpoint.is_dir():
        args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        _run("lapidist.cli.main", "make-checkpoint", "--like", "llama-3.2-1b", "--seed", "0", checkpoint)
    _run("benchmarks.startup")
    _run("benchmarks.serve_many_clients")
    _run("benchmarks.engine_overhead", "--checkpoint", checkpoint)
    _run("benchmarks.peak_memory", "--checkpoint", checkpoint)
    _run("benchmarks.prompt_filters")
    _run("benchmarks.prompt_filters", "--checkpoint", checkpoint, "--lengths", "32768")
    _run("benchmarks.kernels.decode_attention")
    _run("benchmarks.kernels.flat_gemm")
    _run("benchmarks.kernels.dispatch_regret")
    _run("benchmarks.kernels.quantized_gemm")
    _run("benchmarks.kernels.quantized_attention")
    _run("benchmarks.kernels.recompute_rate")
    _run("benchmarks.peers.engine_vs_peers", "--checkpoint", checkpoint)
    _run("benchmarks.peers.decode_curve", "--checkpoint", checkpoint)
    if args.measurements is not None:
        for benchmark in ("ada_study", "tile_selection", "unseen_gpu"):
            _run(f"benchmarks.hardware.{benchmark}", str(args.measurements))
    _run("benchmarks.hardware.wafer_cost_speed")
    _run("benchmarks.hardware.wafer_functional")
    _run("benchmarks.hardware.wafer_tables")
    _run("benchmarks.hardware.plan_speed")
    _run("benchmarks.hardware.plan_published")
    _run("benchmarks.hardware.cpu_forecast")
    _run("benchmarks.hardware.cpu_forecast", "--checkpoint", checkpoint)
    _run("benchmarks.quantize_time", "--checkpoint", checkpoint)
    quantized = f"{checkpoint}-qoq-g128"
    if not Path(quantized).is_dir():
        _run("lapidist.cli.main", "quantize", checkpoint, quantized)
    _run("benchmarks.peers.quantized_engine_vs_peers", "--checkpoint", quantized, "--bf16", checkpoint)


def _run(module: str, *args: str) -> None:
    print(f"== {module} {' '.join(args)}", flush=True)
    subprocess.run([sys.executable, "-m", module, *args], check=True)


if __name__ == "__main__":
    main()
