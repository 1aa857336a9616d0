"""A checkpoint in the making: a hidden directory that appears under its name when it is complete, and that a run which
was stopped goes on with."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lapidist.models.calibration.checkpoint_files import check_new
from lapidist.models.config import CONFIG_FILE
from lapidist.models.errors import CheckpointError
from lapidist.models.json_file import write_json
from lapidist.models.new_checkpoint import copy_companions
from lapidist.models.weights import INDEX_FILE

_STATE = "hidden_states.resume"


def fingerprint(source: Path, *ingredients: str | bytes) -> str:
    """Of everything that the result depends on: what is cut, and how."""
    digest = hashlib.sha256()
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.name.startswith("."):
            status = file.stat()
            digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    for ingredient in ingredients:
        digest.update(ingredient if isinstance(ingredient, bytes) else ingredient.encode())
    return digest.hexdigest()


class UnfinishedCheckpoint:
    """Files of a quantized checkpoint, one shard for each layer and one for the rest.

    Parameters
    ----------
    identity : of ``fingerprint``; what another run left behind counts only if it is the same.

    Raises
    ------
    CheckpointError : ``out`` exists, or cannot be written.
    """

    def __init__(self, out: Path, num_shards: int, identity: str) -> None:
        check_new(out)
        self._out = out
        self._directory = out.with_name(f".{out.name}.unfinished")
        self._num_shards = num_shards
        self._identity = identity

    def resume(self) -> tuple[int, Tensor | None]:
        """How many layers are done, and the hidden states that the next one gets; (0, None) from the start."""
        state = self._directory / _STATE
        try:
            with safe_open(state, "pt") as file:
                metadata = file.metadata() or {}
                done = int(metadata.get("layers", 0))
                if metadata.get("identity") == self._identity and self._has(range(done)):
                    return done, file.get_tensor("hidden").clone()
        except (SafetensorError, OSError):
            pass  # none, or one that the end of the run cut off
        shutil.rmtree(self._directory, ignore_errors=True)
        try:
            self._directory.mkdir()
        except OSError as error:
            raise self._unwritable(error) from None
        return 0, None

    def write_shard(self, index: int, tensors: dict[str, Tensor]) -> None:
        """One of the checkpoint's files."""
        contents = {name: tensor.contiguous() for name, tensor in tensors.items()}
        self._save(self._directory / self._shard_name(index), contents, {"format": "pt"})

    def keep(self, layers_done: int, hidden: Tensor) -> None:
        """Where a stopped run goes on."""
        metadata = {"identity": self._identity, "layers": str(layers_done)}
        self._save(self._directory / _STATE, {"hidden": hidden}, metadata)

    def finish(self, source: Path, config: dict[str, Any]) -> None:
        """Add what is not weights and give the directory its name."""
        index: dict[str, str] = {}
        total = 0
        for number in range(self._num_shards):
            name = self._shard_name(number)
            with safe_open(self._directory / name, "pt") as file:
                index |= dict.fromkeys(file.keys(), name)
            total += (self._directory / name).stat().st_size
        try:
            write_json(self._directory / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": index})
            write_json(self._directory / CONFIG_FILE, config)
            copy_companions(source, self._directory)
            (self._directory / _STATE).unlink(missing_ok=True)
            os.rename(self._directory, self._out)
        except OSError as error:
            raise self._unwritable(error) from None

    def _has(self, shards: range) -> bool:
        return all((self._directory / self._shard_name(index)).is_file() for index in shards)

    def _shard_name(self, index: int) -> str:
        return f"model-{index + 1:05d}-of-{self._num_shards:05d}.safetensors"

    def _save(self, file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        temporary = file.with_name(f"{file.name}.tmp")
        try:
            save_file(tensors, temporary, metadata)
            os.replace(temporary, file)
        except (OSError, SafetensorError) as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: Exception) -> CheckpointError:
        reason = error.strerror if isinstance(error, OSError) else error
        return CheckpointError(f"{self._out}: cannot be written ({reason})")
