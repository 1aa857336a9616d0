"""A checkpoint of QServe or OmniServe as one of ours: the same integers, in another order."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lapidist.kernels.quantized_weight import GROUP_SIZE, QuantizedWeight
from lapidist.models.checkpoint_tensors import LM_HEAD, TensorSpec, model_tensors, stored_format
from lapidist.models.config import CONFIG_FILE, ModelConfig
from lapidist.models.config_fields import ConfigFields
from lapidist.models.errors import CheckpointError
from lapidist.models.json_file import read_json_object, write_json
from lapidist.models.new_checkpoint import copy_companions, new_checkpoint
from lapidist.models.pickled_weights import PickledWeightFiles
from lapidist.models.quantization_config import QuantizationConfig, WeightFormat, quantization_section
from lapidist.models.quantized_tensors import tensors_of
from lapidist.models.safetensors_shards import shard_file_name
from lapidist.models.weights import INDEX_FILE, WeightFiles
from lapidist.quantization.qserve_layout import BLOCK, from_channels, from_groups

_FIRST = "model.layers.0.self_attn.q_proj"


def import_qserve(
    source: Path,
    out: Path,
    kv_bits: int = 4,
    progress: Callable[[int, int], None] = lambda written_files, all_files: None,
) -> QuantizationConfig:
    """Write a QServe checkpoint in our format.

    What QServe and deepcompressor write (mit-han-lab/omniserve, mit-han-lab/deepcompressor) is a Hugging Face directory
    with the ``config.json`` of the original. Each projection, none of which are fused, has ``qweight`` and
    ``s1_scales``, and ``s1_szeros`` or else ``s2_scales`` and ``s2_zeros``; embedding, head and biases are floats.
    QServe takes norm weights to be 1, as rotation leaves them: those that are missing are 1, others are taken over.

    Parameters
    ----------
    source : directory with safetensors files, else with ``.bin`` or ``.pt`` files.
    out : directory that is made; it appears complete or not at all.
    kv_bits : of keys and values, which QServe's files do not tell: 4, 8 or 16.
    progress : called with the files written so far and in all, one for each layer and one for each end.

    Raises
    ------
    CheckpointError : ``source`` is no such checkpoint or cannot be used, or ``out`` exists or cannot be written.
    ValueError : a weight has a value that our format cannot hold.
    """
    if kv_bits not in (4, 8, 16):
        raise ValueError(f"kv_bits must be 4, 8 or 16, got {kv_bits}")
    raw = read_json_object(source / CONFIG_FILE)
    files = WeightFiles(source) if any(source.glob("*.safetensors")) else PickledWeightFiles(source)
    formats = _formats(source, files, kv_bits)
    raw = _config_file(raw, formats, has_head=LM_HEAD in files.files)
    config = ModelConfig.from_fields(ConfigFields(source / CONFIG_FILE, raw))
    _refuse_strangers(source, files, config)
    with new_checkpoint(out) as folder:
        _write_shards(folder, _shards(files, config), config.num_layers + 2, progress)
        write_json(folder / CONFIG_FILE, raw)
        copy_companions(source, folder)
    return formats


def _formats(source: Path, files: WeightFiles, kv_bits: int) -> QuantizationConfig:
    """What QServe's command line has to be told, as the tensors tell it."""
    if f"{_FIRST}.s2_scales" in files.files:
        return QuantizationConfig(
            "qserve-g128", WeightFormat(4, GROUP_SIZE), activation_bits=8, kv_bits=kv_bits
        )
    if f"{_FIRST}.s1_szeros" in files.files:
        return QuantizationConfig("qserve-channel", WeightFormat(4), activation_bits=8, kv_bits=kv_bits)
    if f"{_FIRST}.dequant_scale" in files.files:
        raise CheckpointError(f"{source} has QServe's 8-bit weights: only those of 4 bits are imported")
    raise CheckpointError(
        f"{source} has neither {_FIRST}.s2_scales nor {_FIRST}.s1_szeros: it is no checkpoint of QServe"
    )


