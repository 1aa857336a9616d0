"""Published end-to-end measurements of LLM serving on GPUs, as numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapidist.models.config import ModelConfig
from lapidist.models.config_fields import ConfigFields
from lapidist.models.shapes import shape_config


@dataclass(frozen=True)
class Throughput:
    """Generated tokens per second of a batch that starts together: 1024 prompt and 512 generated tokens each."""

    gpu: str
    model: str
    system: str
    recipe: str
    batch: int
    tokens_per_second: float


def _table(
    gpu: str, models: tuple[str, ...], rows: dict[tuple[str, str], tuple[int, ...]], batches: tuple[int, ...]
) -> list[Throughput]:
    return [
        Throughput(gpu, model, system, recipe, batch, float(rate))
        for (system, recipe), rates in rows.items()
        for model, batch, rate in zip(models, batches, rates, strict=True)
    ]


_MODELS = ("llama-3-8b", "llama-2-7b", "mistral-7b", "llama-2-13b", "llama-2-70b")

# QServe (arXiv 2405.04532), README of mit-han-lab/omniserve: throughput of TensorRT-LLM 0.9.0 and QServe, each at the
# most that the same memory allows; the batches are known of QServe only.
QSERVE = [
    *_table(
        "a100",
        _MODELS,
        {("QServe", "w4a8kv4"): (3005, 2908, 2970, 1741, 419)},
        (256, 190, 256, 128, 96),
    ),
    *_table(
        "l40s",
        _MODELS,
        {("QServe", "w4a8kv4-g128"): (3656, 2394, 3774, 1327, 286)},
        (128, 128, 128, 75, 24),
    ),
    *_table(
        "a100",
        ("llama-3-8b", "llama-2-7b", "mistral-7b", "llama-2-13b"),
        {
            ("TensorRT-LLM 0.9.0", "fp16"): (2503, 1549, 2371, 488),
            ("TensorRT-LLM 0.9.0", "w4a16kv16-g128"): (2370, 1549, 2403, 871),
            ("TensorRT-LLM 0.9.0", "w8a8kv8"): (2396, 2334, 2427, 1277),
        },
        (0, 0, 0, 0),
    ),
    *_table(
        "l40s",
        ("llama-3-8b", "llama-2-7b", "mistral-7b", "llama-2-13b"),
        {
            ("TensorRT-LLM 0.9.0", "fp16"): (1326, 444, 1566, 92),
            ("TensorRT-LLM 0.9.0", "w4a16kv16-g128"): (1431, 681, 1457, 368),
            ("TensorRT-LLM 0.9.0", "w8a8kv8"): (2634, 1271, 2569, 440),
        },
        (0, 0, 0, 0),
    ),
]


_MORE_SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    # meta-llama/Llama-2-13b-hf, -70b-hf; Qwen/Qwen3-32B
    "llama-2-13b": (
        "llama-2-7b",
        {
            "num_hidden_layers": 40,
            "hidden_size": 5120,
            "intermediate_size": 13824,
            "num_attention_heads": 40,
            "num_key_value_heads": 40,
        },
    ),
    "llama-2-70b": (
        "llama-2-7b",
        {
            "num_hidden_layers": 80,
            "hidden_size": 8192,
            "intermediate_size": 28672,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
        },
    ),
    "qwen3-32b": (
        "qwen3-8b",
        {
            "num_hidden_layers": 64,
            "max_window_layers": 64,
            "hidden_size": 5120,
            "intermediate_size": 25600,
            "num_attention_heads": 64,
        },
    ),
}


def shape(name: str) -> ModelConfig:
    """A public shape, or one of those that only these tables need."""
    if name not in _MORE_SHAPES:
        return ModelConfig.of_shape(name)
    base, changes = _MORE_SHAPES[name]
    return ModelConfig.from_fields(ConfigFields(Path(name), shape_config(base) | changes))
