"""What a user reads who builds on a machine without a C++ compiler."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cmake", "make", "gmake", "ninja"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    done = subprocess.run(
        [str(tools / "cmake"), "-S", str(ROOT), "-B", str(tmp_path / "build")],
        capture_output=True,
        text=True,
        env={"PATH": str(tools), "CXX": "/nonexistent/c++", "HOME": os.environ.get("HOME", "/")},
    )
    assert done.returncode != 0
    message = " ".join(done.stderr.split())
    assert (
        "no C++ compiler was found: install one (Debian: apt-get install g++) and run pip again." in message
    )