def _config_file(raw: dict[str, Any], formats: QuantizationConfig, has_head: bool) -> dict[str, Any]:
    """The original's ``config.json`` with what QServe's tensors are."""
    raw = {key: value for key, value in raw.items() if key != "dtype"}
    changes = {"torch_dtype": "float16", "quantization_config": quantization_section(formats)}
    # Rotation gives the head other numbers than the embedding has.
    return raw | changes | ({"tie_word_embeddings": False} if has_head else {})


def _refuse_strangers(source: Path, files: WeightFiles, config: ModelConfig) -> None:
    """A bias, say, that the model does not have in ``config.json`` would be lost without a word."""
    strangers = files.strangers(
        {name for spec in model_tensors(config) for name in (_layout(config, spec) or [spec.name])}
    )
    if strangers:
        raise CheckpointError(
            f"{source} has a tensor {strangers[0]}, which the model in its {CONFIG_FILE} does not have: "
            "the two do not belong together"
        )


def _shards(files: WeightFiles, config: ModelConfig) -> Iterator[dict[str, Tensor]]:
    """Tensors by their names: the embedding, each layer, and what follows the layers."""
    for _, specs in groupby(model_tensors(config), key=_layer):
        tensors: dict[str, Tensor] = {}
        for spec in specs:
            tensors |= _tensors(files, config, spec)
        yield tensors


def _layer(spec: TensorSpec) -> str:
    return spec.name.split(".")[2] if ".layers." in spec.name else ""


def _tensors(files: WeightFiles, config: ModelConfig, spec: TensorSpec) -> dict[str, Tensor]:
    if layout := _layout(config, spec):
        parts = [files.exact(name, shape, dtype) for name, (shape, dtype) in layout.items()]
        return tensors_of(spec.name.removesuffix(".weight"), _weight(spec, parts))
    if spec.kind == "norm" and spec.name not in files.files:
        return {spec.name: torch.ones(spec.shape, dtype=torch.float16)}
    return {spec.name: files.mapped((spec.name, spec.shape))}


def _weight(spec: TensorSpec, parts: list[Tensor]) -> QuantizedWeight:
    try:
        return from_channels(*parts) if len(parts) == 3 else from_groups(*parts)
    except ValueError as error:
        raise ValueError(f"{spec.name}: {error}") from None


def _layout(config: ModelConfig, spec: TensorSpec) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of QServe's tensors for a matrix, by their names; none where it is of floats."""
    format = stored_format(config, spec)
    if format.is_float:
        return {}
    rows, columns = spec.shape
    multiple = format.group_size or BLOCK
    if rows % BLOCK or columns % multiple:
        raise CheckpointError(
            f"{spec.name} is {list(spec.shape)} by {CONFIG_FILE}, which QServe's layout cannot hold: "
            f"rows must be a multiple of {BLOCK} and columns of {multiple}"
        )
    prefix = spec.name.removesuffix("weight")
    layout = {"qweight": ((rows, columns // 2), torch.int8), "s1_scales": ((rows,), torch.float16)}
    if format.group_size is None:
        layout |= {"s1_szeros": ((rows,), torch.float16)}
    else:
        groups = (columns // format.group_size, rows)
        layout |= {"s2_scales": (groups, torch.int8), "s2_zeros": (groups, torch.int8)}
    return {f"{prefix}{part}": what for part, what in layout.items()}


def _write_shards(
    folder: Path, shards: Iterable[dict[str, Tensor]], count: int, progress: Callable[[int, int], None]
) -> None:
    weight_map: dict[str, str] = {}
    total_bytes = 0
    for number, tensors in enumerate(shards, start=1):
        name = shard_file_name(number, count)
        # A file of PyTorch may hold one storage under two names, which safetensors refuses.
        contents = {
            key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()
        }
        save_file(contents, folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
        total_bytes += sum(tensor.nbytes for tensor in tensors.values())
        progress(number, count)
    write_json(folder / INDEX_FILE, {"metadata": {"total_size": total_bytes}, "weight_map": weight_map})
