"""Seconds from starting ``lapidist serve`` to its first answer on /health, on the bundled model.

python -m benchmarks.startup --runs 5
"""

import argparse
import re
import statistics
import subprocess
import sys
import time

import httpx

from benchmarks.result_file import write_result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    seconds = [_start(args.model) for _ in range(args.runs)]
    result = {
        "model": args.model,
        "seconds": seconds,
        "seconds_median": statistics.median(seconds),
        "claim": "seconds_median <= 5",
        "met": statistics.median(seconds) <= 5,
    }
    print(result)
    print(f"written to {write_result('startup', result)}")


def _start(model: str) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-m", "lapidist.cli.main", "serve", model, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if found := re.search(r"ready on (http://\S+)", line):
                    httpx.get(found.group(1) + "/health").raise_for_status()
                    return time.perf_counter() - start
            raise SystemExit(f"the server on {model!r} ended before it was ready")
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
