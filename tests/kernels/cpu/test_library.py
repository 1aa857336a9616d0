"""Which build of the native library is loaded, and what a user reads if none can be."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from lapidist.kernels.cpu import library
from lapidist.kernels.cpu.library import NativeLibraryError, native

BUILDS = ["avx512_bf16", "avx512_vnni", "avx512", "avx_vnni", "avx2", "portable"]


@pytest.fixture(autouse=True)
def forgotten_choice(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The choice is made anew in each test, and after it."""
    monkeypatch.delenv("LAPIDIST_ISA", raising=False)
    native.cache_clear()
    yield
    native.cache_clear()


def test_what_the_processor_runs_is_listed_best_first() -> None:
    supported = native().supported()
    assert supported == [name for name in BUILDS if name in supported]
    assert supported[-1] == "portable"


def test_the_best_is_taken() -> None:
    assert native().isa == native().supported()[0]


@pytest.mark.parametrize("name", native("portable").supported())
def test_another_build_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert native(name).isa == name
    monkeypatch.setenv("LAPIDIST_ISA", name)
    native.cache_clear()
    assert native().isa == name


def test_an_empty_wish_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPIDIST_ISA", "")
    assert native().isa == native().supported()[0]


@pytest.mark.parametrize("name", ["sse9", "AVX2"])
def test_what_the_processor_does_not_run(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("LAPIDIST_ISA", name)
    with pytest.raises(NativeLibraryError) as error:
        native()
    every = ", ".join(native("portable").supported())
    assert (
        str(error.value) == f"LAPIDIST_ISA is {name!r}, and this processor runs {every}: choose one of them"
    )


@pytest.mark.parametrize("missing", ["portable", native("portable").supported()[0]])
def test_a_missing_build_says_what_to_do(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def fail(name: str) -> object:
        if name.endswith(f"_native_{missing}"):
            raise ImportError(f"No module named {name!r}")
        return present

    present = native("portable")
    native.cache_clear()
    monkeypatch.setattr(library, "import_module", fail)
    with pytest.raises(
        NativeLibraryError, match=rf"\({missing}\) cannot be loaded .*with pip.*g\+\+"
    ) as error:
        native()
    assert "\n" not in str(error.value)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_threads_are_those_of_pytorch() -> None:
    """A second OpenMP runtime would bring a second pool of threads, which fights the first one for the cores."""
    program = (
        "import torch\n"
        "from lapidist.kernels.cpu.library import native\n"
        "from lapidist.kernels.cpu.linear import multiply, pack_weight\n"
        "torch.set_num_threads(2)\n"
        "x, out = torch.ones(2, 64), torch.empty(2, 256)\n"
        "multiply('gemv', x, pack_weight(torch.ones(256, 64)), out)\n"
        "assert (out == 64).all()\n"
        "print(open('/proc/self/maps').read())\n"
    )
    maps = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    files = {line.split()[-1] for line in maps.splitlines() if "/" in line}
    runtimes = {
        name for name in files if any(each in name.rsplit("/")[-1] for each in ("gomp", "libomp", "iomp"))
    }
    assert any("_native_" in name for name in files)
    assert len(runtimes) == 1, f"OpenMP runtimes: {sorted(runtimes)}"
    assert "torch" in runtimes.pop()
