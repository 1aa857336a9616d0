"""What GEMM power is learned from: the shape, how its law divides the time, and how it fills tiles, waves and L2."""

import numpy as np
from numpy.typing import NDArray

from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.hardware.gpu.gemm_format import GEMMFormat

FloatArray = NDArray[np.float64]
_TILES = ((128, 128), (128, 256), (64, 256))


def gemm_shares(
    m: FloatArray, n: FloatArray, k: FloatArray, seconds: FloatArray, sheet: DataSheet, form: GEMMFormat
) -> tuple[FloatArray, FloatArray]:
    """Parts of the full tensor core rate and of the memory bandwidth that a GEMM of this duration uses."""
    tensor = 2 * m * n * k / sheet.operations_per_second(form.compute)
    memory = _bytes(m, n, k, form) / sheet.memory_bytes_per_second
    return tensor / seconds, memory / seconds


def gemm_power_features(
    m: FloatArray, n: FloatArray, k: FloatArray, sheet: DataSheet, form: GEMMFormat
) -> FloatArray:
    """``[rows, features]``, from the shape alone: the true duration adds nothing to the prediction of power."""
    flops, moved = 2 * m * n * k, _bytes(m, n, k, form)
    tensor = flops / sheet.operations_per_second(form.compute)
    memory = moved / sheet.memory_bytes_per_second
    seconds = 3e-6 + np.hypot(tensor / 0.75, memory / 0.85)
    columns = [np.log2(m), np.log2(n), np.log2(k), tensor / seconds, memory / seconds]
    columns += [np.log2(flops), np.log2(moved), np.log2(tensor / memory)]
    for rows, width in _TILES:
        tiles = np.ceil(m / rows) * np.ceil(n / width)
        waves = tiles / sheet.sms
        columns += [np.log2(tiles), np.ceil(waves) / waves, m * n / (tiles * rows * width)]
    weights, inputs = form.weight_bytes * n * k, form.input_bytes * m * k
    columns += [moved / sheet.l2_bytes, weights / sheet.l2_bytes, inputs / sheet.l2_bytes]
    columns += [(m % 8 == 0).astype(float), np.log2(m * n), np.log2(n / k), np.log2(m * n / k)]
    return np.column_stack(columns)


def _bytes(m: FloatArray, n: FloatArray, k: FloatArray, form: GEMMFormat) -> FloatArray:
    return form.input_bytes * m * k + form.weight_bytes * n * k + form.output_bytes * m * n
