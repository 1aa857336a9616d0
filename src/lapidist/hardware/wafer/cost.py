"""Cycles of an algorithm on a mesh: an alpha-beta-compute model with calibrated constants.

With the constants of :class:`CostConstants` in *italics*, for tiles ``[m, k] x [k, n]`` of ``E`` elements that move:

* product of tiles: ``C = k *k_iteration* + k n *fma_call* + m k n *fma_mac*``; while tiles move, the first
  *overlap_window* cycles of it take *overlap_slowdown* longer, since both share the core's memory;
* step of a compute-shift loop: ``*step* + E *moved_element* + max(C, hops *hop* + bytes / link rate)``, where hops are
  those beyond the two of an interleaved ring: what MeshGEMM never waits for, Cannon and SUMMA do;
* shift without work: ``*step* + hops *hop* + stages *stage* + bytes / link rate``;
* all-reduce of ``L`` elements: ``*allreduce_launch* + max(*allreduce_floor*, hops *hop* + stages *stage*) + passes L
  *pass_element*``; a phase of a tree is two passes, the broadcast one;
* matrix-vector product: ``k *gemv_call* + k n *gemv_mac*``; element-wise work: operations times *pointwise_operation*.

PLMR and its bounds: WaferLLM, arXiv 2502.04563, sections 3 to 5. Hops and depth as separate terms: arXiv 2404.15888.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lapidist.hardware.wafer.cost_constants import CostConstants
from lapidist.hardware.wafer.cost_terms import (
    PASSES_OF_A_PHASE,
    AllReduce,
    CostTerms,
    Local,
    Loop,
    Numbers,
    Program,
    Transfer,
    cost_terms,
)
from lapidist.hardware.wafer.description import Description

Component = Literal[
    "multiply",
    "element-wise",
    "waiting for tiles",
    "moving tiles",
    "hops",
    "routing stages",
    "vector words",
    "all-reduce set-up",
    "step set-up",
    "launch",
]
COMPUTE: tuple[Component, ...] = ("multiply", "element-wise")
COMMUNICATION: tuple[Component, ...] = (
    "waiting for tiles",
    "moving tiles",
    "hops",
    "routing stages",
    "vector words",
    "all-reduce set-up",
)
OVERHEAD: tuple[Component, ...] = ("step set-up", "launch")
COMPONENTS = (*COMPUTE, *COMMUNICATION, *OVERHEAD)


@dataclass(frozen=True)
class Cost:
    """Cycles of one program by component."""

    by_component: Mapping[Component, float]

    @property
    def cycles(self) -> float:
        return sum(self.by_component.values())

    def share(self, components: Iterable[Component]) -> float:
        """Part of the cycles that the components make up, 0 to 1."""
        return sum(self.by_component[name] for name in components) / self.cycles if self.cycles else 0.0


@dataclass(frozen=True)
class CostModel:
    """The formulas with one device's constants and link.

    Attributes
    ----------
    constants : calibrated cycles.
    link_bytes_per_cycle : of one link in one direction.
    """

    constants: CostConstants
    link_bytes_per_cycle: float

    def cost(self, description: Description) -> Cost:
        """Cycles of one run of an algorithm."""
        return self.program_cost(((description, 1),))

    def program_cost(self, program: Program) -> Cost:
        """Cycles of several algorithms one after the other, each so many times."""
        parts = self.components(cost_terms([program]))
        return Cost({name: float(values[0]) for name, values in parts.items()})

    def interval(self, amount: float) -> tuple[float, float] | None:
        """Where nine of ten measurements are expected of a forecast ``amount``; None if nothing is known of that."""
        if self.constants.relative_error is None:
            return None
        factor = 1 + self.constants.relative_error
        return amount / factor, amount * factor

    def cycles(self, terms: CostTerms) -> Numbers:
        """Cycles of each program; ``[programs]``."""
        return np.sum(list(self.components(terms).values()), axis=0)

    def components(self, terms: CostTerms) -> dict[Component, Numbers]:
        """Cycles of each program by component; each ``[programs]``."""
        found: dict[Component, Numbers] = {name: np.zeros(terms.programs) for name in COMPONENTS}
        for table, cycles_of in (
            (terms.loops, self._loop_cycles),
            (terms.transfers, self._transfer_cycles),
            (terms.allreduces, self._allreduce_cycles),
            (terms.locals_, self._local_cycles),
        ):
            for name, cycles in cycles_of(table.values).items():
                found[name] += np.bincount(table.owner, cycles, terms.programs)
        return found

    def _loop_cycles(self, rows: Numbers) -> dict[Component, Numbers]:
        """``rows`` as :class:`Loop`, ``[rows, fields]``."""
        c = self.constants
        row = Loop(*rows.T)
        work = row.k_iterations * c.k_iteration + row.calls * c.fma_call + row.macs * c.fma_mac
        slowed = row.steps * c.overlap_slowdown * np.minimum(work, c.overlap_window)
        behind = row.hops * c.hop + row.link_bytes / self.link_bytes_per_cycle
        fill = row.loops * row.chain_length
        return {
            "multiply": row.times * work,
            "step set-up": row.times * row.steps * c.step,
            "moving tiles": row.times * (row.moved_elements * c.moved_element + slowed),
            "waiting for tiles": row.times * row.steps * np.maximum(0, behind - work - slowed),
            "hops": fill * c.hop,
            "routing stages": (row.times * row.chains + fill) * c.stage,
            "vector words": row.times * row.chain_elements * PASSES_OF_A_PHASE * c.pass_element,
        }

    def _transfer_cycles(self, rows: Numbers) -> dict[Component, Numbers]:
        """``rows`` as :class:`Transfer`, ``[rows, fields]``."""
        row = Transfer(*rows.T)
        return {
            "step set-up": row.times * self.constants.step,
            "hops": row.times * row.hops * self.constants.hop,
            "routing stages": row.times * row.stages * self.constants.stage,
            "moving tiles": row.times * row.link_bytes / self.link_bytes_per_cycle,
        }

    def _allreduce_cycles(self, rows: Numbers) -> dict[Component, Numbers]:
        """``rows`` as :class:`AllReduce`, ``[rows, fields]``."""
        c = self.constants
        row = AllReduce(*rows.T)
        hops, stages = row.hops * c.hop, row.stages * c.stage
        return {
            "all-reduce set-up": row.times
            * (c.allreduce_launch + np.maximum(0, c.allreduce_floor - hops - stages)),
            "hops": row.times * hops,
            "routing stages": row.times * stages,
            "vector words": row.times * row.element_passes * c.pass_element,
        }

    def _local_cycles(self, rows: Numbers) -> dict[Component, Numbers]:
        """``rows`` as :class:`Local`, ``[rows, fields]``."""
        c = self.constants
        row = Local(*rows.T)
        return {
            "launch": row.times * row.launches * c.launch,
            "multiply": row.times * (row.gemv_calls * c.gemv_call + row.gemv_macs * c.gemv_mac),
            "element-wise": row.times * row.operations * c.pointwise_operation,
        }
