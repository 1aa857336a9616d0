"""Average power of kernels, and their energy, which is power times time and nothing else.

NVML's samples mean something for kernels that repeat for long. Two passes over the same short GEMM differ by 200 W
in the public measurements, so below 50 microseconds a law answers, with ``low_confidence``.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lapidist.hardware.gpu.attention_law import AttentionShapes
from lapidist.hardware.gpu.attention_phase import terms_of
from lapidist.hardware.gpu.data_sheet import DataSheet, load_data_sheet
from lapidist.hardware.gpu.gemm_format import GEMMFormat, gemm_format
from lapidist.hardware.gpu.model_archive import read_archive, write_archive
from lapidist.hardware.gpu.packed_trees import pack, unpack
from lapidist.hardware.gpu.power_features import gemm_power_features, gemm_shares
from lapidist.hardware.gpu.power_law import PowerLaw

FloatArray = NDArray[np.float64]
BUNDLED = Path(__file__).parent / "fitted" / "power.zip"
TRUSTED_SECONDS = 0.2e-3
_LAW_SECONDS = 0.05e-3
_LAW_HALF_WIDTH = 0.5
# Edges of predicted power, as parts of the limit, between which intervals are calibrated apart.
LEVELS = (0.6, 0.8, 0.95)


@dataclass(frozen=True, eq=False)
class PowerPrediction:
    """Average board power of kernels, element by element.

    Attributes
    ----------
    seconds : duration of one call, as given or predicted.
    watts : average power, within idle power and limit. ``low``, ``high``: a 90 % interval.
    low_confidence : power of this kernel was not or not reliably measured; ``notes`` say why.
    """

    seconds: FloatArray
    watts: FloatArray
    low: FloatArray
    high: FloatArray
    low_confidence: NDArray[np.bool_]
    notes: tuple[str, ...] = ()

    @property
    def joules(self) -> FloatArray:
        """Energy of one call: power times time, never predicted apart."""
        return self.watts * self.seconds


@dataclass(frozen=True)
class FittedPower:
    """Trees of ``ln(watts / limit)`` for one GPU and kind of kernel, and the error they make at each level."""

    trees: lightgbm.Booster
    half_widths: tuple[float, ...]
    reliable: bool = True

    def __post_init__(self) -> None:
        if len(self.half_widths) != len(LEVELS) + 1:
            raise ValueError(f"power needs {len(LEVELS) + 1} half widths, got {len(self.half_widths)}")


@dataclass(frozen=True)
class PowerPredictor:
    """Power on one GPU.

    Attributes
    ----------
    limit_watts : the power limit in force; at most what the board may draw.
    fitted : by kind of kernel: a GEMM format's name, ``prefill`` or ``decode``.
    """

    sheet: DataSheet
    limit_watts: float
    fitted: Mapping[str, FittedPower]
    law: PowerLaw = field(default_factory=PowerLaw)

    def gemm(
        self, m: ArrayLike, n: ArrayLike, k: ArrayLike, seconds: ArrayLike, dtype: str = "bf16"
    ) -> PowerPrediction:
        """Power of GEMMs that take ``seconds`` each.

        Raises
        ------
        ValueError : a size or duration that is not positive, or an unknown format.
        """
        form: GEMMFormat = gemm_format(dtype)
        m, n, k, seconds = _positive(m=m, n=n, k=k, seconds=seconds)
        tensor, memory = gemm_shares(m, n, k, seconds, self.sheet, form)
        law = self.law.watts(tensor, memory, self.sheet, self.limit_watts)
        fitted = self.fitted.get(form.name)
        features = gemm_power_features(m.ravel(), n.ravel(), k.ravel(), self.sheet, form) if fitted else None
        return self._answer(form.name, law, seconds, features)

    def attention(self, shapes: AttentionShapes, seconds: ArrayLike) -> PowerPrediction:
        """Power of attention kernels, all prefill or all decoding, that take ``seconds`` each."""
        decoding = shapes.query_length == 1
        if decoding.any() != decoding.all():
            raise ValueError("ask for the power of prefill and of decoding apart")
        kind = "decode" if decoding.any() else "prefill"
        (duration,) = _positive(seconds=np.broadcast_to(np.asarray(seconds), shapes.batch.shape))
        terms = terms_of("decode" if decoding.any() else "prefill", shapes.flat(), self.sheet)
        tensor, memory = (x.reshape(duration.shape) / duration for x in (terms.tensor, terms.memory))
        law = self.law.watts(tensor, memory, self.sheet, self.limit_watts)
        return self._answer(kind, law, duration, attention_power_features(terms.features, duration.ravel()))

    def memory_bound(self, moved_bytes: ArrayLike, seconds: ArrayLike) -> PowerPrediction:
        """Power of element-wise kernels, copies and collectives by the memory traffic they cause."""
        moved, seconds = _positive(moved_bytes=moved_bytes, seconds=seconds)
        share = np.minimum(1.0, moved / self.sheet.memory_bytes_per_second / seconds)
        return self._answer("", self.law.watts(0.0, share, self.sheet, self.limit_watts), seconds, None)

    def _answer(
        self, kind: str, law: FloatArray, seconds: FloatArray, features: FloatArray | None
    ) -> PowerPrediction:
        watts = np.array(law, dtype=float)
        width = np.full(watts.shape, _LAW_HALF_WIDTH)
        doubtful = np.ones(watts.shape, dtype=bool)
        notes: list[str] = []
        fitted = self.fitted.get(kind)
        learned = seconds >= _LAW_SECONDS
        if fitted is not None and features is not None and learned.any():
            part = np.exp(fitted.trees.predict(features, num_threads=1)).reshape(watts.shape)
            watts = np.where(learned, part * self.limit_watts, watts)
            level = np.searchsorted(LEVELS, np.minimum(part, 1.0))
            width = np.where(learned, np.array(fitted.half_widths)[level], width)
            doubtful = ~learned if fitted.reliable else doubtful
            if not fitted.reliable:
                notes.append(
                    f"two collections of {kind} power on {self.sheet.name} disagree: trust no single watt"
                )
        else:
            notes.append(
                f"no power of {kind or 'such'} kernels was measured on {self.sheet.name}: a law answers"
            )
        if not learned.all():
            notes.append("kernels below 50 microseconds are too short for power readings")
        watts = np.clip(watts, self.sheet.idle_watts, self.limit_watts)
        factor = np.exp(width)
        low = np.maximum(watts / factor, self.sheet.idle_watts)
        high = np.minimum(watts * factor, self.limit_watts)
        return PowerPrediction(seconds, watts, low, high, doubtful, tuple(notes))


def attention_power_features(features: FloatArray, seconds: FloatArray) -> FloatArray:
    """The features of attention's time, and the time."""
    return np.column_stack([features, np.log2(seconds)])


