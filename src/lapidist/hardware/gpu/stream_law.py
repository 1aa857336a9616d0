"""Time of kernels that only stream memory: norms, activations, RoPE, embedding; residual additions ride along.

A kernel costs a launch and its bytes at the reachable bandwidth, L2's while they fit there. Serving engines fuse the
residual addition into the norm after it, so that it costs its bytes but no launch.
"""

from dataclasses import dataclass

from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.workload.operators import Operator

_L2_SPEED = 2.5  # L2 bandwidth over that of the device memory


@dataclass(frozen=True)
class StreamLaw:
    launch_seconds: float = 1.5e-6
    efficiency: float = 0.8

    def seconds(self, operator: Operator, sheet: DataSheet) -> float:
        """Of one run of an element-wise operator, norm or embedding."""
        moved = operator.minimum_bytes
        bandwidth = sheet.memory_bytes_per_second * self.efficiency
        if moved < sheet.l2_bytes / 2:
            bandwidth *= _L2_SPEED
        launch = 0.0 if operator.name.endswith("_residual") else self.launch_seconds
        return launch + moved / bandwidth
