"""A quantized checkpoint of ours against the best 4-bit models of other engines and our own bfloat16, in turn.

    lapidist make-checkpoint --like llama-3.2-1b out/llama-3.2-1b
    lapidist quantize out/llama-3.2-1b out/llama-3.2-1b.w4a8kv4 --recipe qoq-g128
    python -m benchmarks.peers.write_openvino out/llama-3.2-1b out/llama-3.2-1b.openvino  # see there what it needs
    python -m benchmarks.peers.quantized_engine_vs_peers --bf16 out/llama-3.2-1b \\
        --checkpoint out/llama-3.2-1b.w4a8kv4 --openvino out/llama-3.2-1b.openvino

Measures prefill of a prompt, and decoding of one sequence, of many short ones, and of many long ones. Decoding is
measured alone: every engine first takes in the same prompts, then each in turn decodes the same number of steps, round
after round, one token of each sequence a step.

llama.cpp's best counts: for each kind of measurement its 4-bit files, with and without repacked weights, then KV
types and layouts are tried, and the fastest takes part. Medians and the medians of the per-round ratios go to
``results/quantized_engine_vs_peers.json``.
"""

import argparse
import json
import os
import random
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.quantize_gguf import quantized_gguf
from benchmarks.peers.summary import Rates, print_summary, summarize
from benchmarks.peers.worker import Worker
from benchmarks.peers.write_gguf import write_gguf
from benchmarks.result_file import write_result

CLAIMS = {
    "llama.cpp": {"prefill": 1.3, "decode": 1.05, "concurrent": 2.2, "concurrent_long": 2.5},
    "bf16": {"decode": 2.5},
}
KINDS = tuple(CLAIMS["llama.cpp"])
FOUR_BIT_FILES = ("q4_0", "q4_0_pure", "q4_k_m", "q4_k_pure")
_CHOICE_TRIES = 2
_KV_CACHE_GIB = 2


@dataclass(frozen=True)
class Kind:
    """What is measured: ``steps`` of decoding a round, or where there are none the prefill of one prompt."""

    sequences: int
    context: int
    steps: int


@dataclass(frozen=True)
class Contender:
    name: str
    engine: str
    path: Path
    settings: dict[str, Any] = field(default_factory=dict)

    def with_settings(self, **settings: Any) -> "Contender":
        return Contender(self.name, self.engine, self.path, self.settings | settings)

    @property
    def label(self) -> str:
        return " ".join([self.path.name, *(f"{key}={value}" for key, value in self.settings.items())])


