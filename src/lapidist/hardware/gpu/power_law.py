"""Board power of a running kernel from how busy it keeps tensor cores and memory; saturates at the power limit.

``P = idle + (limit - idle) min(1, base + a u_tensor + b u_memory)``: a kernel that runs at all wakes the chip, and a
chip at its limit lowers its clock instead of drawing more. Three of four long GEMMs on H200 sit there. The same law
with its own idle power and limit speaks for GPUs whose power nobody measured.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lapidist.hardware.gpu.data_sheet import DataSheet

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PowerLaw:
    """Parts of the range from idle power to limit; the defaults were fitted to long H200 kernels of both bounds."""

    base: float = 0.44
    tensor: float = 0.75
    memory: float = 0.40

    def watts(
        self, tensor_share: ArrayLike, memory_share: ArrayLike, sheet: DataSheet, limit_watts: float
    ) -> FloatArray:
        """Shares are of the data sheet's full rates, from 0 to about 1."""
        busy = self.base + self.tensor * np.asarray(tensor_share) + self.memory * np.asarray(memory_share)
        return sheet.idle_watts + (limit_watts - sheet.idle_watts) * np.minimum(1.0, busy)
