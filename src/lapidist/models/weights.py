"""Reads the tensors of a safetensors checkpoint, checking each, with one tensor in memory at most."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lapidist.models.config_fields import ConfigFields
from lapidist.models.errors import CheckpointError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# A tensor's name and the shape that it must have.
Part = tuple[str, tuple[int, ...]]

_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Old checkpoints carry this table, which every program recomputes.
_HARMLESS = "rotary_emb.inv_freq"

_log = logging.getLogger(__name__)


class WeightFiles:
    """The tensors of a checkpoint directory, in one file or in shards.

    Raises
    ------
    CheckpointError : there are no safetensors files, a shard is missing, or a file is truncated or corrupt.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: set[str] = set()
        self._files = self._locate()

    @property
    def files(self) -> Mapping[str, Path]:
        """Which file holds each tensor."""
        return self._files

    def mapped(self, part: Part) -> Tensor:
        """The tensor as it lies in its file, mapped: a page of it takes memory while it is in use.

        Raises
        ------
        CheckpointError : it is missing, has another shape, is not of floats, or holds NaN or infinity.
        """
        name, shape = part
        file = self._file(name)
        tensor = self._tensor(name)
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{file}: {name} has shape {list(tensor.shape)} where config.json asks for {list(shape)}: "
                "the two do not belong together"
            )
        if tensor.dtype not in _FLOATS:
            raise CheckpointError(
                f"{file}: {name} has the unsupported dtype {_name(tensor.dtype)}: "
                "convert the checkpoint to bfloat16, float16 or float32"
            )
        if not is_finite(tensor):
            raise CheckpointError(
                f"{file}: {name} contains NaN or infinity: the file is damaged, download it again"
            )
        self._read.add(name)
        # A new mapping, for the check has pulled all pages into the old one.
        return self._tensor(name)

    def exact(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor that must be of this very shape and dtype, mapped.

        Raises
        ------
        CheckpointError : it is missing, is another, or holds NaN or infinity.
        """
        file = self._file(name)
        tensor = self._tensor(name)
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise CheckpointError(
                f"{file}: {name} is {_name(tensor.dtype)} {list(tensor.shape)} where {_name(dtype)} {list(shape)} "
                "is expected: the checkpoint is damaged or of another format"
            )
        if dtype.is_floating_point and not is_finite(tensor):
            raise CheckpointError(
                f"{file}: {name} contains NaN or infinity: the file is damaged, download it again"
            )
        self._read.add(name)
        return tensor

    def stacked(self, parts: list[Part], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A copy of one or several tensors, stacked along the first dimension, in ``dtype``.

        Raises
        ------
        CheckpointError : as in ``mapped``, or a value does not fit into ``dtype``.
        """
        rows = sum(shape[0] for _, shape in parts)
        stacked = torch.empty(rows, *parts[0][1][1:], dtype=dtype, device=device)
        for (name, shape), target in zip(parts, stacked.split([shape[0] for _, shape in parts]), strict=True):
            source = self.mapped((name, shape))
            target.copy_(source)
            if source.dtype != dtype and not is_finite(target):
                raise CheckpointError(
                    f"{self._files[name]}: {name} has values too large for {_name(dtype)}: "
                    "load the model with dtype bfloat16 or float32"
                )
        return stacked

    def _file(self, name: str) -> Path:
        if name not in self._files:
            raise CheckpointError(f"{self._directory} has no tensor {name}: the checkpoint is incomplete")
        return self._files[name]

    def _locate(self) -> dict[str, Path]:
        if (self._directory / INDEX_FILE).exists():
            return _indexed(self._directory)
        file = _single_file(self._directory)
        return dict.fromkeys(_keys(file), file)

    def _tensor(self, name: str) -> Tensor:
        return _tensor(self._files[name], name)

    def warn_of_unread(self, expected: Collection[str] = ()) -> None:
        """Log that there are tensors, ``expected`` ones apart, that nobody read: something may be amiss."""
        unread = self.strangers(self._read | set(expected))
        if unread:
            _log.warning(
                "%s: %d tensors are not used, among them %s", self._directory, len(unread), unread[0]
            )

    def strangers(self, known: Collection[str]) -> list[str]:
        """Tensors that are not ``known``, in order, but for tables that every program recomputes."""
        return sorted(name for name in self._files.keys() - set(known) if _HARMLESS not in name)


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinity."""
    # The extremes are NaN if any value is; finding them is a dozen times faster than isfinite on all.
    return values.numel() == 0 or bool(torch.stack(values.aminmax()).isfinite().all())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _single_file(directory: Path) -> Path:
    file = directory / SINGLE_FILE
    if file.exists():
        return file
    others = sorted(directory.glob("pytorch_model*.bin"))
    if others:
        raise CheckpointError(
            f"{directory} has {others[0].name} but no {SINGLE_FILE}: convert the weights to safetensors, "
            "for instance with transformers' save_pretrained"
        )
    raise CheckpointError(f"{directory} has neither {SINGLE_FILE} nor {INDEX_FILE}: the weights are missing")


def _indexed(directory: Path) -> dict[str, Path]:
    """Which file holds each tensor; every file named must be there and hold what the index says."""
    index = ConfigFields.read(directory / INDEX_FILE)
    names = index.section("weight_map").strings()
    if not names:
        raise index.error("weight_map", "is missing or empty: download the file again")
    present = {shard: _keys(_shard(directory, index, shard)) for shard in sorted(set(names.values()))}
    for name, shard in names.items():
        if name not in present[shard]:
            raise CheckpointError(
                f"{directory / shard} has no tensor {name}, but {INDEX_FILE} says it has: download both again"
            )
    return {name: directory / shard for name, shard in names.items()}


def _shard(directory: Path, index: ConfigFields, shard: str) -> Path:
    if Path(shard).name != shard:
        raise index.error("weight_map", f"names {shard!r}, which is not a file of this directory")
    if not (directory / shard).is_file():
        raise CheckpointError(
            f"{directory / shard} is missing, but {INDEX_FILE} names it: download the shard"
        )
    return directory / shard


def _keys(file: Path) -> set[str]:
    try:
        with safe_open(file, "pt") as opened:
            return set(opened.keys())
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from None


def _tensor(file: Path, name: str) -> Tensor:
    # Opened anew for each tensor: pages that were read stay with the process as long as the file is open.
    try:
        with safe_open(file, "pt") as opened:
            return opened.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{file} is truncated or not a safetensors file ({error}): download it again")
