"""What scheduling, batch building and sampling cost beside the model, with many requests running.

    python -m benchmarks.engine_overhead --checkpoint llama-1b --running 64

The step is timed whole and in parts: the decoder's forward pass and its logits are the model's work, everything else,
choosing the tokens included, is bookkeeping. The claim: at 64 running requests of the llama-3.2-1b shape it is at
most 3 % of the step.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.result_file import write_result
from lapidist.engine.engine import Engine, EngineConfig
from lapidist.engine.sampling_params import SamplingParams


class Stopwatch:
    """Adds up the time spent in the functions it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--running", type=int, default=64, help="requests that decode at once")
    parser.add_argument("--context", type=int, default=64, help="prompt tokens of each")
    parser.add_argument("--steps", type=int, default=24)
    args = parser.parse_args()

    engine = Engine(
        EngineConfig(args.checkpoint, max_num_seqs=args.running, max_model_len=args.context + args.steps + 16)
    )
    params = SamplingParams(temperature=0, max_tokens=args.steps + 8, ignore_eos=True)
    for index in range(args.running):
        prompt = [(7 * index + token) % 256 for token in range(args.context)]
        engine.add(engine.prepare(str(index), {"prompt_token_ids": prompt}, params))
    while len(engine.scheduler.running) < args.running or any(
        sequence.num_uncomputed > 1 for sequence in engine.scheduler.running
    ):
        engine.step()

    model = Stopwatch()
    decoder = engine.decoder
    decoder.forward = model.around(decoder.forward)  # type: ignore[method-assign]
    decoder.logits = model.around(decoder.logits)  # type: ignore[method-assign]
    steps, shares = [], []
    for _ in range(args.steps):
        model.seconds = 0.0
        start = time.perf_counter()
        engine.step()
        steps.append(time.perf_counter() - start)
        shares.append(1 - model.seconds / steps[-1])
    result = {
        "running": args.running,
        "context": args.context,
        "step_seconds_median": statistics.median(steps),
        "bookkeeping_share_median": statistics.median(shares),
        "bookkeeping_share_max": max(shares),
        "claim": "bookkeeping_share_median <= 0.03",
        "met": statistics.median(shares) <= 0.03,
    }
    print(result)
    print(f"written to {write_result('engine_overhead', result)}")


if __name__ == "__main__":
    main()
