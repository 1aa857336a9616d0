"""From a name to a machine that can be planned on."""

from pathlib import Path

from lapidist.hardware.cpu.cpu import CPU
from lapidist.hardware.cpu.profile import CPUProfile, read_profile
from lapidist.hardware.gpu.data_sheet import data_sheet_names, load_data_sheet
from lapidist.hardware.gpu.gpu import GPU
from lapidist.hardware.wafer.regions import Grid
from lapidist.hardware.wafer.wafer import Wafer
from lapidist.models.config import ModelConfig
from lapidist.planner.arrival_cost import ArrivalCost
from lapidist.planner.batching import BATCHING_BY_BACKEND, MIXED
from lapidist.planner.cpu_profile_store import load_profile
from lapidist.planner.machine import Machine
from lapidist.workload.recipe import Recipe

WAFERS = ("wse-2", "wse-3")
# What WaferLLM (arXiv 2502.04563) found best for Llama-3-8B.
_PREFILL_GRID, _DECODE_GRID = Grid(660, 660), Grid(360, 360)


def find_machine(name: str, config: ModelConfig, recipe: Recipe, backend: str | None = None) -> Machine:
    """A GPU by its name or by a data sheet of the user's own (``.yaml``); ``wse-2`` and ``wse-3``, wafers; ``cpu`` by
    what was measured of this model in this recipe, or by a profile (``.json``).

    Parameters
    ----------
    backend : of a GPU: whose kernels, overhead and batching, see ``hardware.gpu.gpu.GPU``; others have none.

    Raises
    ------
    ValueError : there is no such machine, with a list of those that are; or nothing was measured of the model.
    """
    if name.lower() == "cpu":
        return cpu_machine(load_profile(config, recipe))
    if name.lower() in WAFERS:
        return _wafer(name.lower())
    suffix = Path(name).suffix.lower()
    if suffix in (".json", ".yaml", ".yml") and not Path(name).is_file():
        raise ValueError(f"{name}: there is no such file; known GPUs are {', '.join(data_sheet_names())}")
    return cpu_machine(read_profile(Path(name))) if suffix == ".json" else _gpu(name, backend)


def cpu_machine(profile: CPUProfile) -> Machine:
    """The machine that a profile was measured on."""
    overhead = profile.overhead
    arrival = ArrivalCost(overhead.arrival, overhead.arrival_token, overhead.wake)
    return Machine(CPU(profile), profile.memory_bytes, request_seconds=overhead.request, arrival=arrival)


def _wafer(name: str) -> Machine:
    wafer = Wafer.named(name, _PREFILL_GRID, _DECODE_GRID)
    device = wafer.device
    return Machine(wafer, device.rows * device.cols * device.usable_bytes_per_core)


def _gpu(name: str, backend: str | None) -> Machine:
    sheet = load_data_sheet(name)
    gpu, price = GPU(sheet, backend), sheet.price
    return Machine(
        gpu,
        sheet.memory_bytes,
        None if price is None else price.dollars_per_hour,
        sheet.idle_watts,
        None if price is None else f"{price.source}, {price.date}",
        gpu.overhead.request_seconds,
        batching=BATCHING_BY_BACKEND.get(gpu.backend or "", MIXED),
    )
