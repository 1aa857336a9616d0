"""Prompt filters as a user types them: ``generate`` with its pictures, and ``calibrate-filter``."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from lapidist.cli import calibrate_filter as command_module
from lapidist.cli.calibrate_filter_plot import plot_layers
from lapidist.cli.filter_options import parse_keep
from lapidist.cli.filter_plot import score_levels
from lapidist.evaluation.filter_calibration import FilterCalibration
from lapidist.evaluation.filter_policy_search import Judgement, Trial
from lapidist.models.filter_config import AdaptivePolicy, GemFilterPolicy
from tests.cli.command import Lapidist, command

PROMPT = "the cat sat on the mat and the dog ran after the cat. <b>Grüße</b> 日本 {x} " * 4
FILTER = ["--prompt-filter", "gemfilter", "--filter-layer", "1", "--filter-keep", "20%"]


@pytest.fixture
def lapidist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lapidist:
    return command(monkeypatch, capsys)


def test_show_filter_prints_the_prompt_with_marks(lapidist: Lapidist, llama_directory: Path) -> None:
    result = lapidist("generate", llama_directory, PROMPT, *FILTER, "--show-filter", "--max-tokens", 3)
    assert result.returncode == 0, result.stderr
    shown, _, rest = result.stdout.partition("--- gemfilter: ")
    assert shown.replace("⟦", "").replace("⟧", "").strip() == PROMPT.strip()
    kept = int(re.match(r"(\d+) of", rest)[1])  # type: ignore[index]
    assert 0 < shown.count("⟦") <= kept
    assert "by layer 1" in rest


def test_json_has_the_report(lapidist: Lapidist, llama_directory: Path) -> None:
    result = lapidist(
        "generate", llama_directory, PROMPT, *FILTER, "--show-filter", "--json", "--max-tokens", 3
    )
    report = json.loads(result.stdout)["prompt_filter"]
    assert report["kept_tokens"] == len(report["kept"])
    assert report["spans"]


@pytest.mark.parametrize("method", ["gemfilter", "snapkv", "streamingllm"])
@pytest.mark.parametrize("suffix", [".html", ".png", ".svg"])
def test_pictures(
    lapidist: Lapidist, llama_directory: Path, tmp_path: Path, method: str, suffix: str
) -> None:
    file = tmp_path / f"filter{suffix}"
    options = ["--prompt-filter", method, "--filter-keep", "30", "--filter-plot", file, "--max-tokens", 2]
    result = lapidist("generate", llama_directory, PROMPT, *options)
    assert result.returncode == 0, result.stderr
    assert f"drawn to {file}" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    if suffix == ".html":
        page = file.read_text()
        body = page.partition("<pre>")[2].partition("</pre>")[0]
        assert "&lt;b&gt;Grüße&lt;/b&gt; 日本 {x}" in re.sub(r"</?(b|span)( [^>]*)?>", "", body)
        assert page.count('<b class="s') >= 1
    else:
        assert file.read_bytes()[:4] in (b"\x89PNG", b"<?xm")


def test_a_plain_run_has_nothing_to_draw(lapidist: Lapidist, llama_directory: Path, tmp_path: Path) -> None:
    file = tmp_path / "filter.html"
    options = [
        "--prompt-filter",
        "gemfilter",
        "--filter-keep",
        "5000",
        "--filter-plot",
        file,
        "--max-tokens",
        2,
    ]
    result = lapidist("generate", llama_directory, PROMPT, *options, "--show-filter")
    assert result.returncode == 0
    assert "nothing to draw" in result.stderr
    assert "all tokens would be kept" in result.stdout
    assert not file.exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--filter-keep", "10"], "--prompt-filter"),
        (["--show-filter"], "--prompt-filter"),
        (["--prompt-filter", "oracle"], "gemfilter"),
        (["--prompt-filter", '{"method": '], "JSON"),
        (["--prompt-filter", '{"method": "gemfilter", "x": 1}'], "'x'"),
        (["--prompt-filter", "gemfilter", "--filter-keep", "many"], "many"),
        (["--prompt-filter", "gemfilter", "--filter-keep", "0"], "keep"),
        (["--prompt-filter", "gemfilter", "--filter-layer", "77"], "77"),
        (["--prompt-filter", '{"method": "gemfilter", "policy": "calibrated"}'], "calibrate-filter"),
        (["--prompt-filter", "gemfilter", "--filter-plot", "x.txt"], "x.txt"),
        (["--prompt-filter", "gemfilter", "--filter-plot", "no/folder/x.html"], "no/folder"),
    ],
)
def test_mistakes_end_with_one_line(
    lapidist: Lapidist, llama_directory: Path, options: list[str], named: str
) -> None:
    result = lapidist("generate", llama_directory, PROMPT, *options)
    assert result.returncode == 2
    assert named in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("text", "expected"), [("1024", 1024), ("0.1", 0.1), ("10%", 0.1), ("100%", 1.0)])
def test_keep(text: str, expected: float) -> None:
    found = parse_keep(text)
    assert found == expected
    assert type(found) is type(expected)


def test_levels_are_tenths_of_the_ranks() -> None:
    assert score_levels([float(i) for i in range(20)]) == [i // 2 for i in range(20)]
    assert score_levels([5.0, 5.0, 1.0, 5.0]) == [2, 2, 0, 2]
    assert score_levels([3.0]) == [0]


@pytest.fixture
def llama(llama_directory: Path, tmp_path: Path) -> Path:
    return shutil.copytree(llama_directory, tmp_path / "llama")


OWN = GemFilterPolicy(softmax=True, window=4, pool=13, keep_last=24)
TRIALS = (
    Trial(GemFilterPolicy(), 0.1, 1, Judgement(0.0, -4.0)),
    Trial(GemFilterPolicy(keep_last=24), 0.1, 1, Judgement(0.5, -2.0)),
    Trial(OWN, 0.1, 1, Judgement(1.0, -0.1)),
    Trial(OWN, 0.1, 1, Judgement(1.0, -0.1)),
)
SWEEP = FilterCalibration(
    (100, 200),
    5,
    (0.1, 0.2),
    0.95,
    1.0,
    np.array([[0.0, 0.4], [0.6, 1.0]]),
    np.array([[0.1, 0.5], [0.7, 1.0]]),
    np.array([[30.0, 4], [1, 0]]),
    np.array([[0.0, 1], [0.5, 1]]),
    np.array([[5.0, 3], [2, 1.5]]),
    OWN,
    TRIALS,
    AdaptivePolicy(mass=0.6),
)


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that finds something, which a random model does not."""
    monkeypatch.setattr(command_module, "_calibrate", lambda *arguments: SWEEP)


