"""The kernels compile for data-centre and desktop GPUs, though none is here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

_ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["89", "90"])
def test_compiles(capability: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": str(_ROOT),
    }
    script = [sys.executable, "-m", "tests.kernels.triton.compile_launches", capability]
    found = subprocess.run(script, env=environment, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
