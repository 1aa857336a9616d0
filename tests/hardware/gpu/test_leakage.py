"""The guard raises for a shared key and for copies of one file; it passes what is disjoint."""

import pandas as pd
import pytest

from lapidist.hardware.gpu.leakage import Copies, LeakageError, check_no_leakage
from lapidist.hardware.gpu.splits import site20


def _rows(system: str = "h200_sxm", version: str = "0.5.14", sites: int = 10) -> pd.DataFrame:
    frame = pd.DataFrame([{"m": m, "n": 128 * n, "k": 256} for n in range(1, sites + 1) for m in (1, 2, 4)])
    return frame.assign(
        dtype="bfloat16", backend="SGLang", version=version, system=pd.Categorical([system] * len(frame))
    )


def test_whole_sites_pass() -> None:
    rows = _rows()
    check_no_leakage(*site20(rows).apply(rows))


def test_one_shared_key_is_found() -> None:
    rows = _rows()
    train, test = site20(rows).apply(rows)
    with pytest.raises(LeakageError, match=r"1 keys are in both .* m=1, n=\d+, k=256"):
        check_no_leakage(pd.concat([train, test.iloc[:1]]), test)


def test_the_same_shape_on_another_gpu_is_another_key() -> None:
    check_no_leakage(_rows("h200_sxm"), _rows("l40s"))


def test_copied_files_may_not_be_on_both_sides() -> None:
    with pytest.raises(LeakageError, match="GB300"):
        check_no_leakage(_rows("b300_sxm"), _rows("gb300"))
    check_no_leakage(_rows("b300_sxm", "0.5.13"), _rows("gb300"))
    other = Copies("one file, two names", ({"system": "one"}, {"system": "two"}))
    with pytest.raises(LeakageError, match="two names"):
        check_no_leakage(_rows("one"), _rows("two"), copies=[other])


def test_rows_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="test rows lack the column 'version'"):
        check_no_leakage(_rows(), _rows().drop(columns="version"))
