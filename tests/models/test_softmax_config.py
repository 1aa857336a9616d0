"""``quantization_config.attention_softmax``: what is written is read again, and what is wrong is named."""

from pathlib import Path
from typing import Any

import pytest

from lapidist.kernels.softmax import SoftmaxMode
from lapidist.models.config_fields import ConfigFields
from lapidist.models.errors import CheckpointError
from lapidist.models.softmax_config import SoftmaxConfig, read_softmax, resolve_softmax_mode, softmax_section


def read(section: Any) -> SoftmaxConfig | None:
    values = {"quantization_config": {"quant_method": "lapidist", "attention_softmax": section}}
    return read_softmax(ConfigFields(Path("config.json"), values), num_layers=2, num_heads=3)


@pytest.mark.parametrize(
    ("config", "phi"),
    [
        (SoftmaxConfig(SoftmaxMode.UNIFIED, ((0.0,) * 3,) * 2), 0.0),
        (SoftmaxConfig(SoftmaxMode.UNIFIED, ((-98.25,) * 3,) * 2), -98.25),
        (SoftmaxConfig(SoftmaxMode.UNIFIED, ((1.5, 2, 3), (4, 5, 6.25))), [[1.5, 2, 3], [4, 5, 6.25]]),
        (SoftmaxConfig.uncalibrated(2, 3), None),
    ],
)
def test_round_trip(config: SoftmaxConfig, phi: Any) -> None:
    section = softmax_section(config)
    assert section.get("phi") == phi
    assert read(section) == config


def test_absent_is_uncalibrated() -> None:
    assert read(None) is None
    assert read_softmax(ConfigFields(Path("config.json"), {}), 2, 3) is None


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("unified", "attention_softmax"),
        ([], "attention_softmax"),
        ({}, "attention_softmax.mode"),
        ({"phi": 0}, "attention_softmax.mode"),
        ({"mode": "eager"}, "attention_softmax.mode"),
        ({"mode": 2}, "attention_softmax.mode"),
        ({"mode": "unified", "phi": "0"}, "attention_softmax.phi"),
        ({"mode": "unified", "phi": True}, "attention_softmax.phi"),
        ({"mode": "unified", "phi": float("nan")}, "attention_softmax.phi"),
        ({"mode": "unified", "phi": float("inf")}, "attention_softmax.phi"),
        ({"mode": "unified", "phi": [1, 2, 3]}, "attention_softmax.phi"),
        ({"mode": "unified", "phi": [[1, 2, 3]]}, "attention_softmax.phi"),
        ({"mode": "unified", "phi": [[1, 2, 3], [4, 5]]}, "attention_softmax.phi"),
        ({"mode": "unified", "phi": [[1, 2, 3], [4, 5, None]]}, "attention_softmax.phi"),
    ],
)
def test_a_wrong_field_is_named(section: Any, key: str) -> None:
    with pytest.raises(CheckpointError, match=r"config.json: quantization_config") as caught:
        read(section)
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_modes_of_an_option() -> None:
    assert resolve_softmax_mode("auto") is None
    assert resolve_softmax_mode("online") == SoftmaxMode.ONLINE
    assert resolve_softmax_mode("unified") == SoftmaxMode.UNIFIED
    with pytest.raises(ValueError, match="must be auto, online, lazy, unified, got 'fast'"):
        resolve_softmax_mode("fast")
