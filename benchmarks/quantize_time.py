"""How long ``lapidist quantize`` takes, and its peak memory.

    python -m benchmarks.quantize_time --checkpoint llama-3.2-1b

Claims, for the shape of Llama-3.2-1B: at most 15 minutes and 6 GiB for each recipe. A fresh process each, with a
calibration of the recipe's size; the result is thrown away. The machine should do nothing else.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.result_file import write_result

_MOST_SECONDS, _MOST_BYTES = 900, 6 << 30


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="directory of a checkpoint of floats")
    parser.add_argument("--recipes", nargs="+", default=["qoq-g128", "qoq-channel"])
    args = parser.parse_args()
    rows = []
    for recipe in args.recipes:
        rows.append(measure(args.checkpoint, recipe))
        print(rows[-1], flush=True)
        write_result("quantize_time", {"rows": rows, "met": all(row["met"] for row in rows)})


def measure(checkpoint: Path, recipe: str) -> dict[str, Any]:
    """Seconds and peak memory of one run."""
    with tempfile.TemporaryDirectory(dir=checkpoint.parent) as folder:
        command = [
            "-m",
            "lapidist.cli.main",
            "quantize",
            str(checkpoint),
            f"{folder}/out",
            "--recipe",
            recipe,
        ]
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command])
        # Of this child alone: the maximum of all children would hide a smaller one behind a larger.
        _, status, usage = os.wait4(process.pid, 0)
        seconds, peak = time.perf_counter() - began, usage.ru_maxrss * 1024
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"quantizing {checkpoint} by {recipe} failed, see above")
    met = seconds <= _MOST_SECONDS and peak <= _MOST_BYTES
    return {
        "checkpoint": checkpoint.name,
        "recipe": recipe,
        "seconds": seconds,
        "peak_bytes": peak,
        "met": met,
    }


if __name__ == "__main__":
    main()
