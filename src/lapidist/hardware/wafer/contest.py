"""Algorithms for the same product side by side, on one grid or over many."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lapidist.hardware.wafer.cost import COMMUNICATION, COMPUTE, Cost, CostModel
from lapidist.hardware.wafer.description import Description, Summary
from lapidist.hardware.wafer.device import Device
from lapidist.hardware.wafer.gemm_algorithms import (
    GEMM_ALGORITHMS,
    GEMMShape,
    cannon,
    gemm_description,
    mesh_gemm,
)
from lapidist.hardware.wafer.gemv_algorithms import mesh_gemv
from lapidist.hardware.wafer.mesh import Mesh
from lapidist.hardware.wafer.regions import Grid, require_on_wafer


@dataclass(frozen=True)
class Entry:
    """One algorithm on one grid.

    Attributes
    ----------
    refusal : why the device cannot run it, empty if it can; it is costed all the same.
    """

    name: str
    grid: Grid
    description: Description
    cost: Cost
    summary: Summary
    refusal: str

    def to_json(self, device: Device) -> dict[str, object]:
        """Everything as plain numbers; ``device`` has the clock and the power."""
        seconds = self.cost.cycles / device.clock_hz
        return {
            "algorithm": self.name,
            "rows": self.grid.rows,
            "cols": self.grid.cols,
            "cycles": self.cost.cycles,
            "seconds": seconds,
            "joules": None if device.watts is None else device.watts * seconds,
            "compute_share": self.cost.share(COMPUTE),
            "communication_share": self.cost.share(COMMUNICATION),
            "cycles_by_component": dict(self.cost.by_component),
            "paths_per_core": self.summary.paths_per_core,
            "hops_per_step": self.summary.hops_per_step,
            "critical_hops": self.summary.critical_hops,
            "stages": self.summary.stages,
            "bytes_per_core": self.summary.peak_bytes,
            "refusal": self.refusal or None,
        }


def gemm_contest(
    shape: GEMMShape, grid: Grid, device: Device, model: CostModel, aligned: bool = False
) -> list[Entry]:
    """MeshGEMM, Cannon, SUMMA and all-gather GEMM.

    ``aligned`` places both operands of the first two ready for the loop, as the paper's figures seem to; otherwise A
    is aligned on the mesh. Raises ValueError if the grid does not fit on the device.
    """
    require_on_wafer(device, grid)
    described: dict[str, Description] = {
        name: gemm_description(name, shape, grid.rows, grid.cols) for name in GEMM_ALGORITHMS
    }
    if aligned:
        described["meshgemm"] = mesh_gemm(shape, grid.rows, grid.cols, aligned=True)
        described["cannon"] = cannon(shape, grid.rows, grid.cols, aligned=True)
    return _entries(described, grid, device, model)


def gemv_contest(
    k: int, n: int, grid: Grid, device: Device, model: CostModel, groups: int | None = None, batch: int = 1
) -> list[Entry]:
    """K-trees of one, two and three phases, pipeline to one end, ring.

    ``groups`` of the first phase of the two-phase tree, by default those with the fewest stages. Raises ValueError if
    the grid does not fit on the device or the groups do not fit on a line.
    """
    require_on_wafer(device, grid)
    described = {
        f"K-tree, K={phases}": mesh_gemv(
            k, n, grid.rows, grid.cols, phases=phases, groups=groups if phases == 2 else None, batch=batch
        )
        for phases in (1, 2, 3)
    }
    described["pipeline"] = mesh_gemv(k, n, grid.rows, grid.cols, "pipeline", batch=batch)
    described["ring"] = mesh_gemv(k, n, grid.rows, grid.cols, "ring", batch=batch)
    return _entries(described, grid, device, model)


def by_algorithm(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Entries of several grids as one curve per algorithm, in the order of the grids."""
    curves: dict[str, list[Entry]] = {}
    for entry in entries:
        curves.setdefault(entry.name, []).append(entry)
    return curves


def _entries(
    described: Mapping[str, Description], grid: Grid, device: Device, model: CostModel
) -> list[Entry]:
    if grid.rows > device.rows or grid.cols > device.cols:
        device = device.with_values("turned by a quarter", rows=device.cols, cols=device.rows)
    mesh = Mesh(device, grid.rows, grid.cols)
    entries = []
    for name, description in described.items():
        refusal = ""
        try:
            mesh.admit(description)
        except ValueError as error:
            refusal = str(error)
        entries.append(
            Entry(name, grid, description, model.cost(description), description.summary(), refusal)
        )
    return entries
