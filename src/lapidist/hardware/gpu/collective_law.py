"""Time of collectives between the GPUs of one machine: latency and bandwidth of the better of two algorithms.

*One-shot*: every rank reads all others' data at once, one synchronization; best for the few kilobytes of a decoding
step. *Ring* (reduce-scatter and all-gather, or one pass for an all-gather): bandwidth-optimal, ``ranks - 1``
synchronizations per pass (Patarasu and Yuan, JPDC 2009). A link without NVLink pays more per synchronization.
"""

from dataclasses import dataclass

from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.workload.operators import Collective


@dataclass(frozen=True)
class CollectiveLaw:
    """Latencies in seconds; ``efficiency`` is the reachable part of the link's bandwidth."""

    launch_seconds: float = 3.5e-6
    hop_seconds: float = 1.2e-6
    pcie_hop_seconds: float = 5e-6
    efficiency: float = 0.75

    def seconds(self, operator: Collective, sheet: DataSheet) -> float:
        """Of one exchange, as every rank sees it."""
        if operator.ranks == 1:
            return 0.0
        hop = self.hop_seconds if "NVLink" in sheet.link.name else self.pcie_hop_seconds
        bandwidth = sheet.link.bytes_per_second * self.efficiency
        others = operator.ranks - 1
        own = (
            operator.payload_bytes
            if operator.kind == "all_reduce"
            else operator.payload_bytes / operator.ranks
        )
        one_shot = 2 * hop + others * own / bandwidth
        passes = 2 if operator.kind == "all_reduce" else 1
        ring = passes * others * hop + operator.wire_bytes / bandwidth
        return self.launch_seconds + min(one_shot, ring)
