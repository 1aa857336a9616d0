"""The analytical GEMM model: waves of tiles, split-K, device memory, L2 and launch, joined smoothly.

For each of a few thread-block tiles the arithmetic is that of whole tiles in whole waves over the SMs (wave
quantization as in Habitat, ATC 2021, tiles as in NeuSight, ASPLOS 2025); the fastest tile wins, as in a library's
heuristic. Where the tiles do not fill the GPU, K is split. Operands that fit into L2 are read from there, since
benchmarks call the same weights again: a working set inside L2 may well be faster than the device memory allows. An
input that is quantized first is read and written once more, by a kernel before.
"""

from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.hardware.gpu.gemm_format import GEMMFormat

FloatArray = NDArray[np.float64]

# Rows and columns of the output that one thread block computes; what CUTLASS and cuBLAS choose among.
TILES = np.array(
    [
        (16, 64),
        (16, 128),
        (32, 64),
        (64, 64),
        (64, 128),
        (128, 64),
        (128, 128),
        (64, 256),
        (128, 256),
        (256, 128),
    ],
    dtype=np.float64,
)
_FIT_ROWS = 3000
_FIT_ROUNDS = 700
_LARGEST_EFFICIENCY = 1.1  # the clock may well be above the boost clock while the power limit is far
_DRAW = 1e-3  # towards the start, so that what the sample cannot tell stays plausible


@dataclass(frozen=True)
class RooflineParameters:
    """What a data sheet does not tell, fitted to measurements; the defaults are a fit over six data-centre GPUs.

    Attributes
    ----------
    launch_seconds : time of a kernel with next to nothing to do.
    compute_efficiency : part of the peak rate at boost clock that a wave of ever larger tiles would reach.
    small_tile_loss : size of a tile, as the harmonic ``a b / (a + b)``, that halves the efficiency.
    power_cap : part of the peak rate that the power limit lets through for long.
    memory_efficiency : reachable part of the bandwidth of the device memory.
    l2_bytes_per_cycle : what an SM reads from L2 in a cycle of the maximum clock.
    l2_share : part of L2 that a working set can occupy before it spills.
    step_cycles : latency of one step of K that no parallelism hides.
    exponent : of the smooth maximum; infinity would be the textbook roofline.
    least_split : K below which no further split is made.
    """

    launch_seconds: float = 2.5e-6
    compute_efficiency: float = 0.95
    small_tile_loss: float = 8.0
    power_cap: float = 0.8
    memory_efficiency: float = 0.85
    l2_bytes_per_cycle: float = 30.0
    l2_share: float = 0.7
    step_cycles: float = 3.0
    exponent: float = 2.0
    least_split: float = 512.0


@dataclass(frozen=True, eq=False)
class RooflineTerms:
    """The parts of the expected time, one element per GEMM; ``seconds`` is the whole."""

    seconds: FloatArray
    compute: FloatArray
    memory: FloatArray
    l2: FloatArray
    tile: NDArray[np.int64]
    waves: FloatArray
    split: FloatArray


def gemm_flops(m: FloatArray, n: FloatArray, k: FloatArray) -> FloatArray:
    return 2.0 * m * n * k


def gemm_bytes(m: FloatArray, n: FloatArray, k: FloatArray, form: GEMMFormat) -> FloatArray:
    """Every operand once."""
    return form.input_bytes * m * k + form.weight_bytes * n * k + form.output_bytes * m * n


def lower_bound_seconds(
    m: FloatArray, n: FloatArray, k: FloatArray, sheet: DataSheet, form: GEMMFormat
) -> FloatArray:
    """No kernel is faster: the arithmetic at the maximum clock, and what cannot stay in L2 at full bandwidth."""
    compute = gemm_flops(m, n, k) / sheet.operations_per_second(form.compute, "max")
    beyond_l2 = np.maximum(gemm_bytes(m, n, k, form) - sheet.l2_bytes, 0.0)
    return np.maximum(compute, beyond_l2 / sheet.memory_bytes_per_second)


def roofline_terms(
    m: FloatArray,
    n: FloatArray,
    k: FloatArray,
    sheet: DataSheet,
    form: GEMMFormat,
    parameters: RooflineParameters,
) -> RooflineTerms:
    """Expected time of one call and its parts; m, n and k are arrays of one dimension."""
    rows, columns = TILES[:, :1], TILES[:, 1:]
    blocks_down, blocks_across = np.ceil(m / rows), np.ceil(n / columns)
    blocks = blocks_down * blocks_across
    split = np.maximum(np.minimum(sheet.sms / blocks, k / parameters.least_split), 1.0)
    waves = blocks * split / sheet.sms
    sustained = sheet.operations_per_second(form.compute) * parameters.power_cap
    compute = np.maximum(
        _compute(np.ceil(waves - 1e-9), k / split, sheet, form, parameters), gemm_flops(m, n, k) / sustained
    )
    l2_bandwidth = parameters.l2_bytes_per_cycle * sheet.sms * sheet.max_mhz * 1e6
    moved = gemm_bytes(m, n, k, form)
    unquantized = form.unquantized_bytes * m * k
    in_l2 = 1.0 / (1.0 + ((moved + unquantized) / (parameters.l2_share * sheet.l2_bytes)) ** 3)
    memory_bandwidth = parameters.memory_efficiency * sheet.memory_bytes_per_second
    seconds_per_byte = (1 - in_l2) / memory_bandwidth + in_l2 / l2_bandwidth
    memory = moved * seconds_per_byte
    quantized = unquantized + (form.input_bytes * m * k if form.quantizes_input else 0.0)
    moved_through_l2 = l2_bytes(m, n, k, form, blocks_down, blocks_across, split)
    return fastest_tile(
        parameters.launch_seconds + quantized * seconds_per_byte,
        compute,
        memory,
        moved_through_l2 / l2_bandwidth,
        waves,
        split,
        parameters.exponent,
    )


