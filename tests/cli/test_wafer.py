"""``lapidist wafer`` as a user types it."""

import json
from pathlib import Path

import pytest

from lapidist.hardware.wafer.cost_constants import calibrated_constants, read_constants
from tests.cli.command import Lapidist, command


@pytest.fixture
def lapidist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lapidist:
    return command(monkeypatch, capsys)


GEMV_RUNS = "P,Mt,Nt,G,cycles\n" + "".join(
    f"{side},{k},{n},{groups},{100 + 2 * side + 9 * (side // groups // 2 + groups // 2) + 3 * k + n}\n"
    for side in (16, 64, 144, 240)
    for groups in (2, 4, 8)
    for k in (1, 8)
    for n in (1, 8)
)


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


def test_products_side_by_side(lapidist: Lapidist, tmp_path: Path) -> None:
    pictures = [tmp_path / name for name in ("cycles.png", "hops.png", "memory.svg")]
    options = zip(("--plot-cycles", "--plot-hops", "--plot-memory"), pictures, strict=True)
    result = lapidist(
        "wafer", "gemm", "512x256x512", "--grid", "64", "--grids", "32,64x64",
        *(part for pair in options for part in pair),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    for word in ("meshgemm", "cannon", "summa *", "allgather *", "routes on core"):
        assert word in result.stdout
    assert is_png(pictures[0])
    assert is_png(pictures[1])
    assert pictures[2].read_text().lstrip().startswith("<?xml")


def test_json_of_products(lapidist: Lapidist) -> None:
    result = lapidist("wafer", "gemm", "512", "--grid", "64", "--clock-ghz", "0.85", "--aligned", "--json")
    assert result.returncode == 0, result.stderr
    rows = {row["algorithm"]: row for row in json.loads(result.stdout)}
    mesh = rows["meshgemm"]
    assert mesh["seconds"] == pytest.approx(mesh["cycles"] / 0.85e9)
    assert mesh["hops_per_step"] == 2
    assert sum(mesh["cycles_by_component"].values()) == pytest.approx(mesh["cycles"])
    assert rows["summa"]["refusal"]


def test_sums_side_by_side(lapidist: Lapidist, tmp_path: Path) -> None:
    picture = tmp_path / "sums.png"
    result = lapidist(
        "wafer", "gemv", "4096", "--grid", "64x32", "--groups", "4", "--device", "wse-3",
        "--grids", "32,64", "--plot-cycles", picture,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    for word in ("K-tree, K=1", "K-tree, K=3", "pipeline", "ring", "WSE-3"):
        assert word in result.stdout
    assert is_png(picture)


def test_a_request(lapidist: Lapidist, tmp_path: Path) -> None:
    pictures = tmp_path / "cache.png", tmp_path / "phases.png"
    result = lapidist(
        "wafer", "llm", "llama2-13b", "--prompt", "256", "--output", "64", "--decode-grid", "331x375",
        "--plot-cache", pictures[0], "--plot-phases", pictures[1],
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "fastest grids for prefill" in result.stdout
    assert "331x375" in result.stdout
    assert "output tokens/s" in result.stdout
    assert "tokens if rows are kept even" in result.stdout
    assert all(map(is_png, pictures))


def test_json_of_a_request(lapidist: Lapidist) -> None:
    options = ("--prefill-grid", "660", "--decode-grid", "360", "--kernels", "released", "--json")
    result = lapidist("wafer", "llm", "LLaMA3-8B", *options)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["output_tokens_per_second"] == pytest.approx(604.4, rel=0.05), "Table 2"
    total = found["prefill"]["cycles"] + found["transition"]["cycles"] + 128 * found["decode"]["cycles"]
    assert found["cycles"] == pytest.approx(total)
    assert found["prefill"]["fits"] is False
    assert found["cache"]["shift"] > 359 * found["cache"]["concat"] > 0
    shape = json.loads(lapidist("wafer", "llm", "llama-3-8b", *options).stdout)
    assert shape["cycles"] == found["cycles"], "the same shape under its public name"


def test_a_calibration_and_its_use(lapidist: Lapidist, tmp_path: Path) -> None:
    runs, constants, picture = tmp_path / "runs.csv", tmp_path / "own.yaml", tmp_path / "errors.png"
    runs.write_text(GEMV_RUNS)
    result = lapidist("wafer", "calibrate", runs, "--up-to", "144", "--save", constants, "--plot", picture)
    assert result.returncode == 0, result.stderr
    assert "held out: 12 runs" in result.stdout.replace("\n", " ")
    assert "warning" not in result.stderr
    assert read_constants(constants).sources["hop"] == "runs.csv"
    assert is_png(picture)
    result = lapidist("wafer", "gemv", "1024", "--grid", "64", "--constants", constants, "--json")
    assert result.returncode == 0, result.stderr


def test_a_calibration_says_what_stays_open(lapidist: Lapidist, tmp_path: Path) -> None:
    runs = tmp_path / "runs.csv"
    rows = GEMV_RUNS.splitlines()
    runs.write_text("\n".join(row for row in rows if row.startswith("P") or row.split(",")[3] == "8"))
    result = lapidist("wafer", "calibrate", runs, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert any("hop" in sentence and "stage" in sentence for sentence in found["warnings"])
    assert found["constants"]["hop"]["standard_error"] is None
    assert "warning: the measurements cannot tell" in result.stderr


def test_tables_of_the_paper(lapidist: Lapidist, tmp_path: Path) -> None:
    picture = tmp_path / "errors.svg"
    result = lapidist("wafer", "reproduce", "--plot", picture)
    assert result.returncode == 0, result.stderr
    for word in ("Table 2", "Table 8", "held out", "not modelled: T10", "111x to 215x"):
        assert word in result.stdout
    assert picture.exists()
    found = json.loads(lapidist("wafer", "reproduce", "--table", "5", "--json").stdout)
    assert {row["table"] for row in found["cells"]} == {5}
    assert found["cells"][1]["ours"] == 137548


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gemm", "4096x12"), "the size of a product is one side or MxKxN"),
        (("gemm", "64", "--grid", "9x9x9"), "a grid is a side or rows x columns"),
        (("gemm", "64", "--grid", "2000"), "do not fit on Cerebras WSE-2"),
        (("gemm", "64", "--device", "dojo"), "no calibrated cost constants for 'dojo'"),
        (("gemm", "64", "--device", "wse-9"), "no wafer device named 'wse-9'"),
        (("gemm", "64", "--constants", "none.yaml"), "none.yaml: cannot be read"),
        (("gemm", "0"), "the size of a product is one side or MxKxN"),
        (("gemm", "64x-2x64"), "the size of a product is one side or MxKxN"),
        (("gemm", "64", "--grid", "0"), "at least one row and one column"),
        (("gemm", "64", "--grid", "-3"), "a grid is a side or rows x columns"),
        (("gemm", "64", "--clock-ghz", "nan"), "--clock-ghz"),
        (("gemv", "64", "--batch", "0"), "--batch"),
        (("gemm", "64", "--grids", "32,,64", "--plot-cycles", "c.png"), "a grid is a side or rows x columns"),
        (("llm", "LLaMA3-8B", "--prompt", "0"), "--prompt"),
        (
            ("llm", "LLaMA3-8B", "--prompt", "99999999999"),
            "no grid of this wafer can hold one layer in prefill",
        ),
        (("llm", "LLaMA3-8B", "--decode-grid", "0x9", "--prefill-grid", "720"), "at least one row"),
        (("reproduce", "--table", "9"), "--table"),
        (("run", "nowhere"), "nowhere"),
        (("gemm", "64", "--plot-hops", "hops.txt"), "hops.txt"),
        (("gemm", "64", "--plot-hops", "nowhere/hops.png"), "the folder nowhere does not exist"),
        (("gemv", "64", "--groups", "800"), "number of groups"),
        (("llm", "gpt-9"), "neither a checkpoint directory nor a known shape"),
        (("llm", "LLaMA3-8B", "--kernels", "fast"), "unknown kernels 'fast'"),
        (("llm", "LLaMA3-8B", "--code-bytes", "50000"), "code_bytes must be from 0"),
        (("llm", "LLaMA3-8B", "--prefill-grid", "60", "--decode-grid", "360"), "use a larger region"),
        (("calibrate", "none.csv"), "none.csv: cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(
    lapidist: Lapidist, arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = lapidist("wafer", *arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


FILES = {
    "empty.yaml": "",
    "list.yaml": "- 1\n- 2\n",
    "cut.yaml": "hop: {cycles: [",
    "deep.yaml": "[" * 20000,
    "self.yaml": "extends: self.yaml\nname: x\n",
    "negative.yaml": "extends: wse-2\nname: x\nrows: {value: -4, source: y}\n",
    "huge.yaml": "extends: wse-2\nname: x\nrows: {value: 1000000000000, source: y}\n",
    "text.yaml": "extends: wse-2\nname: x\nclock_hz: {value: fast, source: y}\n",
    "key.yaml": "extends: wse-2\nname: x\n7: {value: 1, source: y}\n",
    "own.yaml": "extends: wse-2\nname: own\n",
    "nan.csv": "P,Mt,Kt,Nt,cycles\n16,1,1,1,nan\n",
    "negative.csv": "P,Mt,Kt,Nt,cycles\n16,-1,1,1,100\n",
    "huge.csv": "P,Mt,Kt,Nt,cycles\n1000000000000,1,1,1,100\n",
    "short.csv": "P,Mt,Kt,Nt,cycles\n16,1,1\n",
    "other.csv": "a,b\n1,2\n",
    "header.csv": "P,Mt,Kt,Nt,cycles\n",
    "field.csv": 'P,Mt,Kt,Nt,cycles\n"' + "9" * 200000 + '",1,1,1,1\n',
    "groups.csv": "P,Mt,Nt,G,cycles\n16,1,1,99,100\n",
}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gemm", "64", "--device", "empty.yaml"), "empty.yaml: expected keys and values"),
        (("gemm", "64", "--device", "list.yaml"), "list.yaml: expected keys and values"),
        (("gemm", "64", "--device", "cut.yaml"), "cut.yaml: not a YAML file"),
        (("gemm", "64", "--device", "deep.yaml"), "deep.yaml: not a YAML file"),
        (("gemm", "64", "--device", "self.yaml"), "self.yaml: extends itself"),
        (("gemm", "64", "--device", "negative.yaml"), "negative.yaml: rows"),
        (("gemm", "64", "--device", "huge.yaml"), "huge.yaml: rows"),
        (("gemm", "64", "--device", "text.yaml"), "text.yaml: clock_hz"),
        (("gemm", "64", "--device", "key.yaml"), "key.yaml: sources.7"),
        (("gemm", "64", "--device", "own.yaml"), "no calibrated cost constants for 'own'"),
        (("gemm", "64", "--constants", "deep.yaml"), "deep.yaml: not YAML"),
        (("gemm", "64", "--constants", "empty.yaml"), "empty.yaml: expected one line"),
        (("calibrate", "nan.csv"), "nan.csv, line 2: cycles must be a number above 0, got 'nan'"),
        (("calibrate", "negative.csv"), "negative.csv, line 2: Mt must be a whole number"),
        (("calibrate", "huge.csv"), "huge.csv, line 2: P must be a whole number from 1 to 99999"),
        (("calibrate", "short.csv"), "short.csv, line 2: Nt must be a whole number"),
        (("calibrate", "other.csv"), "other.csv: expected the columns P, Mt, Kt, Nt, cycles"),
        (("calibrate", "header.csv"), "header.csv: no rows below the header"),
        (("calibrate", "field.csv"), "field.csv, line"),
        (("calibrate", "groups.csv"), "groups.csv, line 2: a number of groups"),
        (("calibrate", "."), "cannot be read"),
        (("calibrate", "nan.csv", "--save", "nowhere/own.yaml"), "the folder nowhere does not exist"),
    ],
)
def test_broken_files_are_one_sentence(
    lapidist: Lapidist, arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    result = lapidist("wafer", *arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


def test_a_device_of_ones_own_with_the_constants_of_another(
    lapidist: Lapidist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(FILES["own.yaml"])
    options = ("wafer", "gemm", "512", "--grid", "64", "--json")
    own = lapidist(*options, "--device", "own.yaml", "--constants", "wse-2")
    assert own.returncode == 0, own.stderr
    cycles = [[row["cycles"] for row in json.loads(text)] for text in (own.stdout, lapidist(*options).stdout)]
    assert cycles[0] == cycles[1]


def test_what_cannot_be_written_is_one_sentence(lapidist: Lapidist, tmp_path: Path) -> None:
    runs = tmp_path / "runs.csv"
    runs.write_text(GEMV_RUNS)
    for option, name in (("--save", "own.yaml"), ("--plot", "own.png")):
        result = lapidist("wafer", "calibrate", runs, option, f"/proc/{name}")
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
        assert name in result.stderr


def test_a_calibration_without_small_meshes(lapidist: Lapidist, tmp_path: Path) -> None:
    runs = tmp_path / "runs.csv"
    runs.write_text(GEMV_RUNS)
    result = lapidist("wafer", "calibrate", runs, "--up-to", "4")
    assert result.returncode == 2
    assert "the smallest has 16" in result.stderr
    assert calibrated_constants("wse-3").hop > 0
