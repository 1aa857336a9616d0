"""The file of fitted GEMM models: a zip of packed trees, one folder per pool, and one JSON of groups."""

import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightgbm

from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.hardware.gpu.gemm_fit import FittedPool
from lapidist.hardware.gpu.gemm_format import GEMMFormat
from lapidist.hardware.gpu.gemm_model import GEMMGroup, GEMMModel, GEMMTrees
from lapidist.hardware.gpu.gemm_transfer import ANY, FittedTransfer, TransferGroup, TransferModel
from lapidist.hardware.gpu.packed_trees import pack, unpack

BUNDLED = Path(__file__).parent / "fitted" / "gemm.zip"
_ALWAYS = (1980, 1, 1, 0, 0, 0)  # so that the same models make the same file
_PARTS = ("residual", "low", "high")


def write_gemm_models(path: Path, pools: Sequence[FittedPool | FittedTransfer]) -> None:
    """The file appears whole or not at all.

    Raises
    ------
    ValueError : the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    listing = {pool.name: [group.to_dict() for group in pool.groups] for pool in pools}
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for pool in sorted(pools, key=lambda pool: pool.name):
                for part in _PARTS:
                    entry = zipfile.ZipInfo(f"{pool.name}/{part}", _ALWAYS)
                    archive.writestr(entry, pack(getattr(pool.trees, part)), zipfile.ZIP_STORED)
            entry = zipfile.ZipInfo("gemm.json", _ALWAYS)
            archive.writestr(entry, json.dumps(listing, sort_keys=True), zipfile.ZIP_DEFLATED)
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)


class GEMMModels:
    """A file of models; a pool's trees are unpacked when one of its groups is asked for.

    Raises
    ------
    ValueError : the file cannot be read or is none of models.
    """

    def __init__(self, path: Path = BUNDLED) -> None:
        self._path = path
        self._pool_of: dict[tuple[str, str, str, str], str] = {}
        self._groups: dict[tuple[str, str, str, str], GEMMGroup | TransferGroup] = {}
        self._trees: dict[str, GEMMTrees] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                listing: dict[str, list[dict[str, Any]]] = json.loads(archive.read("gemm.json"))
            for pool, groups in listing.items():
                for content in groups:
                    kind = TransferGroup if content["gpu"] == ANY else GEMMGroup
                    group = kind.from_dict(content)
                    self._groups[group.key], self._pool_of[group.key] = group, pool
        except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: not a file of fitted GEMM models ({error})") from None

    def groups(self) -> list[GEMMGroup | TransferGroup]:
        return [self._groups[key] for key in sorted(self._groups)]

    def model(
        self, group: GEMMGroup | TransferGroup, sheet: DataSheet, form: GEMMFormat
    ) -> GEMMModel | TransferModel:
        pool = self._pool_of[group.key]
        if pool not in self._trees:
            self._trees[pool] = self._unpack(pool)
        if isinstance(group, TransferGroup):
            return TransferModel(sheet, form, group, self._trees[pool])
        return GEMMModel(sheet, form, group, self._trees[pool])

    def _unpack(self, pool: str) -> GEMMTrees:
        try:
            with zipfile.ZipFile(self._path) as archive:
                parts: list[lightgbm.Booster] = [unpack(archive.read(f"{pool}/{part}")) for part in _PARTS]
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self._path}: the trees of {pool} cannot be read ({error})") from None
        return GEMMTrees(*parts)