def power_predictor(
    gpu: str | Path | DataSheet, limit_watts: float | None = None, models: Path = BUNDLED
) -> PowerPredictor:
    """The power predictor of a GPU at its own or a lower power limit.

    Raises
    ------
    ValueError : unknown GPU, or a limit that is not between idle power and what the board may draw.
    """
    sheet = gpu if isinstance(gpu, DataSheet) else load_data_sheet(gpu)
    limit = sheet.tdp_watts if limit_watts is None else limit_watts
    if not sheet.idle_watts < limit <= sheet.tdp_watts:
        raise ValueError(
            f"the power limit of {sheet.name} must be above {sheet.idle_watts:g} W and at most {sheet.tdp_watts:g} W, "
            f"got {limit:g}"
        )
    return PowerPredictor(sheet, limit, _stored(models).get(sheet.name, {}))


def write_power_models(path: Path, models: Mapping[str, Mapping[str, FittedPower]]) -> None:
    """Models by GPU and kind of kernel; the file appears whole or not at all."""
    listing, files = [], {}
    for gpu, kinds in sorted(models.items()):
        for kind, fitted in sorted(kinds.items()):
            listing.append(
                {"gpu": gpu, "kind": kind, "half_widths": fitted.half_widths, "reliable": fitted.reliable}
            )
            files[f"{gpu}/{kind}.trees"] = pack(fitted.trees)
    write_archive(path, {"models.json": json.dumps(listing).encode(), **files})


@functools.cache
def _stored(path: Path) -> dict[str, dict[str, FittedPower]]:
    files = read_archive(path)
    found: dict[str, dict[str, FittedPower]] = {}
    entries: list[dict[str, Any]] = json.loads(files["models.json"])
    for entry in entries:
        trees = unpack(files[f"{entry['gpu']}/{entry['kind']}.trees"])
        fitted = FittedPower(trees, tuple(entry["half_widths"]), entry["reliable"])
        found.setdefault(entry["gpu"], {})[entry["kind"]] = fitted
    return found


def _positive(**values: ArrayLike) -> list[FloatArray]:
    arrays = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in values.values()))
    for name, array in zip(values, arrays, strict=True):
        if not (np.isfinite(array) & (array > 0)).all():
            raise ValueError(f"{name} must be positive, got {np.ravel(array)[:3]}")
    return list(arrays)
