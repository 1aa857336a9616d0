"""The analytical GEMM model in numbers that carry over from one GPU to another.

Fitted to each measured GPU by itself, the numbers of :mod:`lapidist.hardware.gpu.gemm_roofline` differ by factors, most
of which its data sheet foretells:

- a launch waits for both, cycles of the SMs and a path outside of them that keeps its own pace;
- a step of K waits for as long as shared memory has room for bytes on their way (Little's law); pairs of SMs that work
  on one tile (Blackwell's compute dies) hold half of one operand each, so that more steps are on their way;
- splitting K saves cycles of the tensor units, so that faster units split later, and costs a time for the sums, much
  like a launch: it is done where it saves more;
- what the power limit lets through goes with watts per operation, less than in proportion, since a lower clock needs a
  lower voltage, too;
- dies made for computing (GA100, GH100, GB100) have a wider way to L2 than those made for graphics, but halves of L2
  that each cache for the SMs next to it (NVIDIA A100 white paper, 2020); SMs of a cluster share what they read (Hopper,
  whose tensor memory accelerator multicasts), and so do pairs that work on one tile (tcgen05.mma with cta_group::2 on
  Blackwell's compute dies: NVIDIA's Tilus, "2-CTA Cluster"; neither on graphics dies);
- weights called in turn stay in L2 or chase each other out, all or none of them (:mod:`weight_rotation`).

What is left over differs little between GPUs, so that an unseen one takes the mean of the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.hardware.gpu.gemm_format import GEMMFormat
from lapidist.hardware.gpu.gemm_roofline import (
    TILES,
    FloatArray,
    RooflineTerms,
    fastest_tile,
    gemm_bytes,
    gemm_flops,
    l2_bytes,
)
from lapidist.hardware.gpu.weight_rotation import WeightRotation

# The imagined GPU that parameters are stated for.
_MAX_MHZ = 1900.0
_SHARED_MEMORY_BYTES = 233472.0
_OPERATIONS_PER_CYCLE = 4096.0
_WATTS_PER_OPERATION = 0.9e-12
# How launch, least split and power limit go with clock, speed of the units and watts per operation.
_LAUNCH_POWER, _SPLIT_POWER, _WATT_POWER = 0.5, 0.75, 0.4
_LARGEST_EFFICIENCY = 1.1  # of the fitted form, that tiles of any size stay below
_LARGEST_TILE = 128.0 * 256.0
# Who shares reads from L2: in clusters of two by two every operand is read once for two SMs, and pairs are taken to
# double that. Which clusters a library picks is not published: modelling choices, not measurements.
_SHARING_BY_MAJOR = {9: 2.0, 10: 4.0}
# Bytes of a step in an SM of a pair over those of an SM alone: its own rows of the one operand whole, of the other
# half. So it is for operands read as they are; kernels for eight and four bits show none of it (a modelling choice).
_PAIR_STEP = 0.75
# TensorRT-LLM's SmoothQuant kernels are Ampere's: no clusters, and on later compute dies, whose tensor units Ampere's
# instructions do not fill, that part of the peak at best: a modelling choice.
_AMPERE_KERNELS = {"sq"}
_AMPERE_KERNELS_LATER = 0.63
_ON_COMPUTE_DIES = {"compute_die_l2_bytes_per_cycle", "compute_die_l2_share"}
_ON_GRAPHICS_DIES = {"graphics_die_l2_bytes_per_cycle", "graphics_die_l2_share"}
# How sharply a working set falls out of L2: measured on L40S and RTX PRO 6000 between 1.0 and 1.1 of its size.
_CLIFF = {True: 4.0, False: 40.0}
_ROWS, _ROUNDS, _CALIBRATION_ROUNDS = 3000, 700, 500
_DRAW = 1e-2  # towards the start when one GPU is fitted, so that what its rows cannot tell stays there
_LAPLACE = 0.08  # mean absolute log error of the model that a few measurements correct
_LEAST_SPREAD = 0.1
_FACTOR_SPREAD = 0.3  # of what all times of a GPU have in common


@dataclass(frozen=True)
class TransferParameters:
    """What a data sheet does not tell, for a GPU of 1900 MHz, 228 KiB of shared memory and 0.9 pW per operation/s.

    Attributes
    ----------
    launch_seconds : time of a kernel with next to nothing to do.
    compute_efficiency : part of the peak rate at the maximum clock that a wave of ever larger tiles would reach.
    small_tile_loss : size of a tile, as the harmonic ``a b / (a + b)``, that halves the efficiency.
    power_cap : part of the peak rate at the boost clock that the power limit lets through for long.
    memory_efficiency : reachable part of the bandwidth of the device memory.
    compute_die_l2_bytes_per_cycle, graphics_die_l2_bytes_per_cycle : what an SM reads from L2 in a cycle of the maximum
        clock, by kind of die.
    compute_die_l2_share, graphics_die_l2_share : part of L2 that a working set can occupy before it spills.
    step_cycles : latency of one step of K that no parallelism hides.
    exponent : of the smooth maximum; infinity would be the textbook roofline.
    least_split : K below which no further split is made, of units that do 4096 operations per cycle.
    split_seconds : that the sums of a split K take.
    """

    launch_seconds: float = 2.5e-6
    compute_efficiency: float = 1.0
    small_tile_loss: float = 5.0
    power_cap: float = 0.85
    memory_efficiency: float = 0.8
    compute_die_l2_bytes_per_cycle: float = 40.0
    graphics_die_l2_bytes_per_cycle: float = 15.0
    compute_die_l2_share: float = 0.4
    graphics_die_l2_share: float = 1.0
    step_cycles: float = 2.0
    exponent: float = 2.5
    least_split: float = 1000.0
    split_seconds: float = 1.5e-6


@dataclass(frozen=True, eq=False)
class TransferRows:
    """GEMMs on one GPU, and how they were measured; arrays of one dimension."""

    m: FloatArray
    n: FloatArray
    k: FloatArray
    sheet: DataSheet
    form: GEMMFormat
    rotation: WeightRotation

    def take(self, rows: NDArray[np.int64]) -> "TransferRows":
        return TransferRows(self.m[rows], self.n[rows], self.k[rows], self.sheet, self.form, self.rotation)


def on_compute_die(sheet: DataSheet) -> bool:
    """Whether the die is of the line for computing: GP100, GV100, GA100, GH100, GB100 and GB110."""
    return _major(sheet) == 10 or (_major(sheet) < 10 and sheet.compute_capability.endswith(".0"))


def launch_seconds(sheet: DataSheet, parameters: TransferParameters) -> float:
    """Of the GPU of ``sheet``."""
    return float(parameters.launch_seconds * _slower_clock(sheet))


def _slower_clock(sheet: DataSheet) -> float:
    """How much longer than on the imagined GPU what goes by cycles in part takes."""
    return float((_MAX_MHZ / sheet.max_mhz) ** _LAUNCH_POWER)


def transfer_terms(rows: TransferRows, parameters: TransferParameters) -> RooflineTerms:
    """Expected time of one call and its parts, as :func:`roofline_terms` has it for a GPU that was measured."""
    m, n, k, sheet, form = rows.m, rows.n, rows.k, rows.sheet, rows.form
    units = _operations_per_cycle(sheet, form)
    least_split = parameters.least_split * (units / _OPERATIONS_PER_CYCLE) ** _SPLIT_POWER
    down, across = np.ceil(m / TILES[:, :1]), np.ceil(n / TILES[:, 1:])
    l2_bandwidth = _l2_bytes_per_cycle(sheet, form, parameters) * sheet.sms * sheet.max_mhz * 1e6
    memory_bandwidth = parameters.memory_efficiency * sheet.memory_bytes_per_second
    on_compute = on_compute_die(sheet)
    share = parameters.compute_die_l2_share if on_compute else parameters.graphics_die_l2_share
    capacity = share * sheet.l2_bytes
    working_set = rows.rotation.working_set_bytes(m, n, k, form, sheet.l2_bytes)
    in_l2 = 1.0 / (1.0 + np.minimum(working_set / capacity, 1e6) ** _CLIFF[on_compute])
    seconds_per_byte = (1 - in_l2) / memory_bandwidth + in_l2 / l2_bandwidth
    memory = gemm_bytes(m, n, k, form) * seconds_per_byte + _read_again(rows, capacity) / memory_bandwidth
    unquantized = form.unquantized_bytes * m * k
    quantized = unquantized + (form.input_bytes * m * k if form.quantizes_input else 0.0)
    beside = launch_seconds(sheet, parameters) + quantized * seconds_per_byte
    sustained = gemm_flops(m, n, k) / _sustained_rate(sheet, form, parameters)

    def fastest(split: FloatArray, sums_seconds: float) -> RooflineTerms:
        waves = down * across * split / sheet.sms
        compute = _compute(np.ceil(waves - 1e-9), k / split, units, sheet, form, parameters)
        moved_through_l2 = l2_bytes(m, n, k, form, down, across, split)
        return fastest_tile(
            beside + sums_seconds,
            np.maximum(compute, sustained),
            memory,
            moved_through_l2 / l2_bandwidth,
            waves,
            split,
            parameters.exponent,
        )

    most = np.maximum(np.minimum(sheet.sms / (down * across), k / least_split), 1.0)
    return _faster(
        fastest(np.ones_like(most), 0.0), fastest(most, parameters.split_seconds * _slower_clock(sheet))
    )


def _faster(one: RooflineTerms, other: RooflineTerms) -> RooflineTerms:
    """Of each GEMM the one that takes less time."""
    first = one.seconds <= other.seconds
    names = (field.name for field in fields(RooflineTerms))
    return RooflineTerms(
        **{name: np.where(first, getattr(one, name), getattr(other, name)) for name in names}
    )


def _compute(
    waves: FloatArray,
    depth: FloatArray,
    units: float,
    sheet: DataSheet,
    form: GEMMFormat,
    parameters: TransferParameters,
) -> FloatArray:
    """Whole waves of whole tiles of ``depth`` steps of K, by tile and GEMM."""
    area = TILES[:, :1] * TILES[:, 1:]
    size = area / (TILES[:, :1] + TILES[:, 1:])
    reached = min(parameters.compute_efficiency, _LARGEST_EFFICIENCY)
    efficiency = reached * size / (size + parameters.small_tile_loss)
    step = parameters.step_cycles * _SHARED_MEMORY_BYTES / sheet.shared_memory_bytes_per_sm
    if _major(sheet) == 10 and not form.quantizes_input:
        step *= _PAIR_STEP
    return (waves * 2 * area * depth / (units * efficiency) + step * depth) / (sheet.max_mhz * 1e6)


def _sustained_rate(sheet: DataSheet, form: GEMMFormat, parameters: TransferParameters) -> float:
    watts = sheet.tdp_watts / sheet.operations_per_second(sheet.sixteen_bit) / _WATTS_PER_OPERATION
    part = parameters.power_cap * watts**_WATT_POWER
    return float(
        min(
            part * sheet.operations_per_second(form.compute),
            sheet.operations_per_second(form.compute, "max"),
        )
    )


def _operations_per_cycle(sheet: DataSheet, form: GEMMFormat) -> float:
    """Of an SM's units, as the format's kernels can use them."""
    peak = sheet.operations_per_second(form.compute, "max") / (sheet.sms * sheet.max_mhz * 1e6)
    later = on_compute_die(sheet) and _major(sheet) > 8
    return peak * _AMPERE_KERNELS_LATER if later and form.name in _AMPERE_KERNELS else peak


def _l2_bytes_per_cycle(sheet: DataSheet, form: GEMMFormat, parameters: TransferParameters) -> float:
    """Of an SM; what it shares with others counts for each."""
    if not on_compute_die(sheet):
        return parameters.graphics_die_l2_bytes_per_cycle
    sharing = 1.0 if form.name in _AMPERE_KERNELS else _SHARING_BY_MAJOR.get(_major(sheet), 1.0)
    return parameters.compute_die_l2_bytes_per_cycle * sharing


def _major(sheet: DataSheet) -> int:
    return int(sheet.compute_capability.split(".")[0])


def _read_again(rows: TransferRows, capacity: float) -> FloatArray:
    """Bytes that waves of tiles read from memory beyond once each, where the operands do not stay in L2.

    A wave covers a region of the output as square as the output allows, and needs all of K of its rows and columns.
    """
    region = rows.sheet.sms * _LARGEST_TILE
    down = np.minimum(rows.m, np.maximum(np.sqrt(region), region / rows.n))
    across = np.minimum(rows.n, np.maximum(np.sqrt(region), region / rows.m))
    inputs = rows.form.input_bytes * rows.m * rows.k
    weights = rows.form.weight_bytes * rows.n * rows.k
    stay = 1.0 / (1.0 + ((inputs + weights) / capacity) ** 2)
    return (inputs * (rows.n / across - 1) + weights * (rows.m / down - 1)) * (1 - stay)


def fit_transfer_law(
    rows: TransferRows,
    seconds: FloatArray,
    start: TransferParameters = TransferParameters(),
    seed: int = 0,
) -> TransferParameters:
    """Of one measured GPU: least mean ``|log(measured / expected)|`` (Nelder-Mead over logarithms), drawn to ``start``.

    At most 3000 of the rows are looked at, drawn by ``seed``; the same rows give the same parameters.
    """
    chosen = np.random.default_rng(seed).permutation(len(seconds))[:_ROWS]
    sample, wanted = rows.take(chosen), np.log(seconds[chosen])
    centre = np.log(astuple(start))

    def loss(logarithms: FloatArray) -> float:
        distance = logarithms - centre
        if np.abs(distance).max() > 5:
            return 10.0
        expected = np.log(transfer_terms(sample, _parameters(logarithms)).seconds)
        return float(np.abs(expected - wanted).mean() + _DRAW * np.square(distance).sum())

    best = centre
    for _ in range(2):
        best = _nelder_mead(loss, best, np.full(len(best), 0.3), _ROUNDS)
    return _parameters(best)


def calibrate_transfer_law(
    rows: TransferRows, seconds: FloatArray, prior: TransferParameters, spread: Sequence[float]
) -> TransferParameters:
    """Parameters by a few measurements, held to where the other GPUs' lie: the mode of the posterior.

    ``spread`` is the standard deviation of each logarithm between GPUs; errors are taken to be Laplace's. A factor that
    all times have in common is fitted along and left out of the answer.
    """
    wanted = np.log(seconds)
    centre = np.log(astuple(prior))
    loose = np.append(np.maximum(spread, _LEAST_SPREAD), _FACTOR_SPREAD)
    weight = 0.5 * _LAPLACE / len(seconds)

    def loss(guess: FloatArray) -> float:
        distance = guess - np.append(centre, 0.0)
        if np.abs(distance).max() > 5:
            return 10.0
        expected = np.log(transfer_terms(rows, _parameters(guess[:-1])).seconds) + guess[-1]
        return float(np.abs(wanted - expected).mean() + weight * np.square(distance / loose).sum())

    factor = np.clip(np.median(wanted - np.log(transfer_terms(rows, prior).seconds)), -4, 4)
    best = np.append(centre, factor)
    for _ in range(2):
        best = _nelder_mead(loss, best, loose, _CALIBRATION_ROUNDS)
    return _parameters(best[:-1])


def mean_parameters(
    fitted: Sequence[tuple[DataSheet, TransferParameters]], weights: Sequence[float]
) -> tuple[TransferParameters, tuple[float, ...]]:
    """Geometric mean over GPUs, and standard deviations of the logarithms; where no die tells, the default and 0."""
    logarithms = np.log([astuple(parameters) for _, parameters in fitted])
    compute = np.array([on_compute_die(sheet) for sheet, _ in fitted])
    mean, spread = np.log(astuple(TransferParameters())), np.zeros(len(fields(TransferParameters)))
    for number, each in enumerate(fields(TransferParameters)):
        tells = np.ones(len(fitted), dtype=bool)
        if each.name in _ON_COMPUTE_DIES:
            tells = compute
        elif each.name in _ON_GRAPHICS_DIES:
            tells = ~compute
        if tells.any():
            values, weight = logarithms[tells, number], np.asarray(weights)[tells]
            mean[number] = np.average(values, weights=weight)
            spread[number] = np.sqrt(np.average((values - mean[number]) ** 2, weights=weight))
    return _parameters(mean), tuple(map(float, spread))


def _nelder_mead(
    loss: Callable[[FloatArray], float], start: FloatArray, steps: FloatArray, rounds: int
) -> FloatArray:
    options = {
        "maxiter": rounds,
        "initial_simplex": np.vstack([start, start + np.diag(steps)]),
        "xatol": 1e-4,
        "fatol": 1e-6,
    }
    return np.asarray(minimize(loss, start, method="Nelder-Mead", options=options).x)


def _parameters(logarithms: FloatArray) -> TransferParameters:
    values = np.exp(logarithms)
    return TransferParameters(
        **{field.name: float(value) for field, value in zip(fields(TransferParameters), values, strict=True)}
    )
