"""Outcomes on disk."""

import json
from pathlib import Path

import pytest

from lapidist.evaluation.long_context.case import Outcome
from lapidist.evaluation.long_context.methods import parse_methods
from lapidist.evaluation.long_context.store import OutcomeStore, fingerprint

FULL, GEM = parse_methods("full,gemfilter:layer=3", 0.5)
OUTCOMES = [
    Outcome("11%", 0.5, "réponse\n", ("a", "b"), 100, 50),
    Outcome("22%", 1.0, "", ("c",), 90, 90, "short"),
]


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    store = OutcomeStore(tmp_path / "new" / "folder", {"seed": 1, "chat_template": True})
    assert store.load(GEM, "512") is None
    store.save(GEM, "512", OUTCOMES)
    assert (
        OutcomeStore(tmp_path / "new" / "folder", {"seed": 1, "chat_template": True}).load(GEM, "512")
        == OUTCOMES
    )
    assert store.load(FULL, "512") is None
    assert store.load(GEM, "1024") is None
    [file] = (tmp_path / "new" / "folder").iterdir()
    assert json.loads(file.read_text())["settings"] == {"seed": 1, "chat_template": True}


def test_results_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    OutcomeStore(tmp_path, {"seed": 1}).save(GEM, "512", OUTCOMES)
    with pytest.raises(
        ValueError, match=r"gemfilter_layer=3.512.json is of another run \(seed is 1 there and 2 now\)"
    ):
        OutcomeStore(tmp_path, {"seed": 2}).load(GEM, "512")
    [other] = parse_methods("gemfilter:layer=3", 0.25)
    with pytest.raises(ValueError, match="prompt_filter"):
        OutcomeStore(tmp_path, {"seed": 1}).load(other, "512")


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"cases": [{"row": 1}], "settings": {}, "prompt_filter": null}']
)
def test_a_broken_file(tmp_path: Path, content: str) -> None:
    store = OutcomeStore(tmp_path, {})
    store.save(FULL, "512", OUTCOMES)
    (tmp_path / "full.512.json").write_text(content)
    with pytest.raises(ValueError, match=r"full.512.json is no file of outcomes"):
        store.load(FULL, "512")


def test_no_folder_keeps_nothing() -> None:
    store = OutcomeStore(None, {})
    store.save(FULL, "512", OUTCOMES)
    assert store.load(FULL, "512") is None


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be made"):
        OutcomeStore(tmp_path / "file" / "folder", {})


def test_checkpoints_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"12")
    before = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"123")
    assert fingerprint(tmp_path) != before