class Bench:
    """Contenders measured in one kind, in rounds."""

    def __init__(self, kind: Kind, rounds: int, threads: int, vocab_size: int) -> None:
        self._kind, self._rounds, self._threads, self._vocab_size = kind, rounds, threads, vocab_size

    def fastest(self, contenders: Iterable[Contender], tried: dict[str, float]) -> Contender:
        """The contender with the most tokens per second, each on its own; ``tried`` takes the number of each.

        All sequences have the same prompt, which llama.cpp then takes in once.
        """
        found = {}
        for contender in contenders:
            if contender.label not in tried:
                prompts = self._prompts(0)[:1] * self._kind.sequences
                with closing(self._worker(contender)) as worker:
                    self._begin(worker, prompts)
                    rates = [self._rate(worker, number) for number in range(_CHOICE_TRIES + 1)]
                tried[contender.label] = max(rates[1:])
                print(f"  {contender.label:60} {tried[contender.label]:10.2f} tokens/s", flush=True)
            found[contender.label] = contender
        return found[max(found, key=lambda label: tried[label])]

    def rates(self, contenders: list[Contender]) -> tuple[dict[str, list[float]], dict[str, int]]:
        """Tokens per second by contender and round, and peak bytes of memory by contender; a first round warms up and
        does not count."""
        rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
        with ExitStack() as stack:
            workers = [stack.enter_context(closing(self._worker(contender))) for contender in contenders]
            for worker in workers:
                self._begin(worker, self._prompts(0))
            for number in range(self._rounds + 1):
                # Each comes first equally often.
                for worker in workers[number % len(workers) :] + workers[: number % len(workers)]:
                    rate = self._rate(worker, number)
                    print(f"  round {number}  {worker.name:13} {rate:10.2f} tokens/s", flush=True)
                    if number > 0:
                        rates[worker.name].append(rate)
            return rates, {worker.name: worker.peak_memory_bytes for worker in workers}

    def _worker(self, contender: Contender) -> Worker:
        kind = self._kind
        # Ours decodes the first sequences while it takes in the last prompts.
        overlap = 64 + kind.sequences * kind.context // 256
        decoded = kind.steps * (1 + max(self._rounds, _CHOICE_TRIES))
        length = kind.context + decoded + overlap
        size = {"context": length, "sequences": kind.sequences}
        if contender.engine == "llama.cpp":
            size["context"] = length * kind.sequences
        elif contender.engine == "lapidist":
            size["kv_cache_bytes"] = _KV_CACHE_GIB << 30
        else:
            size["kv_cache_gib"] = _KV_CACHE_GIB
        return Worker(
            contender.engine, contender.path, self._threads, contender.settings | size, contender.name
        )

    def _begin(self, worker: Worker, prompts: list[list[int]]) -> None:
        if self._kind.steps:
            seconds = worker.measure("begin_seconds", prompts=prompts)
            print(f"  {worker.name} took in {sum(map(len, prompts))} tokens in {seconds:.1f} s", flush=True)

    def _rate(self, worker: Worker, number: int) -> float:
        if self._kind.steps:
            return worker.measure("continue_tokens_per_second", steps=self._kind.steps)
        return self._kind.context / worker.measure("prefill_seconds", prompt=self._prompts(number)[0])

    def _prompts(self, seed: int) -> list[list[int]]:
        rng = random.Random(seed)
        count, length = self._kind.sequences, self._kind.context
        return [rng.choices(range(self._vocab_size), k=length) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="ours, written by `lapidist quantize`")
    parser.add_argument("--bf16", type=Path, required=True, help="the Llama it was made of")
    parser.add_argument("--openvino", type=Path, help="the same, written by benchmarks.peers.write_openvino")
    parser.add_argument("--files", nargs="+", default=FOUR_BIT_FILES, help="llama.cpp's file types to try")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--result", default="quantized_engine_vs_peers", help="name of the result file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--prefill-tokens", type=int, default=512)
    parser.add_argument("--decode-steps", type=int, default=32, help="of a single sequence, a round")
    parser.add_argument("--concurrent", type=int, nargs=2, default=[16, 64], metavar=("N", "CONTEXT"))
    parser.add_argument("--concurrent-long", type=int, nargs=2, default=[32, 1024], metavar=("N", "CONTEXT"))
    parser.add_argument("--concurrent-steps", type=int, default=8, help="a round")
    args = parser.parse_args()
    load_average = os.getloadavg()[0]
    contenders = [
        Contender("lapidist", "lapidist", args.checkpoint),
        Contender("bf16", "lapidist", args.bf16),
        *([Contender("openvino", "openvino", args.openvino)] if args.openvino else []),
    ]
    files = _llama_cpp_files(args.bf16, args.files)
    paths = ("checkpoint", "bf16", "openvino")
    settings = {key: value for key, value in vars(args).items() if key not in paths}
    rates: Rates = {}
    details: dict[str, Any] = {}
    for name, kind in _kinds(args).items():
        print(name, flush=True)
        rates[name], details[name] = _measure(kind, contenders, files, args)
        result = summarize(rates, CLAIMS) | {
            "checkpoint": args.checkpoint.name,
            "details": details,
            "settings": settings,
            "load_average_before": load_average,
        }
        # After each kind, because all of them take long.
        file = write_result(args.result, result)
    print_summary(result)
    print(f"written to {file}")


def _kinds(args: argparse.Namespace) -> dict[str, Kind]:
    kinds = {
        "prefill": Kind(1, args.prefill_tokens, 0),
        "decode": Kind(1, 128, args.decode_steps),
        "concurrent": Kind(args.concurrent[0], args.concurrent[1], args.concurrent_steps),
        "concurrent_long": Kind(args.concurrent_long[0], args.concurrent_long[1], args.concurrent_steps),
    }
    return {name: kinds[name] for name in args.kinds}


def _measure(
    kind: Kind, contenders: list[Contender], files: list[Contender], args: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Tokens per second by contender, llama.cpp's best among them, and how that was found."""
    vocab_size = json.loads((args.bf16 / "config.json").read_text())["vocab_size"]
    bench = Bench(kind, args.rounds, args.threads, vocab_size)
    tried: dict[str, float] = {}
    best = _best_llama_cpp(bench, files, tried)
    rates, peak_memory_bytes = bench.rates([*contenders, best])
    details = {
        "llama.cpp": {"chosen": best.label, "tried_tokens_per_second": tried},
        "peak_memory_bytes": peak_memory_bytes,
    }
    return rates, details


def _llama_cpp_files(checkpoint: Path, file_types: Iterable[str]) -> list[Contender]:
    """The checkpoint's GGUF files, written where absent."""
    bf16 = checkpoint.with_name(f"{checkpoint.name}.bf16.gguf")
    if not bf16.exists():
        write_gguf(checkpoint, bf16)
    return [Contender("llama.cpp", "llama.cpp", quantized_gguf(bf16, each)) for each in file_types]


def _best_llama_cpp(bench: Bench, files: list[Contender], tried: dict[str, float]) -> Contender:
    """First the best weights, then the best KV cache for them."""
    weights = [file.with_settings(repack=repack) for file in files for repack in (True, False)]
    best = bench.fastest((each.with_settings(unified=False, kv_type="f16") for each in weights), tried)
    caches = [{"unified": False, "kv_type": kv_type} for kv_type in ("f16", "q8_0", "q4_0")]
    caches.append({"unified": True, "kv_type": "f16"})
    return bench.fastest((best.with_settings(**cache) for cache in caches), tried)


if __name__ == "__main__":
    main()
