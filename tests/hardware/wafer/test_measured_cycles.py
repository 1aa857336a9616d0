"""Tables of measured cycles: what is read and what is refused."""

from pathlib import Path

import pytest

from lapidist.hardware.wafer.measured_cycles import read_kernel_runs


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_both_tables_are_told_by_their_columns(tmp_path: Path) -> None:
    gemm = read_kernel_runs(write(tmp_path / "a.csv", "P,Mt,Kt,Nt,cycles\n16,8,1,2,2821.0\n80,1,1,1,12828\n"))
    assert [run.side for run in gemm] == [16, 80]
    description, runs = gemm[0].measurement.program[0]
    assert runs == 1
    assert description.name == "meshgemm"
    assert {name: description.parameters[f"tile_{name}"] for name in "mkn"} == {"m": 8, "k": 1, "n": 2}
    assert gemm[0].measurement.cycles == 2821
    gemv = read_kernel_runs(write(tmp_path / "b.csv", "note, G ,P,Mt,Nt,cycles\nfirst,4,16,3,8,255\n"))
    description, _ = gemv[0].measurement.program[0]
    assert description.parameters["tile_k"] == 3
    assert description.parameters["tile_n"] == 8
    assert description.summary().stages == 4
    assert gemv[0].columns == {"P": 16, "Mt": 3, "Nt": 8, "G": 4}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("P,Mt,cycles\n16,1,2\n", "expected the columns P, Mt, Kt, Nt, cycles"),
        ("", "no header"),
        ("P,Mt,Nt,G,cycles\n", "no rows"),
        ("P,Mt,Nt,G,cycles\n16,1,1,0,200\n", "line 2: G must be a whole number from 1 to 99999, got '0'"),
        ("P,Mt,Nt,G,cycles\n16,1,1.5,2,200\n", "line 2: Nt must be"),
        ("P,Mt,Nt,G,cycles\n16,1,1,2\n", "line 2: cycles must be a number above 0"),
        ("P,Mt,Nt,G,cycles\n16,1,1,2,-3\n", "cycles must be"),
        ("P,Mt,Nt,G,cycles\n16,1,1,2,nan\n", "cycles must be"),
        ("P,Mt,Nt,G,cycles\n16,1,1,17,240\n", "line 2: .*from 1 to 16"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "runs.csv", text)
    with pytest.raises(ValueError, match=said) as error:
        read_kernel_runs(path)
    assert str(path) in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_kernel_runs(tmp_path / "none.csv")