@pytest.mark.usefixtures("swept")
def test_calibrate_writes_and_reports(lapidist: Lapidist, llama: Path, tmp_path: Path) -> None:
    plot = tmp_path / "layers.svg"
    result = lapidist("calibrate-filter", llama, "--plot", plot)
    assert result.returncode == 0, result.stderr
    assert "layer 1 with 20% kept" in result.stdout
    assert "100 to 200 tokens" in result.stdout
    assert "the best of 3" in result.stdout
    stored = {"layer": 1, "keep": 0.2, "gemfilter": vars(OWN), "adaptive": vars(AdaptivePolicy(mass=0.6))}
    assert json.loads((llama / "config.json").read_text())["prompt_filter"] == stored
    assert plot.read_text().lstrip().startswith("<?xml")
    copy = lapidist("calibrate-filter", llama, "--out", tmp_path / "copy", "--json")
    report = json.loads(copy.stdout)
    assert (report["layer"], report["policy"], report["adaptive"]["mass"]) == (1, vars(OWN), 0.6)
    assert [trial["judgement"]["accuracy"] for trial in report["policies_tried"]] == [0.0, 0.5, 1.0, 1.0]
    assert (tmp_path / "copy" / "config.json").exists()


@pytest.mark.usefixtures("swept")
def test_dry_run_and_the_bundled_model(lapidist: Lapidist, llama: Path) -> None:
    before = (llama / "config.json").read_bytes()
    assert lapidist("calibrate-filter", llama, "--dry-run").returncode == 0
    assert (llama / "config.json").read_bytes() == before
    refused = lapidist("calibrate-filter", "tiny")
    assert refused.returncode == 2
    assert "--out" in refused.stderr


def test_a_model_that_does_not_retrieve_is_left_alone(
    lapidist: Lapidist, llama: Path, tmp_path: Path
) -> None:
    before = (llama / "config.json").read_bytes()
    text = tmp_path / "text.txt"
    text.write_text("The cat sat on the mat. The dog ran after it. " * 300)
    options = ["--text", text, "--length", 300, "--trials", 1, "--keep", "0.2", "--plot", tmp_path / "x.png"]
    result = lapidist("calibrate-filter", llama, *options)
    assert result.returncode == 1, result.stderr
    assert "no retrieval" in result.stdout
    assert (llama / "config.json").read_bytes() == before
    assert (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--keep", "x"], "x"),
        (["--keep", "2"], "2"),
        (["--style", "song"], "song"),
        (["--length", "9999"], "context"),
        (["--prompt-filter", "snapkv"], "snapkv"),
        (["--prompt-filter", '{"method": "gemfilter", "pool": 2}'], "pool"),
        (["--plot", "x.doc"], "x.doc"),
        (["--text", "missing.txt"], "missing.txt"),
    ],
)
def test_calibrate_mistakes(lapidist: Lapidist, llama: Path, options: list[str], named: str) -> None:
    result = lapidist("calibrate-filter", llama, *options)
    assert result.returncode == 2
    assert named in result.stderr
    assert result.stderr.count("\n") == 1


def test_plot_of_a_sweep_without_success(tmp_path: Path) -> None:
    nothing = FilterCalibration((9,), 1, (0.1,), 0.95, 0.0, *[np.zeros((2, 1))] * 5, GemFilterPolicy())
    plot_layers(nothing, tmp_path / "x.png", "x")
    assert (tmp_path / "x.png").exists()
