"""How the GPU benchmarks time: graphs of calls on data that left the cache, replayed in turn."""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

Call = Callable[[], object]

_WARM_UPS = 3


def require_gpu() -> torch.device:
    """The current CUDA device; ends the program where there is none."""
    if not torch.cuda.is_available():
        sys.exit(
            "This benchmark measures Triton kernels and needs a CUDA device; PyTorch finds none on this machine."
        )
    return torch.device("cuda", torch.cuda.current_device())


def describe_gpu(device: torch.device) -> dict[str, Any]:
    import triton

    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "l2_bytes": properties.L2_cache_size,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
    }


def cold_copies(bytes_each: int, device: torch.device) -> int:
    """How many copies of some data are together four times the second-level cache, and two at least.

    A call on each in turn finds its own out of the cache, as the next layer of a model does.
    """
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return max(2, -(-4 * cache // bytes_each))


def interleaved_seconds(contenders: Mapping[str, Sequence[Call]], repeats: int = 21) -> dict[str, float]:
    """Median seconds of one call of each contender; its calls, one per copy of the data, are one CUDA graph.

    The graphs take turns (A B C A B C), so that what disturbs the machine disturbs all. A graph leaves out the time
    that Python takes to launch.
    """
    graphs = {name: _captured(calls) for name, calls in contenders.items()}
    taken: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(repeats):
        for name, graph in graphs.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            taken[name].append(start.elapsed_time(end) * 1e-3 / len(contenders[name]))
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _captured(calls: Sequence[Call]) -> torch.cuda.CUDAGraph:
    """A graph of all calls, which have run on a side stream before, as capturing asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            for call in calls:
                call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    torch.cuda.synchronize()
    return graph
