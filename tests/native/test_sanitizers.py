"""The kernels without Python, in buffers of exactly the size they need: plain, and while sanitizers watch."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lapidist.kernels.cpu.library import native

ROOT = Path(__file__).resolve().parents[2]
COMPILER = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)
BUILDS = dict.fromkeys(["portable", native("portable").supported()[0]])

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
    pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake"),
]


def build(directory: Path, name: str, sanitize: bool) -> Path:
    """The program ``native/tests/check_kernels.cpp`` with the flags that CMakeLists.txt has for a build."""
    options = ["-DLAPIDIST_CHECKS=ON", f"-DLAPIDIST_SANITIZE={'ON' if sanitize else 'OFF'}"]
    run(["cmake", "-S", str(ROOT), "-B", str(directory), f"-DCMAKE_CXX_COMPILER={COMPILER}", *options])
    run(["cmake", "--build", str(directory), "--target", f"check_kernels_{name}"])
    return directory / f"check_kernels_{name}"


def run(command: list[str]) -> None:
    """Print what a command says: pytest shows it, and with it the seed, if the command fails."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "2", "UBSAN_OPTIONS": "print_stacktrace=1"},
    )
    print(done.stdout)
    assert done.returncode == 0, f"{' '.join(command)} failed"


@pytest.mark.parametrize("name", BUILDS)
def test_nothing_is_touched_beyond_its_bounds(tmp_path: Path, name: str) -> None:
    run([str(build(tmp_path, name, sanitize=True))])


@pytest.mark.parametrize("name", BUILDS)
def test_optimized_as_in_the_package(tmp_path: Path, name: str) -> None:
    run([str(build(tmp_path, name, sanitize=False))])
