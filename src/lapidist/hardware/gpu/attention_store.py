"""The file of fitted attention models: packed trees and one JSON of laws, one folder per GPU and backend."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapidist.hardware.gpu.attention_phase import FittedPhase
from lapidist.hardware.gpu.model_archive import read_archive, write_archive

BUNDLED = Path(__file__).parent / "fitted" / "attention.zip"
_LISTING = "models.json"


@dataclass(frozen=True, order=True)
class ModelKey:
    """Whose kernels: ``gpu`` as its data sheet names it."""

    gpu: str
    backend: str
    version: str


@dataclass(frozen=True)
class FittedAttention:
    """Both phases of one GPU and backend; a phase that was not measured is None."""

    prefill: FittedPhase | None
    decode: FittedPhase | None


def write_attention_models(path: Path, models: Mapping[ModelKey, FittedAttention]) -> None:
    """The file appears whole or not at all.

    Raises
    ------
    ValueError : the folder cannot be written to.
    """
    laws: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    for key in sorted(models):
        for phase in (models[key].prefill, models[key].decode):
            if phase is not None:
                laws.append({**vars(key), "law": phase.to_law()})
                files |= {_entry(key, phase.phase, name): trees for name, trees in phase.to_trees().items()}
    write_archive(path, {_LISTING: json.dumps(laws).encode(), **files})


class AttentionModels:
    """A file of models; one is unpacked when it is asked for.

    Raises
    ------
    ValueError : the file cannot be read or is none of models.
    """

    def __init__(self, path: Path = BUNDLED) -> None:
        self._files = read_archive(path)
        self._laws: dict[ModelKey, dict[str, Any]] = {}
        self._loaded: dict[ModelKey, FittedAttention] = {}
        try:
            for entry in json.loads(self._files[_LISTING]):
                key = ModelKey(entry["gpu"], entry["backend"], entry["version"])
                self._laws.setdefault(key, {})[entry["law"]["phase"]] = entry["law"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a file of fitted attention models ({error})") from None

    def known(self) -> list[ModelKey]:
        return sorted(self._laws)

    def load(self, key: ModelKey) -> FittedAttention:
        if key not in self._loaded:
            phases = {phase: self._phase(key, phase) for phase in self._laws[key]}
            self._loaded[key] = FittedAttention(phases.get("prefill"), phases.get("decode"))
        return self._loaded[key]

    def _phase(self, key: ModelKey, phase: str) -> FittedPhase:
        residual, spread = (self._files.get(_entry(key, phase, name)) for name in ("residual", "spread"))
        return FittedPhase.from_files(self._laws[key][phase], residual, spread)


def _entry(key: ModelKey, phase: str, name: str) -> str:
    return f"{key.gpu}/{key.backend}-{key.version}/{phase}.{name}"
