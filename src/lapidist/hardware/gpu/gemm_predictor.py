"""Time of a GEMM on a GPU: ``gemm_predictor("h200").predict(m, n, k)``."""

import functools
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lapidist.hardware.gpu.data_sheet import DataSheet, load_data_sheet
from lapidist.hardware.gpu.gemm_correction import Correction, fit_correction
from lapidist.hardware.gpu.gemm_format import GEMMFormat, gemm_format
from lapidist.hardware.gpu.gemm_model import GEMMGroup, GEMMModel
from lapidist.hardware.gpu.gemm_roofline import RooflineParameters, lower_bound_seconds, roofline_terms
from lapidist.hardware.gpu.gemm_store import BUNDLED, GEMMModels
from lapidist.hardware.gpu.gemm_transfer import ANY, TransferGroup, TransferModel

FloatArray = NDArray[np.float64]
_ROOFLINE_FACTOR = 2.0  # 90 % of kernels lie within this factor of the unfitted analytical model
_LARGEST = 2**24
_ENOUGH = 20  # measured GEMMs that tell the numbers of the analytical part, not just a common factor
_REMEMBERED = 1 << 16
_MEASURED_AS = {"fp16": "bf16"}  # the same rates and bytes
_PREFERRED_BACKENDS = ("TRTLLM", "VLLM", "SGLang")
_SIBLING_WIDTH = 0.10  # half width in log time that another GPU of the same kind adds
# Of a model of all GPUs with its law refitted to a few points: what is left drifts by so much, over so many octaves,
# beside so much noise (as on measured GPUs that are left out), and the refit used up so many points.
_SMOOTHNESS = (0.1, 2.0, 0.1)
_USED_UP = 6
_ALIGNED = 8  # n and k that 16-byte loads need; no other was measured


