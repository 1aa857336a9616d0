"""What the bytes of a checkpoint are spent on. No tensor is read: the headers of its files tell."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.models.checkpoint_tensors import EMBEDDING, LM_HEAD, TensorSpec, model_tensors, stored_format
from lapidist.models.config import ModelConfig
from lapidist.models.errors import CheckpointError
from lapidist.models.quantization_config import FLOAT_BITS, QuantizationConfig
from lapidist.models.quantized_tensors import tensor_specs
from lapidist.models.safetensors_header import DTYPE_NAMES, TensorHeader, read_header
from lapidist.models.weights import WeightFiles

Part = Literal["weights", "scales_and_zeros", "embedding", "lm_head", "norms", "biases", "other"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class CheckpointParts:
    """Sizes of a checkpoint's tensors.

    Attributes
    ----------
    byte_counts : by part. ``weights`` are the layers' matrices, or their codes where they are quantized,
        ``scales_and_zeros`` what turns the codes into numbers, ``lm_head`` all tensors of an output head of its own,
        ``other`` tensors that the model does not use.
    num_weights : elements of the layers' matrices.
    """

    config: ModelConfig
    byte_counts: dict[Part, int]
    num_weights: int

    @property
    def total(self) -> int:
        return sum(self.byte_counts.values())

    @property
    def bits_per_weight(self) -> float:
        """Of the layers' matrices, scales and zeros included."""
        return 8 * (self.byte_counts["weights"] + self.byte_counts["scales_and_zeros"]) / self.num_weights

    @property
    def quantization(self) -> QuantizationConfig:
        """The checkpoint's, or that of floats."""
        return self.config.quantization or QuantizationConfig("none")

    @property
    def kv_bytes_per_token(self) -> int:
        """Of all layers, as the checkpoint asks for."""
        return kv_bytes_per_token(self.config, self.quantization.kv_bits)

    @property
    def float_kv_bytes_per_token(self) -> int:
        """Of all layers, not quantized."""
        return kv_bytes_per_token(self.config, FLOAT_BITS)


def checkpoint_parts(directory: Path) -> CheckpointParts:
    """Weigh the parts of a checkpoint.

    Raises
    ------
    CheckpointError : the checkpoint cannot be used: a file or a tensor is missing, or does not fit ``config.json``.
    """
    config = ModelConfig.from_directory(directory)
    headers = _headers(directory)
    byte_counts: dict[Part, int] = dict.fromkeys(PARTS, 0)
    for stored in _stored_tensors(config):
        header = headers.pop(stored.name, None)
        if header is None:
            raise CheckpointError(f"{directory} has no tensor {stored.name}: the checkpoint is incomplete")
        _check(directory, stored, header)
        byte_counts[stored.part] += header.byte_count
    byte_counts["other"] = sum(header.byte_count for header in headers.values())
    num_weights = sum(spec.elements for spec in model_tensors(config) if _part(spec) == "weights")
    return CheckpointParts(config, byte_counts, num_weights)


def kv_bytes_per_token(config: ModelConfig, bits: int) -> int:
    """Keys and values of one token in all layers."""
    return PagedKVCache.bytes_per_page(
        config.num_layers, 1, config.num_kv_heads, config.head_dim, config.dtype, bits
    )


@dataclass(frozen=True)
class _StoredTensor:
    """A tensor of the file. ``dtype`` is None where any floats will do."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype | None
    part: Part


def _stored_tensors(config: ModelConfig) -> Iterator[_StoredTensor]:
    for spec in model_tensors(config):
        part, format = _part(spec), stored_format(config, spec)
        if format.is_float:
            yield _StoredTensor(spec.name, spec.shape, None, part)
            continue
        rows, columns = spec.shape
        for ending, (shape, dtype) in tensor_specs(format, rows, columns).items():
            name = f"{spec.name.removesuffix('weight')}{ending}"
            is_parameter = part == "weights" and ending != "qweight"
            yield _StoredTensor(name, shape, dtype, "scales_and_zeros" if is_parameter else part)


def _part(spec: TensorSpec) -> Part:
    ends: dict[str, Part] = {EMBEDDING: "embedding", LM_HEAD: "lm_head"}
    kinds: dict[str, Part] = {"weight": "weights", "norm": "norms", "bias": "biases"}
    return ends.get(spec.name) or kinds[spec.kind]


def _headers(directory: Path) -> dict[str, TensorHeader]:
    files = WeightFiles(directory).files
    headers = {file: read_header(file) for file in set(files.values())}
    return {name: headers[file][name] for name, file in files.items()}


def _check(directory: Path, stored: _StoredTensor, header: TensorHeader) -> None:
    is_right = (
        header.dtype.startswith(("F", "BF"))
        if stored.dtype is None
        else (header.dtype == DTYPE_NAMES[stored.dtype])
    )
    if header.shape != stored.shape or not is_right:
        dtype = "floats" if stored.dtype is None else DTYPE_NAMES[stored.dtype]
        raise CheckpointError(
            f"{directory}: {stored.name} is {header.dtype} {list(header.shape)} where config.json asks for "
            f"{dtype} {list(stored.shape)}: the two do not belong together"
        )
