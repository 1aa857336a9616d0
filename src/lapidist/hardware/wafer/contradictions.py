"""Statements of the paper that its own numbers contradict, each computed from the tables."""

from dataclasses import dataclass

from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.llm_memory import LLMMemory
from lapidist.hardware.wafer.published import SYSTEM, published_models, published_tables
from lapidist.hardware.wafer.regions import Grid, regions_on_wafer
from lapidist.hardware.wafer.reproduction import Cell


@dataclass(frozen=True)
class Contradiction:
    """What the paper says, and what its numbers or its hardware say."""

    where: str
    says: str
    but: str


def found_contradictions(cells: list[Cell]) -> list[Contradiction]:
    """All that can be computed from the tables and the device; ``cells`` are those of ``reproduce()``."""
    return [
        _gpus_of_table_2(cells),
        _gain("Table 3, text", "table_3", "T10", "160x on average, at most 178x"),
        _gain("Table 3, text", "table_3", "Ladder", "270x to 450x"),
        _gain("Table 4, text", "table_4", "T10", "5.7x on average, at most 6.5x"),
        _gain("Table 4, text", "table_4", "Ladder", "217x on average, at most 260x"),
        _squares_on_the_wafer(),
        _prefill_in_one_region(),
        _cache_of_table_5(),
    ]


def _gpus_of_table_2(cells: list[Cell]) -> Contradiction:
    derived = [cell for cell in cells if cell.table == 2 and cell.how == "derived"]
    low = [cell.published / cell.ours for cell in derived if cell.column != "4096/4096"]
    same = [cell.published / cell.ours for cell in derived if cell.column == "4096/4096"]
    return Contradiction(
        "Table 2, A100 rows",
        "whole requests at the printed rates",
        f"prompts and outputs at the phase rates of Tables 3 and 4 take the same time in the column 4096/4096 "
        f"(ratio {min(same):.2f} to {max(same):.2f}), but in the other three the printed rates are only "
        f"{min(low):.2f} to {max(low):.2f} of it",
    )


def _gain(where: str, table: str, system: str, says: str) -> Contradiction:
    rates = published_tables()[table]["rates"].values()
    gains = [ours / theirs for row in rates for ours, theirs in zip(row[SYSTEM], row[system], strict=True)]
    return Contradiction(
        where,
        f"{says} over {system}",
        f"the cells give {min(gains):.3g}x to {max(gains):.3g}x, {sum(gains) / len(gains):.3g}x on average",
    )


def _squares_on_the_wafer() -> Contradiction:
    device = load_device("wse-2")
    grid = Grid(360, 360)
    return Contradiction(
        "Tables 2 and 5, decode on 360x360",
        "layers lie in several regions of that shape",
        f"the area would hold {device.rows * device.cols / grid.cores:.1f} of them, the usable fabric of "
        f"{device.rows}x{device.cols} holds {regions_on_wafer(device, grid)}; oblong regions use it better "
        f"(331x375: {regions_on_wafer(device, Grid(331, 375))})",
    )


def _prefill_in_one_region() -> Contradiction:
    device = load_device("wse-2")
    parts = []
    for name, sides in published_tables()["table_2"]["grids"].items():
        grid = Grid(sides["prefill"], sides["prefill"])
        held = LLMMemory(published_models()[name], device).weight_bytes / grid.cores
        parts.append(f"{name} needs {held / 1024:.1f} KB a core for its weights alone on {grid}")
    return Contradiction(
        "Table 2, prefill grids",
        "the full models run prefill on 660x660 and 750x750, one region of which fits",
        f"{'; '.join(parts)}; a core has 48 KB for weights, cache, activations and code",
    )


def _cache_of_table_5() -> Contradiction:
    row = published_tables()["table_5"]["LLaMA3-8B"]
    model = published_models()["LLaMA3-8B"]
    capacity = row["shift"] / row["grid"]
    full, grouped = (
        2 * width * 2 / row["grid"] * capacity * model.num_layers / 1024
        for width in (model.hidden_size, model.num_kv_heads * model.head_dim)
    )
    return Contradiction(
        "Tables 3 and 5",
        "one system prefills (Table 3) and holds the cache (Table 5)",
        f"Table 3 fits keys and values as wide as the hidden size, as the released kernels have them; Table 5's cache "
        f"would then take {full:.0f} KB of each core, summed over all regions, and {grouped:.0f} KB with grouped-query "
        "attention: only the latter fits on four to six regions",
    )
