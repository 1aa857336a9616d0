"""Write a Llama checkpoint (Hugging Face directory) as a bf16 GGUF file for llama.cpp.

    python -m benchmarks.peers.write_gguf CHECKPOINT OUT.gguf

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Matrices are bf16 and norms fp32, as in the
files of llama.cpp's own converter.
"""

import argparse
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors import safe_open
from tokenizers import Tokenizer

_TOP = {
    "model.embed_tokens": gguf.MODEL_TENSOR.TOKEN_EMBD,
    "model.norm": gguf.MODEL_TENSOR.OUTPUT_NORM,
    "lm_head": gguf.MODEL_TENSOR.OUTPUT,
}
_LAYER = {
    "input_layernorm": gguf.MODEL_TENSOR.ATTN_NORM,
    "self_attn.q_proj": gguf.MODEL_TENSOR.ATTN_Q,
    "self_attn.k_proj": gguf.MODEL_TENSOR.ATTN_K,
    "self_attn.v_proj": gguf.MODEL_TENSOR.ATTN_V,
    "self_attn.o_proj": gguf.MODEL_TENSOR.ATTN_OUT,
    "post_attention_layernorm": gguf.MODEL_TENSOR.FFN_NORM,
    "mlp.gate_proj": gguf.MODEL_TENSOR.FFN_GATE,
    "mlp.up_proj": gguf.MODEL_TENSOR.FFN_UP,
    "mlp.down_proj": gguf.MODEL_TENSOR.FFN_DOWN,
}


def write_gguf(checkpoint: Path, out: Path) -> None:
    """Convert ``checkpoint``; one tensor is in memory at a time and ``out`` appears complete or not at all.

    Raises
    ------
    ValueError : the checkpoint is no Llama, or scales RoPE in a way other than Llama 3.1's.
    """
    config = json.loads((checkpoint / "config.json").read_text())
    if config["model_type"] != "llama":
        raise ValueError(
            f"{checkpoint}: model_type is {config['model_type']!r}, and only llama can be written"
        )
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    writer = gguf.GGUFWriter(temporary, "llama")
    try:
        _add_hyperparameters(writer, config)
        _add_tokenizer(writer, checkpoint, config)
        files = sorted(checkpoint.glob("*.safetensors"))
        # Two passes, because the header with every shape stands before the data.
        for name, array in _tensors(files, config):
            kind = gguf.GGMLQuantizationType.BF16 if array.dtype == np.uint8 else None
            writer.add_tensor_info(name, array.shape, array.dtype, array.nbytes, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, array in _tensors(files, config):
            writer.write_tensor_data(array)
        writer.close()
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def _add_hyperparameters(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    head_dim = _head_dim(config)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(_rope(config)["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _add_tokenizer(writer: gguf.GGUFWriter, checkpoint: Path, config: dict[str, Any]) -> None:
    """The byte-level BPE vocabulary of ``tokenizer.json``; ids beyond it are marked unused."""
    path = checkpoint / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    texts, kinds = [], []
    for token in range(config["vocab_size"]):
        text = tokenizer.id_to_token(token)
        texts.append(text if text is not None else f"[unused{token}]")
        known = gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL
        kinds.append(known if text is not None else gguf.TokenType.UNUSED)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in _merges(path)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    # llama.cpp insists on merges; this one leads to no token and therefore changes nothing.
    writer.add_token_merges(merges or ["Ā Ā"])
    writer.add_bos_token_id(config["bos_token_id"])
    eos = config["eos_token_id"]
    writer.add_eos_token_id(eos[0] if isinstance(eos, list) else eos)


def _merges(path: Path) -> list[Any]:
    return json.loads(path.read_text(encoding="utf-8"))["model"]["merges"]


def _tensors(files: list[Path], config: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """GGUF names and data; bf16 as raw bytes in ``uint8``, because NumPy has no such type."""
    factors = _rope_factors(config)
    if factors is not None:
        yield gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.ROPE_FREQS] + ".weight", factors
    for file in files:
        with safe_open(file, "pt") as shard:
            for name in shard.keys():  # noqa: SIM118 (a safetensors file is no dict)
                yield _gguf_name(name), _gguf_data(name, shard.get_tensor(name), config)


def _gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _TOP:
        return gguf.TENSOR_NAMES[_TOP[stem]] + ".weight"
    layer, _, part = stem.removeprefix("model.layers.").partition(".")
    return gguf.TENSOR_NAMES[_LAYER[part]].format(bid=layer) + ".weight"


def _gguf_data(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> np.ndarray:
    if tensor.dim() == 1:
        return tensor.float().numpy()
    if name.endswith("q_proj.weight"):
        tensor = _interleave_rotary_halves(tensor, config["num_attention_heads"])
    elif name.endswith("k_proj.weight"):
        tensor = _interleave_rotary_halves(tensor, config["num_key_value_heads"])
    return tensor.to(torch.bfloat16).contiguous().view(torch.uint8).numpy()


def _interleave_rotary_halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder rows so that the two channels of a rotary pair, half a head apart in Hugging Face's layout, are
    neighbours, as llama.cpp rotates them."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def _head_dim(config: dict[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """RoPE parameters of either spelling of ``config.json``."""
    return {"rope_theta": config.get("rope_theta", 10000.0)} | (
        config.get("rope_parameters") or config.get("rope_scaling") or {}
    )


def _rope_factors(config: dict[str, Any]) -> np.ndarray | None:
    """Llama 3.1's scaling as divisors of each frequency (Meta, arXiv 2407.21783, section 3.4.1)."""
    rope = _rope(config)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise ValueError(f"RoPE scaling of type {kind!r} cannot be written, only llama3")
    head_dim, original = _head_dim(config), rope["original_max_position_embeddings"]
    frequencies = rope["rope_theta"] ** -(np.arange(0, head_dim, 2) / head_dim)
    wavelengths = 2 * math.pi / frequencies
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((original / wavelengths - low) / (high - low), 0.0, 1.0)
    return (1 / (smooth + (1 - smooth) / rope["factor"])).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    write_gguf(args.checkpoint, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