@dataclass(frozen=True, eq=False)
class Prediction:
    """Times of GEMMs, element by element, in the shape that m, n and k broadcast to.

    Attributes
    ----------
    seconds : expected time of one call.
    low, high : a 90 % interval of it, in seconds.
    low_confidence : where the answer should not be trusted far; the interval is wider there.
    notes : why, one sentence per reason; empty where ``low_confidence`` is False everywhere.
    """

    seconds: FloatArray
    low: FloatArray
    high: FloatArray
    low_confidence: NDArray[np.bool_]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class GemmPredictor:
    """Predicts one format on one GPU with the kernels of one backend version.

    Attributes
    ----------
    sheet, format : what the answers are about.
    model : what they rest on; another GPU's, or all GPUs', where this one was not measured, or None where the format
        was measured nowhere and the analytical model answers alone.
    correction : what :meth:`calibrated` found.
    """

    sheet: DataSheet
    format: GEMMFormat
    model: GEMMModel | TransferModel | None = None
    correction: Correction | None = None
    _seen: dict[tuple[int, int, int], Prediction] = field(default_factory=dict, repr=False)

    @property
    def measured_on(self) -> str | None:
        """Name of the GPU whose measurements the model rests on, "any" for all of them."""
        return self.model.group.gpu if self.model else None

    @property
    def backend(self) -> str | None:
        return self.model.group.backend if self.model else None

    @property
    def version(self) -> str | None:
        return self.model.group.version if self.model else None

    def predict(self, m: ArrayLike, n: ArrayLike, k: ArrayLike) -> Prediction:
        """Times of ``output [m, n] = input [m, k] @ weight [n, k].T``; scalars and arrays broadcast.

        Raises
        ------
        ValueError : a size is not a whole number from 1 to 2**24.
        """
        if isinstance(m, int) and isinstance(n, int) and isinstance(k, int):
            return self._remembered(m, n, k)
        return self._predict(m, n, k)

    def calibrated(self, m: ArrayLike, n: ArrayLike, k: ArrayLike, seconds: ArrayLike) -> "GemmPredictor":
        """This predictor corrected by a few measurements (50 are a good start) of the GPU in question.

        Raises
        ------
        ValueError : no measurements, or sizes or times that cannot be.
        """
        rows, columns, depths = (
            np.ravel(_sizes(values, name)) for values, name in ((m, "m"), (n, "n"), (k, "k"))
        )
        measured = np.ravel(np.asarray(seconds, dtype=np.float64))
        if len({len(values) for values in (rows, columns, depths, measured)}) != 1:
            raise ValueError("calibrating needs as many m, n and k as times")
        if not (np.isfinite(measured).all() and (measured > 0).all()):
            raise ValueError("measured times must be positive numbers of seconds")
        model, fitted, smoothness = self.model, 0, None
        if model is not None and len(measured) >= _ENOUGH:
            model = model.recalibrate(rows, columns, depths, measured)
            if isinstance(model, TransferModel):
                fitted, smoothness = _USED_UP, _SMOOTHNESS
            else:
                fitted = len(fields(RooflineParameters))
        plain = replace(self, model=model, correction=None, _seen={})
        found = plain._predict(rows, columns, depths)
        interval = np.log(found.seconds / found.low), np.log(found.high / found.seconds)
        errors = np.log(measured / found.seconds)
        correction = fit_correction(rows, columns, depths, errors, interval, fitted, smoothness)
        return replace(plain, correction=correction)

    def _remembered(self, m: int, n: int, k: int) -> Prediction:
        found = self._seen.get((m, n, k))
        if found is None:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            found = self._seen[m, n, k] = self._predict(m, n, k)
        return found

    def _predict(self, m: ArrayLike, n: ArrayLike, k: ArrayLike) -> Prediction:
        sizes = np.broadcast_arrays(_sizes(m, "m"), _sizes(n, "n"), _sizes(k, "k"))
        shape = sizes[0].shape
        rows, columns, depths = (np.ascontiguousarray(values).reshape(-1) for values in sizes)
        if self.model is None:
            seconds, low, high, doubtful, notes = self._roofline(rows, columns, depths)
        else:
            seconds, low, high, doubtful, notes = self._fitted(self.model, rows, columns, depths)
        bound = lower_bound_seconds(rows, columns, depths, self.sheet, self.format)
        if self.correction is not None:
            factor = np.exp(self.correction.log_factor(rows, columns, depths))
            corrected = np.maximum(seconds * factor, bound)
            if self.correction.stretch is None:
                width = np.exp(self.correction.half_width)
                low = np.minimum(low * factor, corrected / width)
                high = np.maximum(high * factor, corrected * width)
            else:
                low = corrected * (low / seconds) ** self.correction.stretch
                high = corrected * (high / seconds) ** self.correction.stretch
            seconds = corrected
        low = np.maximum(low, bound)
        return Prediction(
            seconds.reshape(shape),
            np.minimum(low, seconds).reshape(shape),
            high.reshape(shape),
            doubtful.reshape(shape),
            notes,
        )

    def _roofline(
        self, m: FloatArray, n: FloatArray, k: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.bool_], tuple[str, ...]]:
        bound = lower_bound_seconds(m, n, k, self.sheet, self.format)
        terms = roofline_terms(m, n, k, self.sheet, self.format, RooflineParameters())
        seconds = np.maximum(terms.seconds, bound)
        note = f"{self.format.name} was measured on no GPU: analytical model only"
        doubtful = np.ones(len(seconds), dtype=bool)
        return seconds, seconds / _ROOFLINE_FACTOR, seconds * _ROOFLINE_FACTOR, doubtful, (note,)

    def _fitted(
        self, model: GEMMModel | TransferModel, m: FloatArray, n: FloatArray, k: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.bool_], tuple[str, ...]]:
        seconds, low, high, octaves = model.seconds(m, n, k)
        outside, odd = octaves > 0, (n % _ALIGNED != 0) | (k % _ALIGNED != 0)
        doubtful = outside | odd
        notes = []
        if outside.any():
            notes.append(f"up to {octaves.max():.1f} octaves outside of the measured sizes")
        if odd.any():
            notes.append(f"n or k no multiple of {_ALIGNED}: not measured, and slower kernels may be chosen")
            high = np.where(odd, high * 2.0, high)
        if model.group.gpu != self.sheet.name:
            notes.append(_foreign(self.sheet, model.group))
            doubtful = np.ones(len(m), dtype=bool)
            if model.group.gpu != ANY:
                low, high = low * np.exp(-_SIBLING_WIDTH), high * np.exp(_SIBLING_WIDTH)
        return seconds, low, high, doubtful, tuple(notes)


def gemm_predictor(
    gpu: str | Path | DataSheet,
    dtype: str = "bf16",
    backend: str | None = None,
    version: str | None = None,
    models: Path = BUNDLED,
) -> GemmPredictor:
    """The predictor of a GPU and a format, with the kernels of ``backend`` and ``version``.

    Without them: TensorRT-LLM, else vLLM, else SGLang, in the newest version measured. fp16 is answered as bf16, which
    has the same rates. A GPU that was not measured is answered from the nearest one of its architecture and compute
    capability, else from a model of all GPUs; ``low_confidence`` is set then. ``models`` is a file that
    ``lapidist gpu fit`` wrote.

    Raises
    ------
    ValueError : unknown GPU, format, backend or version, or the GPU does not compute in the format.
    """
    sheet = gpu if isinstance(gpu, DataSheet) else load_data_sheet(gpu)
    form = gemm_format(dtype)
    sheet.operations_per_second(form.compute)
    stored = _stored(models)
    measured_as = _MEASURED_AS.get(form.name, form.name)
    of_format = [
        group for group in stored.groups() if isinstance(group, GEMMGroup) and group.dtype == measured_as
    ]
    own = [group for group in of_format if group.gpu == sheet.name]
    candidates = own or _kin(sheet, of_format)
    if candidates:
        chosen = _choose(candidates, backend, version, sheet.name, measured_as)
        return GemmPredictor(sheet, form, stored.model(_at_power_of(sheet, chosen), sheet, form))
    of_any = [
        group for group in stored.groups() if isinstance(group, TransferGroup) and group.dtype == measured_as
    ]
    if not of_any:
        return GemmPredictor(sheet, form)
    return GemmPredictor(sheet, form, stored.model(_measured_by(of_any[0], backend, version), sheet, form))


