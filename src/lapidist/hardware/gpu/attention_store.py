"""The file of fitted attention models: a zip of packed trees and one JSON of laws, one folder per GPU and backend."""

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapidist.hardware.gpu.attention_phase import FittedPhase

BUNDLED = Path(__file__).parent / "fitted" / "attention.zip"
_ALWAYS = (1980, 1, 1, 0, 0, 0)  # so that the same models make the same file


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    laws: list[dict[str, Any]] = []
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for key in sorted(models):
                for phase in (models[key].prefill, models[key].decode):
                    if phase is None:
                        continue
                    laws.append({**vars(key), "law": phase.to_law()})
                    for name, trees in phase.to_trees().items():
                        archive.writestr(zipfile.ZipInfo(_entry(key, phase.phase, name), _ALWAYS), trees)
            listing = zipfile.ZipInfo("models.json", _ALWAYS)
            archive.writestr(listing, json.dumps(laws), zipfile.ZIP_DEFLATED)
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)


class AttentionModels:
    """A file of models; one is unpacked when it is asked for.

    Raises
    ------
    ValueError : the file cannot be read or is none of models.
    """

    def __init__(self, path: Path = BUNDLED) -> None:
        self._path = path
        self._laws: dict[ModelKey, dict[str, Any]] = {}
        self._loaded: dict[ModelKey, FittedAttention] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                for entry in json.loads(archive.read("models.json")):
                    key = ModelKey(entry["gpu"], entry["backend"], entry["version"])
                    self._laws.setdefault(key, {})[entry["law"]["phase"]] = entry["law"]
        except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: not a file of fitted attention models ({error})") from None

    def known(self) -> list[ModelKey]:
        return sorted(self._laws)

    def load(self, key: ModelKey) -> FittedAttention:
        if key not in self._loaded:
            phases = {phase: self._phase(key, phase) for phase in self._laws[key]}
            self._loaded[key] = FittedAttention(phases.get("prefill"), phases.get("decode"))
        return self._loaded[key]

    def _phase(self, key: ModelKey, phase: str) -> FittedPhase:
        with zipfile.ZipFile(self._path) as archive:
            names = set(archive.namelist())
            wanted = (_entry(key, phase, name) for name in ("residual", "spread"))
            residual, spread = (archive.read(name) if name in names else None for name in wanted)
        return FittedPhase.from_files(self._laws[key][phase], residual, spread)


def _entry(key: ModelKey, phase: str, name: str) -> str:
    return f"{key.gpu}/{key.backend}-{key.version}/{phase}.{name}"
