"""Time of a fused mixture-of-experts layer, SGLang's kernels: ``moe_predictor("h200").predict(tokens, ...)``."""

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import lightgbm
import numpy as np
from numpy.typing import ArrayLike

from lapidist.hardware.gpu.data_sheet import DataSheet, load_data_sheet
from lapidist.hardware.gpu.gemm_predictor import Prediction
from lapidist.hardware.gpu.model_archive import read_archive, write_archive
from lapidist.hardware.gpu.moe_law import FloatArray, MoEShapes, MoETerms, moe_terms
from lapidist.hardware.gpu.packed_trees import pack, unpack

BUNDLED = Path(__file__).parent / "fitted" / "moe.zip"
_FOREIGN_WIDENING = 2.5
# Formats without a measured table: the law is their own, what it leaves over is that of a format that was measured.
_LIKE = {"nvfp4": "fp8_block"}


@dataclass(frozen=True)
class FittedMoE:
    """Trees of ``ln(measured / law)`` over all measured GPUs, and the half width that covered 90 % of unseen models."""

    trees: lightgbm.Booster
    half_width: float
    measured: tuple[tuple[str, str], ...]
    """GPU and format of each table fitted."""


@dataclass(frozen=True)
class MoEPredictor:
    sheet: DataSheet
    fitted: FittedMoE

    def predict(
        self,
        tokens: ArrayLike,
        hidden: ArrayLike,
        inner: ArrayLike,
        top_k: ArrayLike,
        experts: ArrayLike,
        tensor_parallel: ArrayLike = 1,
        expert_parallel: ArrayLike = 1,
        skew: ArrayLike = 0.0,
        dtype: str = "bf16",
    ) -> Prediction:
        """Times on the slowest rank; arguments as in :class:`MoEShapes`, broadcast to one dimension.

        Raises
        ------
        ValueError : a value out of range or an unknown format.
        """
        shapes = MoEShapes.of(tokens, hidden, inner, top_k, experts, tensor_parallel, expert_parallel, skew)
        terms = moe_terms(shapes, dtype, self.sheet)
        if dtype == "int4_wo" and self.sheet.compute_capability == "10.0":
            hopper = load_data_sheet("h200")
            seconds = self._of(moe_terms(shapes, dtype, hopper)) * _issued(hopper) / _issued(self.sheet)
        elif dtype in _LIKE:
            seconds = self._of(replace(terms, features=moe_terms(shapes, _LIKE[dtype], self.sheet).features))
        else:
            seconds = self._of(terms)
        seconds = np.maximum(seconds, terms.bound)
        known = (self.sheet.name, dtype) in self.fitted.measured
        factor = np.exp(self.fitted.half_width * (1.0 if known else _FOREIGN_WIDENING))
        note = f"mixture-of-experts layers in {dtype} were not measured on {self.sheet.name}: a model of other GPUs"
        return Prediction(
            seconds,
            np.maximum(seconds / factor, terms.bound),
            seconds * factor,
            np.full(seconds.shape, not known),
            () if known else (note,),
        )

    def _of(self, terms: MoETerms) -> FloatArray:
        return terms.law * np.exp(self.fitted.trees.predict(terms.features, num_threads=1))


def _issued(sheet: DataSheet) -> float:
    """Cycles of all SMs in a second, which is what Marlin's experts wait for: H200, whose memory is 1.43 times as fast
    as H100's, runs them 1.06 times as fast, and B200 has no faster instructions of single warps than Hopper."""
    return sheet.sms * sheet.megahertz("boost")


def moe_predictor(gpu: str | Path | DataSheet, models: Path = BUNDLED) -> MoEPredictor:
    """The predictor of a GPU; one that was not measured is answered by the model of those that were, with a note.

    Raises
    ------
    ValueError : unknown GPU, or an unreadable file.
    """
    sheet = gpu if isinstance(gpu, DataSheet) else load_data_sheet(gpu)
    return MoEPredictor(sheet, _stored(models))


def write_moe_model(path: Path, fitted: FittedMoE) -> None:
    listing = {"half_width": fitted.half_width, "measured": fitted.measured}
    write_archive(path, {"model.json": json.dumps(listing).encode(), "moe.trees": pack(fitted.trees)})


@functools.cache
def _stored(path: Path) -> FittedMoE:
    files = read_archive(path)
    listing = json.loads(files["model.json"])
    measured = tuple((gpu, dtype) for gpu, dtype in listing["measured"])
    return FittedMoE(unpack(files["moe.trees"]), listing["half_width"], measured)