@functools.lru_cache(maxsize=8)
def _stored(models: Path) -> GEMMModels:
    return GEMMModels(models)


def _kin(sheet: DataSheet, groups: list[GEMMGroup]) -> list[GEMMGroup]:
    """Groups of the measured GPU of the same architecture and major capability whose balance is the most alike."""
    kin = {group.gpu for group in groups if _same_kind(sheet, load_data_sheet(group.gpu))}
    if not kin:
        return []
    nearest = min(sorted(kin), key=lambda gpu: abs(np.log(_balance(sheet) / _balance(load_data_sheet(gpu)))))
    return [group for group in groups if group.gpu == nearest]


def _same_kind(a: DataSheet, b: DataSheet) -> bool:
    """Consumer cards have tensor units of half the rate and no power cap to speak of: never kin of the others."""
    major = [sheet.compute_capability.split(".")[0] for sheet in (a, b)]
    consumer = ["GeForce" in sheet.title for sheet in (a, b)]
    return a.architecture == b.architecture and major[0] == major[1] and consumer[0] == consumer[1]


def _balance(sheet: DataSheet) -> float:
    """16-bit operations per byte of memory traffic."""
    return sheet.operations_per_second(sheet.sixteen_bit) / sheet.memory_bytes_per_second


def _at_power_of(sheet: DataSheet, group: GEMMGroup) -> GEMMGroup:
    """The group with the part of the peak rate that ``sheet``'s power limit sustains.

    GPUs of a kind spend the same energy on an operation, so that the part goes with watts per peak rate: an L4 has
    0.6 W for a TFLOP/s where an L40S has 1.0.
    """
    if group.gpu == sheet.name:
        return group
    watts = _watts_per_operation(sheet) / _watts_per_operation(load_data_sheet(group.gpu))
    sustained = min(group.parameters.power_cap * watts, 1.0)
    return replace(group, parameters=replace(group.parameters, power_cap=sustained))


def _measured_by(group: TransferGroup, backend: str | None, version: str | None) -> TransferGroup:
    """The group for times as the benchmark of a backend takes them; kernels of backends it does not tell apart."""
    if backend is None:
        return group
    known = {name.casefold(): name for name in _PREFERRED_BACKENDS}
    return group.measured_by(known.get(backend.casefold(), backend), version or "1.3.0")


def _watts_per_operation(sheet: DataSheet) -> float:
    return sheet.tdp_watts / sheet.operations_per_second(sheet.sixteen_bit)


def _choose(
    groups: list[GEMMGroup], backend: str | None, version: str | None, gpu: str, dtype: str
) -> GEMMGroup:
    known = ", ".join(sorted({f"{group.backend} {group.version}".strip() for group in groups}))
    if backend is not None:
        groups = [group for group in groups if group.backend.casefold() == backend.casefold()]
    if version is not None:
        groups = [group for group in groups if group.version == version]
    if not groups:
        asked = " ".join(part for part in (backend, version) if part)
        raise ValueError(f"no measurements of {dtype} GEMMs with {asked} for {gpu}; there are {known}")
    return min(groups, key=_preference)


def _preference(group: GEMMGroup) -> tuple[int, tuple[int, ...]]:
    """Preferred backend first, newest version first; a release candidate counts below its release."""
    order = (
        _PREFERRED_BACKENDS.index(group.backend)
        if group.backend in _PREFERRED_BACKENDS
        else len(_PREFERRED_BACKENDS)
    )
    numbers = [int(part) for part in re.findall(r"\d+", group.version)]
    release = [] if "rc" in group.version else [1 << 30]
    return order, tuple(-number for number in (*numbers, *release))


def _foreign(sheet: DataSheet, group: GEMMGroup | TransferGroup) -> str:
    if group.gpu == ANY:
        return f"{group.dtype} was not measured on {sheet.name}: a model of all measured GPUs answers"
    return f"{group.dtype} was not measured on {sheet.name}: {group.gpu}'s kernels at {sheet.name}'s rates"


def _sizes(values: ArrayLike, name: str) -> FloatArray:
    sizes = np.asarray(values)
    if sizes.dtype.kind not in "iuf" or not ((sizes >= 1) & (sizes <= _LARGEST) & (sizes % 1 == 0)).all():
        raise ValueError(f"{name} must be a whole number from 1 to {_LARGEST}, got {values!r}"[:200])
    return sizes.astype(np.float64)
