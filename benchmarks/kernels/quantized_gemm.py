"""Quantized linear layers on a CPU against what the processor and the memory could do, and other libraries' layers.

    taskset -c 0,1 python -m benchmarks.kernels.quantized_gemm

Square weights of 4096; 1 to 512 rows of activations, quantized beforehand; one thread and two. Calls go through copies
of the weights that are together larger than eight last-level caches, so that few rows read memory, as in a model. Every
round runs all contenders, a pure read of 512 MiB and multiplications of bytes in registers in turn. A kernel writes to
memory that is there, a layer to a new tensor. Other libraries (``quantized_peers``) quantize the activations within
what is timed, as our "w4a8-g128 and quantization" does.

One thread is timed by the time that it had a processor, and the median of the rounds counts; of the multiplications in
registers the best, for they are a bound. Two are timed by the wall, and the best round counts: whatever else runs takes
a processor away, and one thread then waits for the other.

A GOP is 10^9 multiplications and additions, each counted: ``2 M N K``.

Claims (M rows, one thread): at M = 1 at least 95 % of the read bandwidth, in bytes of packed weights; 110 GOPS at
M = 4 and 8; 200 GOPS at M = 16; 70 % of the multiplications in registers at M = 512. Two threads are 1.8 times as fast.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.kernels.interleaved import MemoryReader, time_in_turn
from benchmarks.kernels.quantized_peers import peers
from benchmarks.result_file import write_result
from lapidist.kernels.cpu.library import native
from lapidist.kernels.cpu.quantized_linear import multiply_by, pack_weight, weight_form
from lapidist.kernels.machine import last_level_cache_bytes
from lapidist.kernels.quantized_linear import QuantizedLinear
from lapidist.kernels.quantized_rows import QuantizedRows, quantize_rows
from lapidist.kernels.quantized_weight import GROUP_SIZE, QuantizedWeight
from lapidist.kernels.weight_only_linear import WeightOnlyLinear

SIZE = 4096
_PEAK_ROUNDS = 4_000_000  # some milliseconds: a short one finds the processor slow after a wait for memory
_FEW_ROWS = 16
# Copies of a weight, in last-level caches: the first call after other contenders finds its own code, the interpreter's
# included, out of the caches, and must not count for much; and what is read again too soon may still be in them.
_CACHES = 8


class Layer(Protocol):
    """One weight as a contender stores it."""

    weight_bytes: int  # that a call reads

    def prepare(self, x: Tensor) -> Any:
        """Activations bfloat16 ``[rows, SIZE]`` as ``run`` takes them; not timed."""

    def run(self, x: Any) -> Any:
        """The product; timed. It computes with ``torch.get_num_threads()`` threads."""


@dataclass(frozen=True)
class Contender:
    """A way to multiply: ``make`` lays out a float32 weight ``[SIZE, SIZE]``."""

    name: str
    make: Callable[[Tensor], Layer]
    max_rows: int = 1 << 30


class Ours:
    """A quantized layer. With ``quantizes`` the quantization of the activations is timed too."""

    def __init__(self, weight: QuantizedWeight, quantizes: bool = False) -> None:
        self._linear = QuantizedLinear(weight, None, torch.bfloat16)
        self._quantizes = quantizes
        self.weight_bytes = self._linear.packed.nbytes

    def prepare(self, x: Tensor) -> Tensor | QuantizedRows:
        return x if self._quantizes else quantize_rows(x)

    def run(self, x: Tensor | QuantizedRows) -> Tensor:
        return self._linear(x)


class OurKernel:
    """What a quantized layer runs once there is an output, whose making takes as long as 200 KiB of weights."""

    def __init__(self, weight: QuantizedWeight) -> None:
        packed = pack_weight(weight)
        self._multiply = multiply_by(weight_form(weight), packed, SIZE, SIZE, torch.bfloat16)
        self._packed = packed
        self.weight_bytes = packed.nbytes

    def prepare(self, x: Tensor) -> tuple[QuantizedRows, int, Tensor, int]:
        rows, out = quantize_rows(x), torch.empty(len(x), SIZE, dtype=torch.bfloat16)
        return rows, rows.address, out, out.data_ptr()

    def run(self, x: tuple[QuantizedRows, int, Tensor, int]) -> None:
        rows, address, _, out = x
        self._multiply(address, rows.count, out, torch.get_num_threads())


class OursWeightOnly:
    def __init__(self, weight: QuantizedWeight) -> None:
        self._linear = WeightOnlyLinear(weight, None, torch.bfloat16)
        self.weight_bytes = self._linear.packed.nbytes

    def prepare(self, x: Tensor) -> Tensor:
        return x

    def run(self, x: Tensor) -> Tensor:
        return self._linear(x)


def in_groups(weight: Tensor) -> QuantizedWeight:
    """Rounded to nearest; what is timed does not depend on the codes."""
    channel = in_channels(weight)
    groups = (SIZE, SIZE // GROUP_SIZE)
    return QuantizedWeight(
        4,
        SIZE,
        channel.codes,
        channel.scales,
        group_scales=torch.randint(1, 17, groups, dtype=torch.uint8),
        group_zeros=torch.randint(-119, 120, groups, dtype=torch.int8),
    )


def in_channels(weight: Tensor) -> QuantizedWeight:
    least, most = weight.aminmax(dim=1)
    scales = (most - least) / 15
    codes = ((weight - least[:, None]) / scales[:, None]).round().to(torch.uint8)
    return QuantizedWeight(4, SIZE, codes[:, ::2] | codes[:, 1::2] << 4, scales.half(), zeros=-least.half())


def in_bytes(weight: Tensor) -> QuantizedWeight:
    scales = weight.abs().amax(1) / 127
    return QuantizedWeight(8, SIZE, (weight / scales[:, None]).round().to(torch.int8), scales.half())


CONTENDERS = (
    Contender("w4a8-g128 kernel", lambda weight: OurKernel(in_groups(weight))),
    Contender("w4a8-channel kernel", lambda weight: OurKernel(in_channels(weight))),
    Contender("w8a8 kernel", lambda weight: OurKernel(in_bytes(weight))),
    Contender("w4a8-g128", lambda weight: Ours(in_groups(weight))),
    Contender("w4a8-channel", lambda weight: Ours(in_channels(weight))),
    Contender("w8a8", lambda weight: Ours(in_bytes(weight))),
    Contender("w4a8-g128 and quantization", lambda weight: Ours(in_groups(weight), quantizes=True)),
    Contender("w4a16-g128", lambda weight: OursWeightOnly(in_groups(weight))),
    *(Contender(name, make) for name, make in peers().items()),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16, 64, 512])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--contenders", nargs="+", choices=[each.name for each in CONTENDERS])
    parser.add_argument("--result", default="quantized_gemm", help="name of the result")
    args = parser.parse_args()
    chosen = [each for each in CONTENDERS if not args.contenders or each.name in args.contenders]
    layers = {each: list(copies(each)) for each in chosen}
    reader = MemoryReader()
    rows = [measure(layers, reader, count, args.threads, args.rounds) for count in args.rows]
    result: dict[str, Any] = {"size": SIZE, "rows": rows, "claims": claims(rows)}
    result["met"] = all(result["claims"].values())
    print(result["claims"])
    print(f"written to {write_result(args.result, result)}")


def copies(contender: Contender) -> Iterator[Layer]:
    """Layers of one weight that are together much larger than the last-level cache."""
    weight, total = torch.randn(SIZE, SIZE) * SIZE**-0.5, 0
    while total <= _CACHES * last_level_cache_bytes():
        layer = contender.make(weight)
        total += layer.weight_bytes
        yield layer


def measure(
    layers: dict[Contender, list[Layer]], reader: MemoryReader, count: int, threads: list[int], rounds: int
) -> dict[str, Any]:
    """Medians for so many rows, by contender and number of threads."""
    x = torch.randn(count, SIZE).to(torch.bfloat16)
    functions: dict[str, Callable[[], Any]] = {}
    for number in threads:
        for contender, its_layers in layers.items():
            if count <= contender.max_rows:
                functions[f"{contender.name}, {number}"] = with_threads(number, in_rotation(its_layers, x))
        functions[f"read, {number}"] = with_threads(number, reader)
        functions[f"peak, {number}"] = with_threads(number, partial(native().vnni_peak, _PEAK_ROUNDS, number))
    clocks = {name: time.thread_time for name in functions if name.endswith(", 1")}
    times = time_in_turn(functions, rounds, clocks)
    found = {name: statistics.median(each) if name in clocks else min(each) for name, each in times.items()}
    found |= {name: min(each) for name, each in times.items() if name.startswith("peak")}
    row: dict[str, Any] = {"rows": count, "contenders": {}}
    for number in threads:
        bandwidth = reader.bytes_per_second(found[f"read, {number}"])
        peak = peak_operations() * number / found[f"peak, {number}"] / 1e9
        row[f"read_bytes_per_second_{number}"], row[f"peak_gops_{number}"] = bandwidth, peak
        for contender, its_layers in layers.items():
            if f"{contender.name}, {number}" not in found:
                continue
            calls = calls_per_sample(its_layers, count)
            seconds = found[f"{contender.name}, {number}"] / calls
            one = found.get(f"{contender.name}, 1", float("nan")) / calls
            numbers = {
                "seconds": seconds,
                "gops": 2 * count * SIZE * SIZE / seconds / 1e9,
                "share_of_peak": 2 * count * SIZE * SIZE / seconds / 1e9 / peak,
                "share_of_read_bandwidth": its_layers[0].weight_bytes / seconds / bandwidth,
                "times_one_thread": one / seconds,
            }
            row["contenders"].setdefault(contender.name, {})[str(number)] = numbers
            print(
                f"{count:4d} rows, {number} threads, {contender.name:27} {numbers['gops']:7.1f} GOPS, "
                f"{numbers['share_of_peak']:4.0%} of {peak:.0f}; {numbers['share_of_read_bandwidth']:4.0%} of "
                f"{bandwidth / 1e9:.1f} GB/s; {numbers['times_one_thread']:.2f}x one thread",
                flush=True,
            )
    return row


def calls_per_sample(layers: list[Layer], count: int) -> int:
    """With few rows all layers in a sample: reading the clock takes time."""
    return len(layers) if count <= _FEW_ROWS else 1


def in_rotation(layers: list[Layer], x: Tensor) -> Callable[[], None]:
    """Each call multiplies by the next layers."""
    prepared = cycle([(layer, layer.prepare(x)) for layer in layers])
    calls = calls_per_sample(layers, len(x))

    def run() -> None:
        for layer, given in islice(prepared, calls):
            layer.run(given)

    return run


def with_threads(number: int, function: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        torch.set_num_threads(number)
        return function()

    return run


def peak_operations() -> int:
    """Of one thread in ``vnni_peak``: twelve vectors, four products and four sums in each of their lanes."""
    lanes = {"portable": 4, "avx2": 8, "avx_vnni": 8}.get(native().isa, 16)
    return _PEAK_ROUNDS * 12 * lanes * 4 * 2


def claims(rows: list[dict[str, Any]]) -> dict[str, bool]:
    """Of our quantized layers and their kernels; only what was measured."""
    quantized, four_bits = ("w4a8-g128", "w4a8-channel", "w8a8"), ("w4a8-g128", "w4a8-channel")
    with_kernels = (*quantized, *(f"{name} kernel" for name in quantized))
    found = {}
    for name, counts, threads, key, least, contenders in (
        ("M = 1: 95 % of the read bandwidth", (1,), "1", "share_of_read_bandwidth", 0.95, with_kernels),
        ("M = 4 and 8: 110 GOPS", (4, 8), "1", "gops", 110, four_bits),
        ("M = 16: 200 GOPS", (16,), "1", "gops", 200, four_bits),
        ("M = 512: 70 % of the peak", (512,), "1", "share_of_peak", 0.7, four_bits),
        ("M = 512: two threads 1.8x", (512,), "2", "times_one_thread", 1.8, quantized),
    ):
        values = [
            numbers[threads][key]
            for row in rows
            for contender, numbers in row["contenders"].items()
            if row["rows"] in counts and contender in contenders and threads in numbers
        ]
        if values:
            found[name] = min(values) >= least
    return found


if __name__ == "__main__":
    main()
