"""Checkpoints of random weights: the speed of a public shape without its weights."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from lapidist.models.checkpoint_tensors import TensorSpec, checkpoint_tensors
from lapidist.models.errors import CheckpointError
from lapidist.models.json_file import write_json
from lapidist.models.random_tokenizer import byte_tokenizer, special_tokens, tokenizer_config
from lapidist.models.safetensors_shards import assign_shards, write_shards

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_BLOCK_ELEMENTS = 1 << 24  # generated in float32 at a time


def write_random_checkpoint(
    config: dict[str, Any],
    out_dir: Path,
    *,
    seed: int = 0,
    dtype: str = "bfloat16",
    max_shard_bytes: int = 5_000_000_000,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda written_bytes, total_bytes: None,
) -> int:
    """Write a Hugging Face directory with the shape of ``config`` and random weights.

    Weights are normal with standard deviation 1/sqrt(inputs), so that activations keep their size from layer
    to layer; norms lie around their neutral value. A tensor depends on ``seed``, its name and its shape, not
    on the sharding, and every dtype rounds the same values. Tensors are made and written in blocks, so memory
    stays small for any size. The directory appears complete or not at all.

    Parameters
    ----------
    config : a ``config.json``, see :mod:`lapidist.models.shapes`.
    dtype : bfloat16, float16 or float32.
    max_shard_bytes : tensors of one file, unless a single one is larger.
    force : replace ``out_dir`` if it is a checkpoint (has a ``config.json``).
    progress : called with the bytes written so far and in all.

    Returns
    -------
    Bytes of all tensors.

    Raises
    ------
    CheckpointError : ``dtype`` is unknown, ``out_dir`` exists, its folder does not, or the disk is too full.
    """
    if dtype not in DTYPES:
        raise CheckpointError(f"unknown dtype {dtype!r}; known are {', '.join(DTYPES)}")
    config = config | {"torch_dtype": dtype}
    shards = assign_shards(list(checkpoint_tensors(config)), DTYPES[dtype], max_shard_bytes)
    total_bytes = sum(shard.byte_count for shard in shards)
    _check_destination(out_dir, total_bytes, force)
    temporary = out_dir.with_name(f".{out_dir.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        written_bytes = 0
        for block_bytes in write_shards(temporary, shards, _weights(config, seed)):
            written_bytes += block_bytes
            progress(written_bytes, total_bytes)
        _write_metadata(temporary, config)
        _move_into_place(temporary, out_dir)
    except OSError as error:
        raise CheckpointError(f"{out_dir}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return total_bytes


def _weights(config: dict[str, Any], seed: int) -> Callable[[TensorSpec], Iterator[torch.Tensor]]:
    """A function from a tensor to its values in order, in float32 and in blocks."""
    neutral_norm = 0.0 if config["model_type"] == "gemma2" else 1.0  # Gemma scales by 1 + weight

    def blocks(tensor: TensorSpec) -> Iterator[torch.Tensor]:
        digest = hashlib.sha256(f"{seed}/{tensor.name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        deviation = tensor.shape[-1] ** -0.5 if tensor.kind == "weight" else 0.1
        mean = neutral_norm if tensor.kind == "norm" else 0.0
        for start in range(0, tensor.elements, _BLOCK_ELEMENTS):
            count = min(_BLOCK_ELEMENTS, tensor.elements - start)
            yield torch.randn(count, generator=generator).mul_(deviation).add_(mean)

    return blocks


def _write_metadata(folder: Path, config: dict[str, Any]) -> None:
    specials = special_tokens(config)
    write_json(folder / "config.json", config)
    write_json(
        folder / "generation_config.json",
        {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in config},
    )
    write_json(folder / "tokenizer_config.json", tokenizer_config(config))
    byte_tokenizer(config["vocab_size"], specials).save(str(folder / "tokenizer.json"))


def _check_destination(out_dir: Path, total_bytes: int, force: bool) -> None:
    if out_dir.exists():
        if not force:
            raise CheckpointError(
                f"{out_dir}: exists already; choose another name or pass --force to replace it"
            )
        if not (out_dir / "config.json").is_file():
            raise CheckpointError(
                f"{out_dir}: is no checkpoint (it has no config.json) and will not be replaced"
            )
    if not out_dir.parent.is_dir():
        raise CheckpointError(f"{out_dir}: the folder {out_dir.parent} does not exist")
    free_bytes = shutil.disk_usage(out_dir.parent).free
    if free_bytes < total_bytes:
        raise CheckpointError(
            f"{out_dir}: needs {total_bytes / 1e9:.1f} GB, but its disk has {free_bytes / 1e9:.1f} GB left"
        )


def _move_into_place(temporary: Path, out_dir: Path) -> None:
    replaced = out_dir.with_name(f"{temporary.name}.old")
    if out_dir.exists():
        os.rename(out_dir, replaced)
    os.rename(temporary, out_dir)
    shutil.rmtree(replaced, ignore_errors=True)
