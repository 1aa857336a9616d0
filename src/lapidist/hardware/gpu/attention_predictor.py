"""Time of an attention kernel on a GPU: ``attention_predictor("h200").predict(batch, query_length, ...)``."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lapidist.hardware.gpu.attention_law import AttentionShapes, lower_bound_seconds
from lapidist.hardware.gpu.attention_phase import FittedPhase, Phase
from lapidist.hardware.gpu.attention_store import BUNDLED, AttentionModels, FittedAttention, ModelKey
from lapidist.hardware.gpu.data_sheet import DataSheet, load_data_sheet
from lapidist.hardware.gpu.gemm_predictor import Prediction

FloatArray = NDArray[np.float64]
# A GPU without measurements borrows the efficiencies of one of its generation, at its own rates.
_DONOR_BY_ARCHITECTURE = {
    "hopper": "h200",
    "ada": "l40s",
    "ampere": "a100",
    "turing": "a100",
    "volta": "a100",
}
_PREFERRED_BACKENDS = ("TRTLLM", "VLLM", "SGLang")
# Half width of the 90 % interval of ln(measured / predicted) where another GPU answers: chosen wide, not measured.
_BORROWED_HALF_WIDTH = 0.45
_UNMEASURED_WIDENING = 1.5
_FAR_OCTAVES = 1.0


@dataclass(frozen=True)
class AttentionPredictor:
    """Predicts attention on one GPU with the kernels of one backend version.

    Attributes
    ----------
    sheet : the GPU that the answers are about.
    key : the measurements they rest on; another GPU's where this one was not measured.
    """

    sheet: DataSheet
    key: ModelKey
    fitted: FittedAttention

    @property
    def borrowed(self) -> bool:
        return self.key.gpu != self.sheet.name

    def predict(
        self,
        batch: ArrayLike,
        query_length: ArrayLike,
        kv_length: ArrayLike,
        heads: ArrayLike,
        kv_heads: ArrayLike,
        head_dim: ArrayLike,
        window: ArrayLike = 0,
        compute_bytes: ArrayLike = 2,
        kv_bytes: ArrayLike = 2,
        phase: Phase | None = None,
    ) -> Prediction:
        """Times of one kernel over ``batch`` equal sequences. Arguments broadcast.

        Without ``phase`` a query length of 1 is decoding and any other prefill.

        ``kv_length`` includes the new tokens; ``heads`` and ``kv_heads`` are those of one rank; ``window`` 0 sees
        everything; ``compute_bytes`` is 1 for fp8 arithmetic; ``kv_bytes`` are those of one element of the cache.

        Raises
        ------
        ValueError : an argument out of range; the sentence names it.
        """
        arguments = (
            batch,
            query_length,
            kv_length,
            heads,
            kv_heads,
            head_dim,
            window,
            compute_bytes,
            kv_bytes,
        )
        return self.predict_shapes(AttentionShapes.of(*arguments), phase)

    def predict_shapes(self, shapes: AttentionShapes, phase: Phase | None = None) -> Prediction:
        """As :meth:`predict`, of shapes already checked."""
        shape = shapes.batch.shape
        flat = shapes.flat()
        seconds, width = np.empty(flat.batch.shape), np.empty(flat.batch.shape)
        doubtful = np.zeros(flat.batch.shape, dtype=bool)
        notes: list[str] = []
        decoding = flat.query_length == 1 if phase is None else np.full(flat.batch.shape, phase == "decode")
        for fitted, rows in ((self.fitted.decode, decoding), (self.fitted.prefill, ~decoding)):
            if rows.any():
                if fitted is None:
                    raise ValueError(f"no attention of this phase was measured for {self.key.gpu}")
                seconds[rows], width[rows], doubtful[rows] = self._phase(fitted, flat.take(rows), notes)
        bound = lower_bound_seconds(flat, self.sheet)
        seconds = np.maximum(seconds, bound)
        if self.borrowed:
            width = np.maximum(width, _BORROWED_HALF_WIDTH)
            doubtful[:] = True
            notes.append(f"attention was not measured on {self.sheet.name}: efficiencies of {self.key.gpu}")
        factor = np.exp(width)
        low = np.maximum(seconds / factor, bound)
        return Prediction(
            seconds.reshape(shape),
            low.reshape(shape),
            (seconds * factor).reshape(shape),
            doubtful.reshape(shape),
            tuple(notes),
        )

    def _phase(
        self, phase: FittedPhase, shapes: AttentionShapes, notes: list[str]
    ) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
        seconds, width, beyond = phase.seconds(shapes, self.sheet)
        doubtful = beyond > _FAR_OCTAVES
        if doubtful.any():
            notes.append(
                f"{phase.phase} attention up to {beyond.max():.1f} octaves outside what was measured"
            )
        cached = (shapes.query_length > 1) & (shapes.kv_length > shapes.query_length)
        odd_cache = (np.abs(shapes.kv_bytes - 2) > 0.05) & (np.abs(shapes.kv_bytes - 1) > 0.05)
        for unmeasured, note in (
            (cached, "prefill on cached context was not measured; the law extends to it"),
            (odd_cache, "a cache of neither 16 nor 8 bits was not measured: fp8's efficiency on its bytes"),
        ):
            if unmeasured.any():
                width = np.where(unmeasured, width * _UNMEASURED_WIDENING, width)
                doubtful = doubtful | unmeasured
                notes.append(note)
        return seconds, width, doubtful


def attention_predictor(
    gpu: str | Path | DataSheet,
    backend: str | None = None,
    version: str | None = None,
    models: Path = BUNDLED,
) -> AttentionPredictor:
    """The predictor of a GPU; without ``backend`` the best measured one's kernels (TensorRT-LLM, then vLLM, SGLang).

    Raises
    ------
    ValueError : unknown GPU, backend or version; the sentence tells which are known.
    """
    sheet = gpu if isinstance(gpu, DataSheet) else load_data_sheet(gpu)
    stored = _stored(models)
    keys = [key for key in stored.known() if key.gpu == sheet.name] or [
        key for key in stored.known() if key.gpu == _donor(sheet)
    ]
    keys = _matching(keys, "backend", backend)
    if version is not None:
        keys = _matching(keys, "version", version)
    if not keys:
        raise ValueError(f"{models}: no attention model for {sheet.name} or a GPU like it")
    key = min(keys, key=_preference)
    return AttentionPredictor(sheet, key, stored.load(key))


def _donor(sheet: DataSheet) -> str:
    if sheet.architecture == "blackwell":
        return "b200" if sheet.compute_capability.startswith("10") else "rtx-pro-6000"
    if sheet.compute_capability == "8.6":  # consumer Ampere has Ada's SM, not the A100's
        return "l40s"
    return _DONOR_BY_ARCHITECTURE.get(sheet.architecture, "a100")


def _matching(keys: list[ModelKey], field: str, wanted: str | None) -> list[ModelKey]:
    if wanted is None:
        return keys
    found = [key for key in keys if getattr(key, field).casefold() == wanted.casefold()]
    if not found:
        known = ", ".join(sorted({getattr(key, field) for key in keys})) or "none"
        raise ValueError(f"attention was not measured with {field} {wanted!r}; known here are {known}")
    return found


def _preference(key: ModelKey) -> tuple[int, tuple[int, ...]]:
    """Preferred backend first, then the newest version."""
    rank = (
        _PREFERRED_BACKENDS.index(key.backend)
        if key.backend in _PREFERRED_BACKENDS
        else len(_PREFERRED_BACKENDS)
    )
    digits = "".join(c if c.isdigit() else " " for c in key.version)
    return rank, tuple(-int(part) for part in digits.split())


@functools.cache
def _stored(path: Path) -> AttentionModels:
    return AttentionModels(path)
