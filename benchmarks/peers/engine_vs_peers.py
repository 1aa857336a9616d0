"""The same checkpoint in Lapidist, transformers and llama.cpp, measured in turn (A B C A B C ...).

    lapidist make-checkpoint --like llama-3.2-1b /tmp/llama-3.2-1b
    python -m benchmarks.peers.engine_vs_peers --checkpoint /tmp/llama-3.2-1b

Measures single-stream decode, prefill of 512 tokens, a prompt of 4,096 tokens followed by decoding, and the total
throughput of 16 concurrent requests of mixed lengths; writes medians and the medians of the per-round ratios to
``results/engine_vs_peers.json``.
"""

import argparse
import json
import os
import random
from collections import defaultdict
from pathlib import Path

from benchmarks.peers.summary import Rates, print_summary, summarize
from benchmarks.peers.worker import Worker
from benchmarks.peers.write_gguf import write_gguf
from benchmarks.result_file import write_result
from lapidist.workload.generated_trace import generate_trace
from lapidist.workload.length_distribution import Uniform

ENGINES = ("lapidist", "transformers", "llama.cpp")
KINDS = ("decode", "prefill", "long", "mixed")
# Ours over the peer's.
CLAIMS = {
    "transformers": {"decode": 1.3, "prefill": 1.0, "mixed": 2.0},
    "llama.cpp": {"decode": 1.05, "long": 1.3},
}


class Round:
    """One measurement of each kind in every engine, on prompts of its own."""

    def __init__(self, number: int, vocab_size: int, args: argparse.Namespace) -> None:
        self._rng = random.Random(number)
        self._vocab_size = vocab_size
        self._args = args
        # The lengths are the same in every round, so that rounds can be compared.
        trace = generate_trace(args.requests, 1.0, Uniform(32, 256), Uniform(16, 128), seed=0)
        self._mixed_prompts = [self._tokens(request.prompt_tokens) for request in trace]
        self._mixed_outputs = [request.output_tokens for request in trace]
        self._prompt, self._decode_prompt = self._tokens(args.prefill_tokens), self._tokens(128)
        self._long_prompt = self._tokens(args.long_tokens)

    def measure(self, worker: Worker, kind: str) -> float:
        """Tokens per second."""
        if kind == "decode":
            arguments = {"prompt": self._decode_prompt, "new_tokens": self._args.decode_tokens}
            return worker.measure("decode_tokens_per_second", **arguments)
        if kind == "prefill":
            return len(self._prompt) / worker.measure("prefill_seconds", prompt=self._prompt)
        if kind == "long":
            arguments = {"prompts": [self._long_prompt], "new_tokens": [self._args.decode_tokens]}
            batching = {"batch_size": 1} if worker.engine == "transformers" else {}
            tokens = len(self._long_prompt) + self._args.decode_tokens
            return tokens / worker.measure("mixed_seconds", **arguments, **batching)
        arguments = {"prompts": self._mixed_prompts, "new_tokens": self._mixed_outputs}
        tokens = sum(map(len, self._mixed_prompts)) + sum(self._mixed_outputs)
        if worker.engine != "transformers":
            return tokens / worker.measure("mixed_seconds", **arguments)
        seconds = [
            worker.measure("mixed_seconds", **arguments, batch_size=size)
            for size in self._args.static_batches
        ]
        return tokens / min(seconds)

    def _tokens(self, count: int) -> list[int]:
        return self._rng.choices(range(self._vocab_size), k=count)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="a Llama in a Hugging Face directory")
    parser.add_argument(
        "--gguf", type=Path, help="its GGUF file, written when absent (default: beside the checkpoint)"
    )
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--result", default="engine_vs_peers", help="name of the result file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--prefill-tokens", type=int, default=512)
    parser.add_argument("--long-tokens", type=int, default=4096)
    parser.add_argument("--requests", type=int, default=16, choices=range(1, 17), metavar="1..16")
    parser.add_argument(
        "--static-batches",
        type=int,
        nargs="+",
        default=[8, 16],
        help="batch sizes that transformers may use; its best counts",
    )
    args = parser.parse_args()
    config = json.loads((args.checkpoint / "config.json").read_text())
    gguf = args.gguf or args.checkpoint.with_name(f"{args.checkpoint.name}.bf16.gguf")
    if "llama.cpp" in args.engines and not gguf.exists():
        write_gguf(args.checkpoint, gguf)
    load_average = os.getloadavg()[0]
    workers = [
        Worker(engine, gguf if engine == "llama.cpp" else args.checkpoint, args.threads)
        for engine in args.engines
    ]
    try:
        rates = _measure(workers, config["vocab_size"], args)
    finally:
        for worker in workers:
            worker.close()
    result = summarize(rates, CLAIMS) | {
        "shape": {key: config[key] for key in ("hidden_size", "num_hidden_layers", "vocab_size")},
        "checkpoint": args.checkpoint.name,
        "settings": {key: value for key, value in vars(args).items() if key not in ("checkpoint", "gguf")},
        "load_average_before": load_average,
        "peak_memory_bytes": {worker.engine: worker.peak_memory_bytes for worker in workers},
    }
    print_summary(result)
    print(f"written to {write_result(args.result, result)}")


def _measure(workers: list[Worker], vocab_size: int, args: argparse.Namespace) -> Rates:
    """Round 0 warms up and does not count."""
    rates: Rates = {kind: defaultdict(list) for kind in args.kinds}
    for number in range(args.rounds + 1):
        current = Round(number, vocab_size, args)
        for kind in args.kinds:
            # Each engine comes first equally often.
            for worker in workers[number % len(workers) :] + workers[: number % len(workers)]:
                rate = current.measure(worker, kind)
                print(f"round {number}  {kind:8} {worker.engine:13} {rate:10.2f} tokens/s", flush=True)
                if number > 0:
                    rates[kind][worker.engine].append(rate)
    return rates


if __name__ == "__main__":
    main()
