"""A GPU predicted from others: made-up GPUs that obey the law, NeuSight's A100 from older cards, bad input."""

import numpy as np
import pandas as pd
import pytest

from lapidist.hardware.gpu.accuracy import accuracy
from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.unseen_gpu import UnseenGPUModel, sustained_rate
from tests.hardware.gpu.measured_data import measured_data

FILE = "neusight_fp32_gemm_train.parquet"
NAMES = {
    "Tesla P4": "p4",
    "Tesla P100-PCIE-16GB": "p100",
    "Tesla V100-PCIE-32GB": "v100-pcie",
    "Tesla T4": "t4",
    "NVIDIA A100-PCIE-40GB": "a100-pcie-40gb",
}
SHEETS = {name: load_data_sheet(name) for name in NAMES.values()}


def _random_shapes(count: int, gpu: str, seed: int) -> pd.DataFrame:
    sizes = 2 ** np.random.default_rng(seed).uniform(5, 12, (count, 3))
    frame = pd.DataFrame(sizes.astype(int), columns=["m", "n", "k"])
    return frame.assign(gpu=gpu, batch=1)


def test_an_a100_from_older_cards() -> None:
    table = pd.read_parquet(measured_data(FILE) / FILE)
    linear = table[table["op"] == "linear"].sample(4000, random_state=1)
    rows = linear.rename(columns={"B": "batch", "M": "m", "N": "n", "K": "k"}).assign(
        gpu=linear["device"].astype(str).map(NAMES), seconds=linear["latency_ms"].astype(float) / 1e3
    )
    own = rows["gpu"] == "a100-pcie-40gb"
    model = UnseenGPUModel.fit(rows[~own], SHEETS, SHEETS["a100-pcie-40gb"])
    assert accuracy(rows.loc[own, "seconds"], model.seconds(rows[own])).mape <= 0.12


def test_never_faster_than_the_peak_rate() -> None:
    rows = pd.concat([_random_shapes(200, "v100-pcie", 0), _random_shapes(200, "t4", 1)])
    flops = 2.0 * rows["m"] * rows["n"] * rows["k"]
    target = load_data_sheet("l4")
    # Times beyond any GPU's reach; what is learned from them must not get past the target's peak.
    model = UnseenGPUModel.fit(rows.assign(seconds=1e-9 + flops / 1e18), SHEETS, target)
    asked = _random_shapes(200, "l4", 2)
    floor = 2.0 * asked["m"] * asked["n"] * asked["k"] / target.operations_per_second("fp32", "max")
    assert (model.seconds(asked) >= floor * (1 - 1e-12)).all()


def test_small_power_limits_bound_the_rate() -> None:
    t4, v100 = SHEETS["t4"], SHEETS["v100-pcie"]
    assert sustained_rate(t4, 45e9) < 0.6 * t4.operations_per_second("fp32")
    assert sustained_rate(v100, 45e9) == v100.operations_per_second("fp32")


def test_bad_input_is_refused() -> None:
    rows = _random_shapes(50, "t4", 0).assign(seconds=1.0)
    with pytest.raises(ValueError, match="lack the column 'seconds'"):
        UnseenGPUModel.fit(rows.drop(columns="seconds"), SHEETS, SHEETS["p4"])
    with pytest.raises(ValueError, match="no data sheet is given for mystery"):
        UnseenGPUModel.fit(rows.assign(gpu="mystery"), SHEETS, SHEETS["p4"])
    with pytest.raises(ValueError, match="t4 is among the measured GPUs"):
        UnseenGPUModel.fit(rows, SHEETS, SHEETS["t4"])
    with pytest.raises(ValueError, match="no energy gain known for architecture 'xe2'"):
        sustained_rate(load_data_sheet("arc-b60"), 45e9)