def l2_bytes(
    m: FloatArray,
    n: FloatArray,
    k: FloatArray,
    form: GEMMFormat,
    down: FloatArray,
    across: FloatArray,
    split: FloatArray,
) -> FloatArray:
    """What blocks read through L2 and write, partial sums of a split K included, by tile and GEMM."""
    partial_sums = 1.0 + np.where(split > 1, 2 * split, 0.0)
    return (
        form.input_bytes * m * k * across
        + form.weight_bytes * n * k * down
        + form.output_bytes * m * n * partial_sums
    )


def fastest_tile(
    beside: FloatArray,
    compute: FloatArray,
    memory: FloatArray,
    through_l2: FloatArray,
    waves: FloatArray,
    split: FloatArray,
    exponent: float,
) -> RooflineTerms:
    """The parts joined by a smooth maximum, for each GEMM those of the tile that is done first.

    Parameters
    ----------
    beside : seconds of the launch and whatever else no tile changes, ``[GEMMs]``, as ``memory``.
    compute, through_l2, waves, split : ``[tiles, GEMMs]``.
    """
    p = exponent
    largest = np.maximum(np.maximum(compute, memory), through_l2)
    joined = largest * ((compute / largest) ** p + (memory / largest) ** p + (through_l2 / largest) ** p) ** (
        1 / p
    )
    best = np.argmin(joined, axis=0)
    at = (best, np.arange(len(memory)))
    return RooflineTerms(
        seconds=beside + joined[at],
        compute=compute[at],
        memory=memory,
        l2=through_l2[at],
        tile=best,
        waves=waves[at],
        split=split[at],
    )


def _compute(
    waves: FloatArray, depth: FloatArray, sheet: DataSheet, form: GEMMFormat, parameters: RooflineParameters
) -> FloatArray:
    """Whole waves of whole tiles of ``depth`` steps of K, by tile and GEMM."""
    area = TILES[:, :1] * TILES[:, 1:]
    size = area / (TILES[:, :1] + TILES[:, 1:])
    loss = parameters.small_tile_loss
    efficiency = min(parameters.compute_efficiency, _LARGEST_EFFICIENCY) * size / (size + loss)
    rate = sheet.operations_per_second(form.compute) / sheet.sms * efficiency
    return waves * 2 * area * depth / rate + parameters.step_cycles * depth / (sheet.max_mhz * 1e6)


def fit_roofline(
    m: FloatArray,
    n: FloatArray,
    k: FloatArray,
    seconds: FloatArray,
    sheet: DataSheet,
    form: GEMMFormat,
    start: RooflineParameters = RooflineParameters(),
    seed: int = 0,
    draw: float = _DRAW,
) -> RooflineParameters:
    """Parameters with the least mean ``|log(measured / expected)|``: Nelder-Mead over their logarithms, twice.

    It begins at ``start`` and is drawn to there by ``draw`` times the squared distance of the logarithms. At most
    3000 of the rows are looked at, drawn by ``seed``; the same rows give the same parameters.
    """
    return fit_roofline_to_many([(m, n, k, seconds, sheet, form)], start, seed, draw)


def fit_roofline_to_many(
    groups: list[tuple[FloatArray, FloatArray, FloatArray, FloatArray, DataSheet, GEMMFormat]],
    start: RooflineParameters = RooflineParameters(),
    seed: int = 0,
    draw: float = _DRAW,
) -> RooflineParameters:
    """One set of parameters for several GPUs or backends, each with the same weight; see :func:`fit_roofline`."""
    generator = np.random.default_rng(seed)
    share = max(_FIT_ROWS // len(groups), 200)
    samples = []
    for m, n, k, seconds, sheet, form in groups:
        rows = generator.permutation(len(m))[:share]
        samples.append((m[rows], n[rows], k[rows], np.log(seconds[rows]), sheet, form))
    centre = np.log(astuple(start))

    def loss(logarithms: FloatArray) -> float:
        distance = logarithms - centre
        if np.abs(distance).max() > 5:
            return 10.0
        parameters = _parameters(logarithms)
        errors = [
            np.abs(np.log(roofline_terms(m, n, k, sheet, form, parameters).seconds) - y).mean()
            for m, n, k, y, sheet, form in samples
        ]
        return float(np.mean(errors) + draw * np.square(distance).sum())

    best = centre
    for _ in range(2):
        simplex = np.vstack([best, best + 0.3 * np.eye(len(best))])
        options = {"maxiter": _FIT_ROUNDS, "initial_simplex": simplex, "xatol": 1e-4, "fatol": 1e-6}
        best = minimize(loss, best, method="Nelder-Mead", options=options).x
    return _parameters(best)


def _parameters(logarithms: FloatArray) -> RooflineParameters:
    values = np.exp(logarithms)
    return RooflineParameters(
        **{field.name: float(value) for field, value in zip(fields(RooflineParameters), values, strict=True)}
    )
