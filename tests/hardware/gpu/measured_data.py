"""Public measurements that the tests judge by, in the data folder beside the repository; they are not part of it."""

from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[4] / "shared" / "data" / "gemm_predictor"


def measured_data(*files: str) -> Path:
    """The folder, if it holds all ``files``; skips the test otherwise."""
    for file in files:
        if not (_FOLDER / file).is_file():
            pytest.skip(f"{file} is not in {_FOLDER}: measurements are not part of the repository")
    return _FOLDER
