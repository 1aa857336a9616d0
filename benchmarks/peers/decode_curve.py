"""Decode speed against Hugging Face ``generate`` over context length and batch: FlashDecoding++'s own comparison.

    lapidist make-checkpoint --like llama-3.2-1b out/llama-3.2-1b
    python -m benchmarks.peers.decode_curve --checkpoint out/llama-3.2-1b --plot decode_curve.png

The paper (arXiv 2311.01282) reports up to 4.86x over ``generate`` in decoding on NVIDIA GPUs, over batches of 1 to 8
and contexts of 128 to 32,768 tokens. Here both engines run the same bf16 weights on the CPU; each is measured from its
first generated token on, in turn. Claim: at least 4.86x at the best point.
"""

import argparse
import json
import os
import random
import statistics
from pathlib import Path
from typing import Any

from benchmarks.peers.worker import Worker
from benchmarks.result_file import write_result

POINTS = ((1, 128), (1, 1024), (1, 4096), (1, 6144), (4, 128), (4, 1024), (8, 128), (8, 1024))
PAPER_BEST = 4.86


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="a Llama in a Hugging Face directory")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=12)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--plot", type=Path, help="draw the curve: .png or .svg")
    args = parser.parse_args()
    vocab_size = json.loads((args.checkpoint / "config.json").read_text())["vocab_size"]
    workers = [Worker(engine, args.checkpoint, args.threads) for engine in ("lapidist", "transformers")]
    try:
        rows = [measure(workers, batch, context, vocab_size, args) for batch, context in POINTS]
    finally:
        for worker in workers:
            worker.close()
    best = max(row["ratio"] for row in rows)
    claim = f"best ratio >= {PAPER_BEST}"
    result = {
        "checkpoint": args.checkpoint.name,
        "rows": rows,
        "best": best,
        "claim": claim,
        "met": best >= PAPER_BEST,
    }
    if args.plot:
        plot(rows, args.plot)
    print(f"best {best:.2f}x; written to {write_result('decode_curve', result)}")


def measure(
    workers: list[Worker], batch: int, context: int, vocab_size: int, args: argparse.Namespace
) -> dict[str, Any]:
    rates: dict[str, list[float]] = {worker.engine: [] for worker in workers}
    for number in range(args.rounds):
        rng = random.Random(number)
        prompts = [rng.choices(range(vocab_size), k=context) for _ in range(batch)]
        for worker in workers:
            rate = worker.measure(
                "batch_decode_tokens_per_second", prompts=prompts, new_tokens=args.new_tokens
            )
            rates[worker.engine].append(rate)
    pairs = zip(rates["lapidist"], rates["transformers"], strict=True)
    row = {
        "batch": batch,
        "context": context,
        "tokens_per_second": {engine: statistics.median(found) for engine, found in rates.items()},
        "ratio": statistics.median(ours / theirs for ours, theirs in pairs),
    }
    print(row, flush=True)
    return row


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for batch in sorted({row["batch"] for row in rows}):
        own = [row for row in rows if row["batch"] == batch]
        axes.plot(
            [row["context"] for row in own], [row["ratio"] for row in own], marker="o", label=f"batch {batch}"
        )
    axes.axhline(PAPER_BEST, color="gray", linestyle="--", label="the paper's best, on NVIDIA GPUs")
    axes.set(xscale="log", ylim=0, xlabel="tokens of context", ylabel="times Hugging Face generate")
    axes.set_title("Decode speed, llama-3.2-1b shape, bf16, two CPU cores")
    contexts = sorted({row["context"] for row in rows})
    axes.set_xticks(contexts, [f"{context:,}" for context in contexts])
    axes.minorticks_off()
    axes.legend()
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()
