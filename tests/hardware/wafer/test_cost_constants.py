"""Constants of the cost model: what ships, and files of a user's own."""

from dataclasses import replace
from pathlib import Path

import pytest

from lapidist.hardware.wafer.cost_constants import (
    CALIBRATED_DEVICES,
    CONSTANT_NAMES,
    calibrated_constants,
    meaning,
    read_constants,
)


@pytest.mark.parametrize("device", CALIBRATED_DEVICES)
def test_every_shipped_constant_says_where_it_comes_from(device: str) -> None:
    constants = calibrated_constants(device)
    for name in CONSTANT_NAMES:
        assert getattr(constants, name) > 0
        assert constants.sources[name]
        assert all(meaning(name))


def test_a_hop_and_a_stage_are_what_the_network_needs() -> None:
    """WSE-3: 2 cycles a hop and 10 a stage came out of 75 measurements; WSE-2: 1 cycle a hop (arXiv 2404.15888)."""
    wse2, wse3 = calibrated_constants("wse-2"), calibrated_constants("wse-3")
    assert wse3.hop == pytest.approx(2, abs=0.05)
    assert wse3.stage == pytest.approx(10, abs=0.2)
    assert wse2.hop == 1
    assert wse2.hop < wse2.stage


def test_written_constants_read_back(tmp_path: Path) -> None:
    constants = calibrated_constants("wse-3").with_values({"hop": 1.25, "stage": 0}, "measured here")
    constants.write(tmp_path / "own.yaml", "ours\nfor a test")
    found = read_constants(tmp_path / "own.yaml")
    assert found == constants
    assert found.sources["hop"] == "measured here"
    assert found.sources["launch"] == calibrated_constants("wse-3").sources["launch"]


def test_an_error_is_stated_until_values_change(tmp_path: Path) -> None:
    shipped = calibrated_constants("wse-2")
    assert 0.1 < shipped.relative_error < 0.16
    assert shipped.sources["relative_error"]
    shipped.write(tmp_path / "same.yaml", "a copy")
    assert read_constants(tmp_path / "same.yaml").relative_error == pytest.approx(shipped.relative_error)
    changed = shipped.with_values({"hop": 2.0}, "measured here")
    assert changed.relative_error is None
    assert "relative_error" not in changed.sources
    changed.write(tmp_path / "own.yaml", "ours")
    assert "relative_error" not in (tmp_path / "own.yaml").read_text()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("relative_error: 0.1", "relative_error needs 'share' and 'source'"),
        ("relative_error: {share: -1, source: x}", "relative_error must be a share from 0, got -1"),
        ("relative_error: {share: .nan, source: x}", "relative_error must be a share from 0, got nan"),
    ],
)
def test_wrong_errors_are_named(tmp_path: Path, row: str, said: str) -> None:
    path = tmp_path / "own.yaml"
    calibrated_constants("wse-2").with_values({}, "x").write(path, "ours")
    path.write_text(f"{path.read_text()}\n{row}\n")
    with pytest.raises(ValueError, match=said):
        read_constants(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hop: {cycles: 1, source: x}", "lacks launch"),
        ("- 1", "expected one line"),
        ("hop: {cycles: [", "not YAML"),
        (None, "cannot be read"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "own.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        read_constants(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hop: {cycles: -1, source: x}", "hop must be a number of cycles from 0"),
        ("hop: {cycles: fast, source: x}", "hop must be a number"),
        ("hop: 3", "hop needs 'cycles'"),
        ("warp: {cycles: 1, source: x}\nhop: {cycles: 1, source: x}", "unknown cost constant 'warp'"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "own.yaml"
    calibrated_constants("wse-3").write(path, "ours")
    rest = path.read_text().split("\nhop:\n")
    tail = "\n".join(rest[1].splitlines()[2:])
    path.write_text(f"{rest[0]}\n{line}\n{tail}\n")
    with pytest.raises(ValueError, match=said):
        read_constants(path)


def test_values_that_are_no_cycles_are_refused() -> None:
    with pytest.raises(ValueError, match="stage must be a number"):
        replace(calibrated_constants("wse-2"), stage=float("nan"))
    with pytest.raises(ValueError, match="unknown cost constant"):
        calibrated_constants("wse-2").with_values({"warp": 1}, "x")
    with pytest.raises(ValueError, match="no calibrated cost constants for 'dojo'"):
        calibrated_constants("dojo")
