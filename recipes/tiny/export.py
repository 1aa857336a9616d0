"""Write a checkpoint as a Hugging Face directory: `python -m recipes.tiny.export --run RUN OUT`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import Tokenizer
from torch import Tensor

from recipes.tiny.model import ModelConfig, TinyLlama
from recipes.tiny.run_state import BEST
from recipes.tiny.tokenizer import BOS, END, EOS, PAD, save_tokenizer

RUNS = Path(__file__).parent / "runs"


def hugging_face_tensors(model: TinyLlama, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """The weights under Llama's names, fused projections split; the tied output matrix is left out."""
    config = model.config
    tensors = {
        "model.embed_tokens.weight": model.embedding.weight,
        "model.norm.weight": model.final_norm.weight,
    }
    query, key_value = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    for index, block in enumerate(model.layers):
        prefix = f"model.layers.{index}."
        q, k, v = block.qkv.weight.split([query, key_value, key_value])
        gate, up = block.gate_up.weight.chunk(2)
        tensors |= {
            prefix + "input_layernorm.weight": block.attention_norm.weight,
            prefix + "self_attn.q_proj.weight": q,
            prefix + "self_attn.k_proj.weight": k,
            prefix + "self_attn.v_proj.weight": v,
            prefix + "self_attn.o_proj.weight": block.out.weight,
            prefix + "post_attention_layernorm.weight": block.mlp_norm.weight,
            prefix + "mlp.gate_proj.weight": gate,
            prefix + "mlp.up_proj.weight": up,
            prefix + "mlp.down_proj.weight": block.down.weight,
        }
    return {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in tensors.items()}


def hugging_face_config(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What `config.json` holds."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.token_to_id(BOS),
        "eos_token_id": tokenizer.token_to_id(EOS),
        "pad_token_id": tokenizer.token_to_id(PAD),
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """What `generation_config.json` holds: a text ends at <|eos|>, a chat turn at <|end|>."""
    return {
        "bos_token_id": tokenizer.token_to_id(BOS),
        "eos_token_id": [tokenizer.token_to_id(EOS), tokenizer.token_to_id(END)],
        "pad_token_id": tokenizer.token_to_id(PAD),
        "do_sample": False,
    }


def export(model: TinyLlama, tokenizer: Tokenizer, out: Path) -> None:
    """Write config, weights (bf16) and tokenizer files into `out`, each complete or not at all."""
    save_tokenizer(tokenizer, out, model.config.max_positions)
    contents = {
        "config.json": as_json(hugging_face_config(model.config, tokenizer)),
        "generation_config.json": as_json(generation_config(tokenizer)),
        "model.safetensors": save(hugging_face_tensors(model), metadata={"format": "pt"}),
    }
    for name, content in contents.items():
        temporary = out / f".{name}.tmp"
        temporary.write_bytes(content)
        os.replace(temporary, out / name)


def as_json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def load_run(run: Path) -> tuple[TinyLlama, Tokenizer]:
    """The model and tokenizer of a run's best checkpoint by unseen text, else of its last."""
    checkpoint = run / BEST
    if not checkpoint.is_file():
        checkpoint = run / "checkpoint.pt"
    if not checkpoint.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {checkpoint}; train one with python -m recipes.tiny.train --run {run}"
        )
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    names = {field.name for field in fields(ModelConfig)}
    model = TinyLlama(ModelConfig(**{key: value for key, value in content["config"].items() if key in names}))
    model.load_state_dict(content["model"])
    return model, Tokenizer.from_file(str(run / "tokenizer.json"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m recipes.tiny.export", description="Export a run's best checkpoint, else its last."
    )
    parser.add_argument("out", type=Path, help="directory to write")
    parser.add_argument(
        "--run", type=Path, default=RUNS / "bundled", help="folder of the run (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    try:
        model, tokenizer = load_run(given.run)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    export(model, tokenizer, given.out)
    print(f"wrote {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
