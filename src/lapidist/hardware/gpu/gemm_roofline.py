"""The analytical GEMM model: launch, arithmetic in waves of tiles, device memory and L2, joined smoothly.

``T = launch + (T_compute^p + T_memory^p)^(1/p)``, where a small ``p`` says that the two overlap badly. The arithmetic
is that of whole tiles in whole waves (Habitat, ATC 2021, and NeuSight, ASPLOS 2025, quantize in the same way); a working
set that stays in L2 between calls is read from there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.hardware.gpu.gemm_format import GEMMFormat

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class RooflineParameters:
    """What a data sheet does not tell; the defaults are medians over fitted GPUs.

    Attributes
    ----------
    launch_seconds : time of a kernel with next to nothing to do.
    compute_efficiency, memory_efficiency : reachable part of the peak rate at boost clock and of the bandwidth.
    exponent : of the smooth maximum; infinity is the textbook roofline.
    """

    launch_seconds: float = 3.5e-6
    compute_efficiency: float = 0.75
    memory_efficiency: float = 0.8
    exponent: float = 1.4


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


def roofline_seconds(
    m: FloatArray,
    n: FloatArray,
    k: FloatArray,
    sheet: DataSheet,
    form: GEMMFormat,
    parameters: RooflineParameters,
) -> FloatArray:
    """Expected time of one call, element by element."""
    p = parameters.exponent
    rate = sheet.operations_per_second(form.compute) * parameters.compute_efficiency
    bandwidth = sheet.memory_bytes_per_second * parameters.memory_efficiency
    compute = gemm_flops(m, n, k) / rate
    memory = gemm_bytes(m, n, k, form) / bandwidth
    return parameters.launch_seconds + (compute**p + memory**p) ** (1 / p)
