"""A Llama of a few layers for the peers' tests."""

from pathlib import Path
from typing import Any

from lapidist.models.random_checkpoint import write_random_checkpoint
from lapidist.models.shapes import shape_config

SMALL = {
    "num_hidden_layers": 3,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 512,
    "bos_token_id": 256,
    "eos_token_id": 257,
}


def write_small_llama(path: Path, seed: int = 0, **changes: Any) -> Path:
    write_random_checkpoint(shape_config("llama-3.2-1b") | SMALL | changes, path, seed=seed)
    return path
