"""What the power limit takes from kernels of milliseconds, foretold for larger GEMMs than any measured.

For a millisecond of full work a GPU holds its clock; over the next tens of them the power limit pulls it down, the
further the fewer watts the card has per operation. Between 1.5 and 27 ms the rate of measured bf16 GEMMs falls by a
fifth on B200 (0.44 W per TFLOP/s), an eighth on H200 (0.71), a sixteenth on RTX PRO 6000 (1.25) and not at all on A100
(1.28); L40S (0.97) falls by a fifth, more than this law says. Trees fitted to shorter kernels cannot know of it.
"""

from dataclasses import dataclass

import numpy as np

from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.hardware.gpu.gemm_format import GEMMFormat
from lapidist.hardware.gpu.gemm_roofline import FloatArray


@dataclass(frozen=True)
class ClockFall:
    """How the clock falls; the same for every GPU.

    Attributes
    ----------
    starts_seconds, decades : the duration of a kernel from which it falls, and over how many decades more.
    depth : in log time, of a card with 1 / e of the watts that suffice.
    enough_watts : per operation and second at the peak 16-bit rate.
    """

    starts_seconds: float = 1.5e-3
    decades: float = 1.25
    depth: float = 0.2
    enough_watts: float = 1.3e-12


def throttling(
    operations: FloatArray,
    largest: float,
    sheet: DataSheet,
    form: GEMMFormat,
    power_cap: float,
    fall: ClockFall = ClockFall(),
) -> FloatArray:
    """Factor on the time of GEMMs of so many operations; 1 up to ``largest``, the most that was measured.

    ``power_cap`` is the part of the peak rate that the measured ones sustain.
    """
    sustained = sheet.operations_per_second(form.compute) * power_cap
    lost = _lost(operations / sustained, fall) - _lost(largest / sustained, fall)
    watts = sheet.tdp_watts / sheet.operations_per_second(sheet.sixteen_bit)
    depth = fall.depth * max(0.0, float(np.log(fall.enough_watts / watts)))
    return np.exp(depth * np.maximum(lost, 0.0))


def _lost(seconds: FloatArray | float, fall: ClockFall) -> FloatArray:
    """Part of the fall that a kernel of this duration has seen."""
    return np.clip(np.log10(np.asarray(seconds) / fall.starts_seconds) / fall.decades, 0.0, 1.0)
