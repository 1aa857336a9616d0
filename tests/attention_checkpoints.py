"""Small random checkpoints, with tokenizer, whose attention scores lie where a test wants them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from tests.checkpoints import write_random_llama, write_tokenizer
from tests.family_checkpoints import Variant, build, rope, save

HEADS, KV_HEADS, HEAD_DIM = 6, 2, 8
_LAYERS = 2
# The pair of channels that RoPE turns least, some hundredths of a degree per token.
_PAIR = (HEAD_DIM // 2 - 1, HEAD_DIM - 1)


def write_shifted_qwen2(directory: Path, shifts: Sequence[float], seed: int = 0) -> Path:
    """A Qwen2 that adds a constant to all scores of a head, ``shifts[head]``, by way of its biases."""
    directory.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {
        "vocab_size": write_tokenizer(directory),
        "num_hidden_layers": _LAYERS,
        "max_position_embeddings": 512,
        "eos_token_id": 1,
        **rope(rope_theta=1e6),
    }
    model = build(Variant("Qwen2", options), seed)
    for layer in model.model.layers:
        query, key = layer.self_attn.q_proj, layer.self_attn.k_proj
        for projection, heads in ((query, HEADS), (key, KV_HEADS)):
            for channel in _PAIR:
                projection.weight.view(heads, HEAD_DIM, -1)[:, channel] = 0
                projection.bias.view(heads, HEAD_DIM)[:, channel] = 0
        key.bias.view(KV_HEADS, HEAD_DIM)[:, _PAIR[0]] = 10
        for head, shift in enumerate(shifts):
            query.bias.view(HEADS, HEAD_DIM)[head, _PAIR[0]] = shift / 10 * HEAD_DIM**0.5
    return save(model, directory)


def write_wide_llama(directory: Path, layer: int, kv_head: int, factor: float) -> Path:
    """A Llama with 4 heads over 2 KV heads, the keys of one of which are ``factor`` times as large."""
    write_random_llama(directory)
    file = directory / "model.safetensors"
    tensors = load_file(file)
    tensors[f"model.layers.{layer}.self_attn.k_proj.weight"].view(2, -1, 64)[kv_head] *= factor
    save_file(tensors, file, metadata={"format": "pt"})
    return directory
