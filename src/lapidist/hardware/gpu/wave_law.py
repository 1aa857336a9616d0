"""The time of a tiled GEMM without tensor cores, from how its thread blocks (CTAs) come over the SMs in waves.

A kernel of 128 x 128 tiles gives each CTA one tile; an SM runs one CTA at a time, so ``sms`` CTAs make a wave::

    T = launch + waves * (per_k * K + per_wave)                         main loop, prologue and epilogue of each wave
        + per_k * K * contention * (crowded waves)                      SMs that start together slow each other down
        + store_exposure * (synchronised bytes of D) / bandwidth        the last stores of a wave wait for device memory
        + [beta != 0] * (waves * read_latency + synchronised excess)    reading C back

Waves start in lock step: the last one costs as much as a full one, and all CTAs of a wave ask for device memory at
once, so reading C takes ``max(read_latency, bytes of the wave / bandwidth)``. From wave to wave the CTAs drift apart;
the share of lock step falls as ``exp(-wave / drift_waves)``. Drifted apart, C costs its latency only, and the makespan
is that of list scheduling with spread finishing times, ``CTAs / sms + (sms - 1) / (2 sms)`` waves.

Wave quantization follows Habitat (Yu et al., USENIX ATC 2021) and NeuSight (Lee et al., ASPLOS 2025); the drift and the
burst terms are ours. Six numbers and a factor per transposition are fitted to logarithms of measured times.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

from lapidist.hardware.gpu.data_sheet import DataSheet

FloatArray = NDArray[np.float64]

# Which operand is stored transposed, A then B, in the words of BLAS.
TRANSPOSITIONS = ("nn", "nt", "tn", "tt")
SHAPE_COLUMNS = ("M", "N", "K", "transposition", "beta")

_FITTED = ("launch", "per_k", "per_wave", "read_latency", "store_exposure", "contention")
# How far, in the logarithm, each of them may lie from where it starts before the fit resists.
_LOOSENESS = np.array([1.0, 0.3, 0.5, 0.3, 1.0, 1.5])
_TRANSPOSITION_LOOSENESS = 0.02
_MEASURED_WITHIN = 0.01  # relative; residuals beyond it count linearly (soft L1)
_START_EFFICIENCY = 0.65


@dataclass(frozen=True)
class Tiling:
    """A kernel's tile of the output and what the GPU gives it.

    Attributes
    ----------
    sms : thread blocks that run at a time, one on each SM.
    memory_bytes_per_second : of the device memory.
    """

    rows: int
    columns: int
    sms: int
    memory_bytes_per_second: float
    output_bytes: int = 4

    @property
    def tile_seconds(self) -> float:
        """One tile of the output through device memory, alone."""
        return self.rows * self.columns * self.output_bytes / self.memory_bytes_per_second

    def ctas(self, m: FloatArray, n: FloatArray) -> FloatArray:
        """Thread blocks of an m x n output."""
        return np.ceil(m / self.rows) * np.ceil(n / self.columns)


@dataclass(frozen=True)
class WaveLaw:
    """The law with its numbers: seconds, and logarithms of a factor by transposition.

    Attributes
    ----------
    launch : of the kernel. ``per_k``: of one step of K in one wave. ``per_wave``: prologue and epilogue.
    read_latency : of the epilogue's reads of C, where device memory is not the limit.
    store_exposure : part of a synchronised store burst that is waited for.
    contention : relative slow-down of the main loop in a wave with every SM busy in lock step.
    drift_waves : waves over which the lock step decays by a factor e. Not fitted: results change little from 6 to 20.
    log_transposition : by the order of ``TRANSPOSITIONS``.
    """

    tiling: Tiling
    launch: float
    per_k: float
    per_wave: float
    read_latency: float
    store_exposure: float
    contention: float
    log_transposition: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    drift_waves: float = 10.0

    def log_seconds(self, shapes: pd.DataFrame) -> FloatArray:
        """Natural logarithm of the time of each row of ``shapes`` (columns ``SHAPE_COLUMNS``)."""
        m, n, k = (shapes[column].to_numpy(dtype=float) for column in "MNK")
        reads_c = shapes["beta"].to_numpy(dtype=float) != 0
        tiling, sms = self.tiling, self.tiling.sms
        ctas = tiling.ctas(m, n)
        full, rest = np.floor(ctas / sms), np.mod(ctas, sms)
        waves = np.ceil(ctas / sms)

        step = np.exp(-1 / self.drift_waves)
        full_in_step = (1 - step**full) / (1 - step)  # sum of the lock step's share over the full waves
        rest_in_step = step**full * (rest > 0)
        first = step ** (waves - 1)
        makespan = first * waves + (1 - first) * (ctas / sms + (sms - 1) / (2 * sms))

        crowded = full_in_step + (rest / sms) ** 2 * rest_in_step
        full_burst, rest_burst = sms * tiling.tile_seconds, rest * tiling.tile_seconds
        stores = full_burst * full_in_step + rest_burst * rest_in_step
        waits = (
            _above(full_burst, self.read_latency) * full_in_step
            + _above(rest_burst, self.read_latency) * rest_in_step
        )
        seconds = (
            self.launch
            + makespan * (self.per_k * k + self.per_wave)
            + self.per_k * k * self.contention * crowded
            + self.store_exposure * stores
            + reads_c * (makespan * self.read_latency + waits)
        )
        return np.log(seconds) + np.asarray(self.log_transposition)[transposition_codes(shapes)]


def start_law(sheet: DataSheet, rows: int = 128, columns: int = 128) -> WaveLaw:
    """Before anything is measured: rates of the data sheet, latencies typical of current GPUs."""
    tiling = Tiling(rows, columns, sheet.sms, sheet.memory_bytes_per_second)
    rate = sheet.operations_per_second("fp32") / sheet.sms * _START_EFFICIENCY
    return WaveLaw(
        tiling,
        launch=2e-6,
        per_k=2 * rows * columns / rate,
        per_wave=2.5e-6,
        read_latency=2.5e-6,
        store_exposure=0.2,
        contention=0.01,
    )


def fit_wave_law(start: WaveLaw, shapes: pd.DataFrame, seconds: FloatArray) -> WaveLaw:
    """The law nearest to measured ``seconds`` in the logarithm, held to ``start`` where the rows say nothing.

    Raises
    ------
    ValueError : fewer than ten rows, or a time that is not positive and finite.
    """
    seconds = np.asarray(seconds, dtype=float)
    if len(seconds) < 10 or not (np.isfinite(seconds).all() and (seconds > 0).all()):
        raise ValueError(f"the wave law needs at least 10 positive times, got {len(seconds)} rows")
    measured = np.log(seconds)

    def residuals(x: FloatArray) -> FloatArray:
        misfit = (_moved(start, x).log_seconds(shapes) - measured) / _MEASURED_WITHIN
        return np.concatenate([misfit, x[:6] / _LOOSENESS, x[6:] / _TRANSPOSITION_LOOSENESS])

    found = least_squares(residuals, np.zeros(10), loss="soft_l1")
    return _moved(start, found.x)


def transposition_codes(shapes: pd.DataFrame) -> NDArray[np.int64]:
    """Position of each row's transposition in ``TRANSPOSITIONS``.

    Raises
    ------
    ValueError : another word.
    """
    words = shapes["transposition"].to_numpy(dtype=str)
    codes = np.full(len(words), -1)
    for code, word in enumerate(TRANSPOSITIONS):
        codes[words == word] = code
    if (codes < 0).any():
        raise ValueError(f"transposition '{words[codes < 0][0]}' is none of {', '.join(TRANSPOSITIONS)}")
    return codes


def _moved(start: WaveLaw, x: FloatArray) -> WaveLaw:
    """The law with each fitted number ``exp(x)`` times its start."""
    numbers = {name: getattr(start, name) * float(np.exp(x[i])) for i, name in enumerate(_FITTED)}
    nn, nt, tn, tt = (float(value) for value in x[6:])
    return replace(start, log_transposition=(nn, nt, tn, tt), **numbers)


def _above(burst: FloatArray | float, latency: float) -> FloatArray:
    """``max(0, burst - latency)``, rounded off over half a microsecond so that a fit can feel its way."""
    width = 0.5e-6
    return width * np.logaddexp(0.0, (np.asarray(burst) - latency) / width)
