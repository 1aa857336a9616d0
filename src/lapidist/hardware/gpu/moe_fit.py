"""Fits the mixture-of-experts model to measured layers of several GPUs at once."""

from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.moe_law import MoEShapes, MoETerms, moe_terms
from lapidist.hardware.gpu.moe_predictor import FittedMoE
from lapidist.hardware.gpu.splits import grouped_folds
from lapidist.hardware.gpu.table_file import read_table_file

FloatArray = NDArray[np.float64]
_DTYPES = {"bfloat16": "bf16", "fp8_block": "fp8_block", "int4_wo": "int4_wo", "w4a16_mxfp4": "mxfp4"}
_SKEW = {"balanced": 0.0, "power_law_1.01": 1.01, "power_law_1.2": 1.2}
_KERNELS = ("sglang_fused_moe_triton", "sglang_marlin_moe")
_WORDS = ("kernel_source", "distribution", "moe_dtype", "system")
_COLUMNS = {
    "tokens": "num_tokens",
    "hidden": "hidden_size",
    "inner": "inter_size",
    "top_k": "topk",
    "experts": "num_experts",
    "tensor_parallel": "moe_tp_size",
    "expert_parallel": "moe_ep_size",
}


def read_moe_table(path: Path) -> pd.DataFrame:
    """aiconfigurator's MoE table: SGLang's Triton and Marlin kernels, columns named as :class:`MoEShapes` has them.

    Raises
    ------
    ValueError : the file cannot be read, lacks a column, or has words where numbers belong.
    """
    table = read_table_file(path)
    needed = (*_COLUMNS.values(), *_WORDS, "latency_ms")
    if absent := [column for column in needed if column not in table]:
        raise ValueError(f"{path}: column {absent[0]!r} is missing; a measured layer has {', '.join(needed)}")
    table = table[table["kernel_source"].isin(_KERNELS)]
    try:
        found = pd.DataFrame({ours: table[theirs].astype(float) for ours, theirs in _COLUMNS.items()})
        found["seconds"] = table["latency_ms"].astype(float) / 1e3
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: a column of numbers holds something else ({error})") from None
    found["skew"] = table["distribution"].astype(str).map(_SKEW)
    found["dtype"] = table["moe_dtype"].astype(str).map(_DTYPES)
    found["system"] = table["system"].astype(str)
    return found.dropna().drop_duplicates().reset_index(drop=True)


def models_of(table: pd.DataFrame) -> NDArray[np.str_]:
    """``hidden_inner_topk_experts`` of each row: what a held-out model differs in."""
    columns = [
        table[c].astype(int).astype(str).to_numpy(dtype=str) for c in ("hidden", "inner", "top_k", "experts")
    ]
    return np.array(["_".join(row) for row in zip(*columns, strict=True)])


def terms_of_table(table: pd.DataFrame) -> MoETerms:
    """The law's terms of every row, in the table's order."""
    law, bound = np.empty(len(table)), np.empty(len(table))
    features: FloatArray | None = None
    for (system, dtype), rows in table.groupby(["system", "dtype"]).indices.items():
        part = table.iloc[rows]
        shapes = MoEShapes.of(*(part[c].to_numpy() for c in (*_COLUMNS, "skew")))
        terms = moe_terms(shapes, dtype, load_data_sheet(system))
        if features is None:
            features = np.empty((len(table), terms.features.shape[1]))
        law[rows], bound[rows], features[rows] = terms.law, terms.bound, terms.features
    if features is None:
        raise ValueError("fitting needs at least one measured layer")
    return MoETerms(law, bound, features)


def fit_moe(table: pd.DataFrame, trees: int = 450) -> FittedMoE:
    """Fit all rows; the interval comes from models held out. The same rows give the same bits."""
    terms = terms_of_table(table)
    target = np.log(table["seconds"].to_numpy() / terms.law)
    width = float(np.quantile(np.abs(held_out_errors(table, trees)), 0.9))
    measured = sorted(
        {(load_data_sheet(system).name, dtype) for system, dtype in table.groupby(["system", "dtype"]).groups}
    )
    return FittedMoE(_fit(terms.features, target, trees), width, tuple(measured))


def held_out_errors(table: pd.DataFrame, trees: int = 450) -> FloatArray:
    """``ln(measured / predicted)`` of every row by a fit that its model was left out of, in five parts.

    What carries over between models is coarser than what a model's own rows tell, so fewer trees are grown.
    """
    terms = terms_of_table(table)
    target = np.log(table["seconds"].to_numpy() / terms.law)
    error = np.empty(len(table))
    for split in grouped_folds(models_of(table), 5):
        part = _fit(terms.features[split.train], target[split.train], trees // 3)
        error[split.test] = target[split.test] - part.predict(terms.features[split.test], num_threads=1)
    return error


def _fit(features: FloatArray, target: FloatArray, trees: int) -> lightgbm.Booster:
    parameters = {
        "objective": "l1",
        "num_leaves": 63,
        "learning_rate": 0.1,
        "min_data_in_leaf": 30,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "num_threads": 1,
        "seed": 0,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    return lightgbm.train(parameters, lightgbm.Dataset(features, target), trees)
