"""One engine in a process of its own: reads a JSON command a line, answers with the measured number.

Started by ``engine_vs_peers``; engines share a machine but no memory, so each can be measured in turn.
"""

import json
import os
import resource
import sys
from typing import Any


def load(engine: str, path: str, threads: int) -> Any:
    """The engine by its name; only its own libraries are imported."""
    if engine == "lapidist":
        from benchmarks.peers.run_lapidist import Lapidist

        return Lapidist(path, threads)
    if engine == "transformers":
        from benchmarks.peers.run_transformers import Transformers

        return Transformers(path, threads)
    from benchmarks.peers.run_llama_cpp import LlamaCpp

    return LlamaCpp(path, threads)


def main() -> None:
    engine, path, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # Libraries print to standard output; the answers get it for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    runner = load(engine, path, threads)
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        command = json.loads(line)
        value = getattr(runner, command["measure"])(**command["arguments"])
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"value": value, "peak_memory_bytes": peak_bytes}), file=answers)


if __name__ == "__main__":
    main()
