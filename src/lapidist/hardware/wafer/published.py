"""The paper's tables: WaferLLM (OSDI 2025, arXiv 2502.04563), Tables 2 to 8, and what follows from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from lapidist.hardware.wafer.calibration import Measurement
from lapidist.hardware.wafer.released_kernels import (
    ReleasedLayer,
    released_decode_layer,
    released_prefill_layer,
)

SYSTEM = "WaferLLM"


@dataclass(frozen=True)
class PublishedModel:
    """Shape of a model in the paper; all are Llamas but for Qwen2's biases."""

    name: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    qkv_bias: bool = False
    hidden_act: str = "silu"
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    joint_qk_norm: bool = False
    sandwich_norms: bool = False
    attention_softcap: float | None = None
    final_softcap: float | None = None
    embedding_scale: float = 1.0
    experts: None = None
    latent: None = None

    @property
    def sliding_windows(self) -> tuple[int | None, ...]:
        return (None,) * self.num_layers

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def released_layer(self) -> ReleasedLayer:
        return ReleasedLayer(self.hidden_size, self.intermediate_size)


@cache
def published_tables() -> Mapping[str, Any]:
    """The numbers as printed, by table; see ``published_tables.yaml`` for their units."""
    text = (files("lapidist.hardware.wafer") / "published_tables.yaml").read_text(encoding="utf-8")
    found: Mapping[str, Any] = yaml.safe_load(text)
    return found


@cache
def published_models() -> Mapping[str, PublishedModel]:
    """Models of the paper by their names there."""
    return {name: PublishedModel(name, **row) for name, row in published_tables()["models"].items()}


def released_groups(cores: int) -> int:
    """Groups of the two-level tree on a line of ``cores``: as released, else the divisor next to the square root."""
    known: Mapping[int, int] = published_tables()["groups"]
    if cores in known:
        return known[cores]
    return min((d for d in range(1, cores + 1) if cores % d == 0), key=lambda d: abs(d - cores**0.5))


def table_3_measurements() -> list[Measurement]:
    """Cycles of a prefill layer, ``clock x tokens / (rate x layers)``; 4 models on 3 grids."""
    tables = published_tables()
    table, clock = tables["table_3"], tables["clock_hertz"]
    return [
        Measurement(
            f"{name} prefill {cores}x{cores}",
            released_prefill_layer(published_models()[name].released_layer, table["tokens"], cores),
            clock * table["tokens"] / (rate * published_models()[name].num_layers),
        )
        for name, row in table["rates"].items()
        for cores, rate in zip(table["grids"], row[SYSTEM], strict=True)
    ]


def table_4_measurements() -> list[Measurement]:
    """Cycles of a decode layer, ``clock / (rate x layers)``; 4 models on 3 grids."""
    tables = published_tables()
    table, clock = tables["table_4"], tables["clock_hertz"]
    return [
        Measurement(
            f"{name} decode {cores}x{cores}",
            released_decode_layer(
                published_models()[name].released_layer, table["tokens"], cores, released_groups(cores)
            ),
            clock / (rate * published_models()[name].num_layers),
        )
        for name, row in table["rates"].items()
        for cores, rate in zip(table["grids"], row[SYSTEM], strict=True)
    ]
