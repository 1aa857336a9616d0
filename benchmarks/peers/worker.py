"""One engine in a process of its own: reads a JSON command a line, answers with the measured number.

Engines share a machine but no memory, so each can be measured in turn. ``Worker`` is the side of the benchmark,
``main`` that of the engine.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any


class Worker:
    """An engine in its own process; ``settings`` are arguments of the engine's class beyond path and threads."""

    def __init__(
        self, engine: str, path: Path, threads: int, settings: dict[str, Any] | None = None, name: str = ""
    ) -> None:
        self.engine = engine
        self.name = name or engine
        self.peak_memory_bytes = 0
        command = [engine, str(path), str(threads), json.dumps(settings or {})]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.worker", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        self._answer()

    def measure(self, what: str, **arguments: Any) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"measure": what, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.peak_memory_bytes = answer["peak_memory_bytes"]
        return float(answer["value"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the {self.name} worker ended with status {self._process.wait()}")
        return json.loads(line)


def load(engine: str, path: str, threads: int, settings: dict[str, Any]) -> Any:
    """The engine by its name; only its own libraries are imported."""
    if engine == "lapidist":
        from benchmarks.peers.run_lapidist import Lapidist

        return Lapidist(path, threads, **settings)
    if engine == "transformers":
        from benchmarks.peers.run_transformers import Transformers

        return Transformers(path, threads, **settings)
    if engine == "openvino":
        from benchmarks.peers.run_openvino import OpenVino

        return OpenVino(path, threads, **settings)
    from benchmarks.peers.run_llama_cpp import LlamaCpp

    return LlamaCpp(path, threads, **settings)


def main() -> None:
    engine, path, threads, settings = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
    # Libraries print to standard output; the answers get it for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    runner = load(engine, path, threads, settings)
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        command = json.loads(line)
        value = getattr(runner, command["measure"])(**command["arguments"])
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"value": value, "peak_memory_bytes": peak_bytes}), file=answers)


if __name__ == "__main__":
    main()
