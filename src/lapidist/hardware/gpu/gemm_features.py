"""What the learned residual sees of a GEMM: sizes, and quantities without a unit that carry over between GPUs."""

import numpy as np

from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.hardware.gpu.gemm_format import GEMMFormat
from lapidist.hardware.gpu.gemm_roofline import FloatArray, RooflineTerms, gemm_bytes
from lapidist.hardware.gpu.weight_rotation import WeightRotation

# Tiles whose waves and padding are shown to the residual.
_TILES = np.array(
    [(16, 64), (32, 64), (64, 64), (64, 128), (128, 64), (128, 128), (128, 256), (256, 128)], dtype=np.float64
)
GEMM_FEATURES: tuple[str, ...] = (
    *("log2_m", "log2_n", "log2_k", "log2_m_over_n", "m_multiple", "n_multiple"),
    *("log2_operations_per_byte", "log2_bytes_over_l2", "log2_input_over_l2"),
    *("log2_weight_over_l2", "log2_output_over_l2"),
    *("log2_seconds_over_launch", "tile", "log2_split", "log2_waves", "wave_fill"),
    *("log2_compute_over_memory", "log2_l2_over_memory", "log2_compute_share", "log2_memory_share"),
    *(f"{what}_{int(a)}x{int(b)}" for what in ("log2_waves", "wave_fill", "padding") for a, b in _TILES),
    "m_beyond_128",
    "n_beyond_256",
    "log2_working_set_over_l2",
)


def gemm_features(
    m: FloatArray,
    n: FloatArray,
    k: FloatArray,
    sheet: DataSheet,
    form: GEMMFormat,
    terms: RooflineTerms,
    launch_seconds: float,
    rotation: WeightRotation,
) -> FloatArray:
    """``[rows, len(GEMM_FEATURES)]``; no column grows with the speed of the GPU."""
    rows, columns = _TILES[:, :1], _TILES[:, 1:]
    down, across = np.ceil(m / rows), np.ceil(n / columns)
    waves = down * across / sheet.sms
    fill = np.ceil(waves) / waves
    padding = down * rows * across * columns / (m * n)
    moved = gemm_bytes(m, n, k, form)
    with np.errstate(divide="ignore"):
        logs = np.log2(
            np.stack(
                [
                    m,
                    n,
                    k,
                    m / n,
                    2 * m * n * k / moved,
                    moved / sheet.l2_bytes,
                    form.input_bytes * m * k / sheet.l2_bytes,
                    form.weight_bytes * n * k / sheet.l2_bytes,
                    form.output_bytes * m * n / sheet.l2_bytes,
                    terms.seconds / launch_seconds,
                    terms.split,
                    terms.waves,
                    terms.compute / terms.memory,
                    terms.l2 / terms.memory,
                    terms.compute / terms.seconds,
                    terms.memory / terms.seconds,
                ]
            )
        )
    single = np.stack(
        [
            *logs[:4],
            _multiple(m),
            _multiple(n),
            *logs[4:10],
            terms.tile.astype(np.float64),
            *logs[10:12],
            np.ceil(terms.waves - 1e-9) / terms.waves,
            *logs[12:],
        ]
    )
    working_set = rotation.working_set_bytes(m, n, k, form, sheet.l2_bytes) / sheet.l2_bytes
    tail = np.stack([m % 128, n % 256, _near_one(working_set)])
    return np.concatenate([single, np.log2(waves), fill, padding, tail]).T


def _near_one(part_of_l2: FloatArray) -> FloatArray:
    """Octaves from L2's size, in sixteenths.

    Far from it, it makes no difference by how much; by finer steps trees would tell sites apart.
    """
    return np.round(16.0 * np.clip(np.log2(part_of_l2), -2.0, 2.0)) / 16.0


def _multiple(size: FloatArray) -> FloatArray:
    """Logarithm of the largest power of two, up to 256, that divides it."""
    whole = size.astype(np.int64)
    return np.log2(np.minimum(whole & -whole, 256).astype(np.float64))
