"""The prompt phase with and without a prompt filter: time against the bound by arithmetic, memory against its formula.

    python -m benchmarks.prompt_filters                        # the bundled model, the longest prompt that it takes
    python -m benchmarks.prompt_filters --checkpoint out/llama-3.2-1b --lengths 32768
    python -m benchmarks.prompt_filters --checkpoint out/llama-3.2-1b --lengths 32768 --memory
    python -m benchmarks.prompt_filters --checkpoint llama-8b --lengths 8192,131072 --device cuda --layer 13

Every run is a fresh process, plain and filtered ones in turn. It loads the checkpoint, runs every operator once,
and then one prompt of random tokens up to its first token (the prompt phase) and some more (the generation phase).

- Time: from when the prompt is first scheduled to its first token, both runs of the filter included. The bound is the
  ratio of the FLOPs in matrix products and causal attention (``prompt_filters.forecast``): what a filter gains if its
  FLOPs run as fast as those of the plain prompt.
- Memory (``--memory``, in place of time): the peak beside weights and program, each engine with a KV cache for what it
  must cache. Predicted is the difference of what the methods must hold: keys and values of the whole prompt in all
  layers, against its hidden states, rotary factors, the keys and values of one layer, and those of the kept tokens in
  all. The C library is told to give back at once what is freed, which takes time.
- Keys and values: tokens in the KV cache after the generation, which must be those kept and those generated.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.result_file import write_result

GOAL = 0.95
MEMORY_TOLERANCE = 0.05
_OF_THE_PROGRAM = 1 << 20  # what Python itself takes meanwhile, from run to run
# Without it glibc keeps up to 32 MiB of freed memory in its heap, where what a prompt takes is not seen.
_GIVE_BACK_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(64 << 10)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--lengths", help="such as 8192,32768 (default: the longest the model takes)")
    parser.add_argument("--methods", default="gemfilter", help="such as gemfilter,fastkv,snapkv")
    parser.add_argument("--keep", default="1024", help="tokens, or a share such as 0.1 (default: 1024)")
    parser.add_argument("--layer", type=int, help="of gemfilter and fastkv (default: the method's)")
    parser.add_argument("--generate", type=int, default=16, help="tokens after the first one")
    parser.add_argument("--batched-tokens", type=int, default=512, help="tokens that run at once")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--memory", action="store_true", help="measure the peak of memory in place of the time"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", help="of the result file (default: prompt_filters_CHECKPOINT)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        print(json.dumps(_measure(json.loads(args.child))))
        return
    rows = []
    for length in _lengths(args):
        rows += _compare(args, length)
    part = "_memory" if args.memory else ""
    name = args.name or f"prompt_filters_{Path(args.checkpoint).name.replace('.', '_')}{part}"
    goal = (
        f"memory saved by gemfilter within {MEMORY_TOLERANCE} of the prediction"
        if args.memory
        else f"speed-up of gemfilter at least {GOAL} of the bound"
    )
    result = {
        "claim": f"{goal}, KV cache of kept and generated tokens alone",
        "checkpoint": args.checkpoint,
        "device": args.device,
        "batched_tokens": args.batched_tokens,
        "rows": rows,
        "met": all(row["met"] for row in rows if row["method"] == "gemfilter"),
    }
    print(f"written to {write_result(name, result)}")


def _lengths(args: argparse.Namespace) -> list[int]:
    from lapidist.bundled import resolve_model
    from lapidist.models.config import ModelConfig

    if args.lengths:
        return [int(length) for length in args.lengths.split(",")]
    context = ModelConfig.from_directory(resolve_model(args.checkpoint)).max_position_embeddings
    return [context - args.generate - 1]


def _compare(args: argparse.Namespace, length: int) -> list[dict[str, Any]]:
    keep = float(args.keep) if "." in args.keep else int(args.keep)
    filters: dict[str, dict[str, Any] | None] = {"full": None}
    for method in args.methods.split(","):
        filters[method] = {"method": method, "keep": keep}
        if args.layer is not None and method in ("gemfilter", "fastkv"):
            filters[method] |= {"layer": args.layer}  # type: ignore[operator]
    runs: dict[str, list[dict[str, Any]]] = {method: [] for method in filters}
    for _ in range(args.repeats):
        for method, prompt_filter in filters.items():
            runs[method].append(_child(args, length, prompt_filter))
    full = runs.pop("full")
    row_of = _memory_row if args.memory else _time_row
    return [row_of(method, length, full, filtered) for method, filtered in runs.items()]


def _time_row(
    method: str, length: int, full: list[dict[str, Any]], filtered: list[dict[str, Any]]
) -> dict[str, Any]:
    """Medians over the repeats; the speed-up is that of neighbouring runs."""
    ratios = [a["prompt_seconds"] / b["prompt_seconds"] for a, b in zip(full, filtered, strict=True)]
    speed_up, bound = statistics.median(ratios), filtered[0]["bound"]
    row = _common_fields(method, length, filtered[0]) | {
        "full_seconds": [run["prompt_seconds"] for run in full],
        "filtered_seconds": [run["prompt_seconds"] for run in filtered],
        "filter_seconds": [run["filter_seconds"] for run in filtered],
        "choice_share": statistics.median(run["choice_seconds"] / run["prompt_seconds"] for run in filtered),
        "speed_up": speed_up,
        "bound": bound,
        "share_of_bound": speed_up / bound,
    }
    row["met"] = row["share_of_bound"] >= GOAL and row["kv_is_exact"]
    plain, shorter = (statistics.median(row[f"{name}_seconds"]) for name in ("full", "filtered"))
    print(
        f"{_title(row)}: {speed_up:.2f}x of {bound:.2f}x possible ({row['share_of_bound']:.1%}), "
        f"{plain:.2f} s -> {shorter:.2f} s, choosing takes {row['choice_share']:.2%}; {_kv_words(row)}",
        flush=True,
    )
    return row


def _memory_row(
    method: str, length: int, full: list[dict[str, Any]], filtered: list[dict[str, Any]]
) -> dict[str, Any]:
    """The least peaks of all repeats."""
    plain, shorter = (min(run["peak_bytes"] for run in runs) for runs in (full, filtered))
    predicted = full[0]["must_hold_bytes"] - filtered[0]["must_hold_bytes"]
    row = _common_fields(method, length, filtered[0]) | {
        "weights_bytes": filtered[0]["weights_bytes"],
        "full_peak_bytes": plain,
        "filtered_peak_bytes": shorter,
        "saved_bytes": plain - shorter,
        "predicted_saved_bytes": predicted,
    }
    tolerance = max(MEMORY_TOLERANCE * predicted, _OF_THE_PROGRAM)
    row["met"] = abs(row["saved_bytes"] - predicted) <= tolerance and row["kv_is_exact"]
    mib = {name: f"{row[f'{name}_bytes'] / 2**20:,.1f}" for name in ("full_peak", "filtered_peak", "saved")}
    print(
        f"{_title(row)}: peak beside {row['weights_bytes'] / 2**20:,.1f} MiB of weights {mib['full_peak']} -> "
        f"{mib['filtered_peak']} MiB, saved {mib['saved']} of {predicted / 2**20:,.1f} predicted; {_kv_words(row)}",
        flush=True,
    )
    return row


def _common_fields(method: str, length: int, run: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": method,
        "prompt_tokens": length,
        "kept_tokens": run["kept_tokens"],
        "layer": run["layer"],
        "kv_tokens": run["kv_tokens"],
        "kv_bytes": run["kv_bytes"],
        "kv_is_exact": run["kv_tokens"] == run["kept_tokens"] + run["decode_steps"],
    }


def _title(row: dict[str, Any]) -> str:
    return f"{row['method']} {row['prompt_tokens']} -> {row['kept_tokens']} tokens (layer {row['layer']})"


def _kv_words(row: dict[str, Any]) -> str:
    exactly = "exactly" if row["kv_is_exact"] else "NOT"
    return f"KV cache after generating: {row['kv_tokens']} tokens, {exactly} those kept and generated"


def _child(args: argparse.Namespace, length: int, prompt_filter: dict[str, Any] | None) -> dict[str, Any]:
    task = {
        "checkpoint": args.checkpoint,
        "device": args.device,
        "length": length,
        "generate": args.generate,
        "batched_tokens": args.batched_tokens,
        "prompt_filter": prompt_filter,
    }
    command = [sys.executable, "-m", "benchmarks.prompt_filters", "--child", json.dumps(task)]
    environment = os.environ | (_GIVE_BACK_AT_ONCE if args.memory else {})
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    result: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return result


def _measure(task: dict[str, Any]) -> dict[str, Any]:
    """One prompt in this process."""
    import torch

    from lapidist.bundled import resolve_model
    from lapidist.engine.engine import Engine, EngineConfig
    from lapidist.engine.prompt_filters import forecast
    from lapidist.engine.prompt_filters.selection import kept_tokens
    from lapidist.engine.sampling_params import SamplingParams

    length, generate = task["length"], task["generate"]
    cached = length + generate + 1
    if task["prompt_filter"] is not None:
        cached = kept_tokens(task["prompt_filter"]["keep"], length) + generate + 1
    model = resolve_model(task["checkpoint"])
    engine = Engine(
        EngineConfig(
            model,
            device=task["device"],
            kv_cache_bytes=_cache_bytes(model, cached),
            max_num_seqs=1,
            max_num_batched_tokens=task["batched_tokens"],
            enable_prefix_caching=False,
        )
    )
    choice_seconds = _time_the_choice()
    generator = torch.Generator().manual_seed(0)
    token_ids = torch.randint(engine.config.vocab_size, (length,), generator=generator).tolist()

    def params(tokens: int, prompt_filter: Any) -> SamplingParams:
        return SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, prompt_filter=prompt_filter)

    # Every operator once; a filter that keeps a quarter does not let a short prompt pass as it is.
    brief = None if task["prompt_filter"] is None else task["prompt_filter"] | {"keep": 0.25}
    short = token_ids[: min(task["batched_tokens"], length // 4)]
    warm = engine.prepare("warm", {"prompt_token_ids": short}, params(2, brief))
    engine.add(warm)
    while warm.metrics.first_token_time is None:
        engine.step()
    engine.abort_request("warm")
    choice_seconds.clear()
    _touch_embedding(engine.decoder)
    cache = (*engine.runner.cache.keys, *engine.runner.cache.values)
    before = _in_use(task["device"]) - sum(tensor.nbytes for tensor in cache)
    _reset_peak(task["device"])
    request = engine.prepare(
        "measured", {"prompt_token_ids": token_ids}, params(1 + generate, task["prompt_filter"])
    )
    engine.add(request)
    while request.metrics.first_token_time is None:
        engine.step()
    peak = _peak(task["device"]) - before
    sequence, steps = request.completions[0].sequence, 0
    while steps < generate - 1:
        engine.step()
        steps += 1
    kv_tokens = sequence.num_computed
    kv_bytes = forecast.kv_bytes(engine.config, kv_tokens, engine.decoder.dtype.itemsize)
    engine.abort_request("measured")
    report, itemsize = request.filter_report, engine.decoder.dtype.itemsize
    started = request.metrics.first_scheduled_time
    assert started is not None
    full = forecast.full_memory(engine.config, length, itemsize).total
    is_filtered = report is not None and report.bypassed is None
    kept = report.kept_tokens if report is not None else length
    scratch = forecast.filter_memory(engine.config, length, itemsize).total
    if is_filtered and report is not None and report.kept is None:
        scratch += forecast.kv_bytes(engine.config, kept, itemsize)  # handed over to the cache
    return {
        "prompt_seconds": request.metrics.first_token_time - started,
        "filter_seconds": report.seconds if report is not None else 0.0,
        "choice_seconds": sum(choice_seconds),
        "kept_tokens": kept,
        "layer": report.layer if report is not None else None,
        "bound": (report.forecast_gain if report is not None else None) or 1.0,
        "peak_bytes": peak,
        "must_hold_bytes": scratch + forecast.kv_bytes(engine.config, cached, itemsize)
        if is_filtered
        else full,
        "weights_bytes": sum(engine.parts.byte_counts.values()),
        "kv_tokens": kv_tokens,
        "kv_bytes": kv_bytes,
        "decode_steps": steps,
    }


def _cache_bytes(model: Path, tokens: int) -> int:
    """Of a KV cache in the checkpoint's own type that holds so many tokens, in whole pages."""
    from lapidist.engine.engine import EngineConfig
    from lapidist.engine.prompt_filters import forecast
    from lapidist.models.config import ModelConfig

    config, page = ModelConfig.from_directory(model), EngineConfig.page_size
    return forecast.kv_bytes(config, -(-tokens // page) * page, config.dtype.itemsize)


def _touch_embedding(decoder: Any) -> None:
    """The whole table lies in a mapped file, whose pages shall not count for the prompt."""
    import torch

    for ids in torch.arange(decoder.config.vocab_size, device=decoder.device).split(4096):
        decoder.embed(ids)


def _time_the_choice() -> list[float]:
    """A list that grows by the seconds of every call that scores or selects in GemFilter."""
    from lapidist.engine.prompt_filters import gemfilter

    module: Any = gemfilter
    seconds: list[float] = []

    def timed(function: Any) -> Any:
        def run(*arguments: Any) -> Any:
            import torch

            if torch.cuda.is_available():
                torch.cuda.synchronize()
            start = time.perf_counter()
            result = function(*arguments)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
            return result

        return run

    module.filter_scores = timed(module.filter_scores)
    module.select = timed(module.select)
    return seconds


def _in_use(device: str) -> int:
    """Bytes."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.memory_allocated()
    return _status("VmRSS")


def _reset_peak(device: str) -> None:
    """Forget the peak so far."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: str) -> int:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated()
    return _status("VmHWM")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


if __name__ == "__main__":
    main()
