"""Recipes by name and from YAML."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.models.quantization_config import WeightFormat
from lapidist.quantization.recipe import RECIPES, Recipe, load_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_named_recipe_survives_yaml(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    file = tmp_path / "other.yaml"
    file.write_text(recipe.to_yaml())
    assert load_recipe(str(file)) == recipe


def test_qoq_is_w4a8kv4() -> None:
    formats = load_recipe("qoq-g128").formats
    assert (formats.weights, formats.activation_bits, formats.kv_bits) == (WeightFormat(4, 128), 8, 4)
    assert load_recipe("qoq-channel").formats.weights == WeightFormat(4)


def test_a_file_changes_a_named_recipe_field_by_field(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "base: qoq-g128\nkv_cache: 8\nweights: {rounding: nearest}\nattention_smoothing: null\nrotation: false\n"
    )
    recipe, base = load_recipe(str(file)), load_recipe("qoq-g128")
    assert recipe.name == "mine"
    assert recipe.kv_cache == 8
    assert recipe.weights.group_size == 128
    assert recipe.weights.rounding == "nearest"
    assert recipe.passes == tuple(p for p in base.passes if p not in ("rotation", "attention_smoothing"))


def test_only_passes_that_look_at_activations_need_statistics() -> None:
    assert not load_recipe("rtn-w4a8kv4-g128").needs_statistics
    assert not Recipe(name="x", rotation=True, value_rotation=True).needs_statistics
    assert load_recipe("kv4-smooth").needs_statistics


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("base: qoq-g12", "base is 'qoq-g12'"),
        ("wieghts: {bits: 4}", "wieghts"),
        ("weights: {bits: 5}", "weights.bits"),
        ("weights: {bits: 4, group_size: 64}", "group_size must be 128"),
        ("weights: {bits: 8, group_size: 128}", "group_size must be 128"),
        ("weights: {clip: true}", "rounding and clip"),
        ("activations: 8", "need weights of 4 or 8 bits"),
        ("base: qoq-g128\nsmoothquant: {alpha: 0.5}", "rotation cannot go with"),
        ("base: awq-w4a16-g128\nsmoothquant: {alpha: 0.5}", "smoothquant cannot go with awq"),
        ("base: awq-w4a16-g128\noutput_smoothing: {}", "awq cannot go with output_smoothing"),
        ("awq: true", "awq needs weights"),
        ("attention_smoothing: {alpha: 2}", "attention_smoothing.alpha"),
        ("attention_smoothing: {search: true}", "needs a kv_cache of 4 or 8 bits"),
        ("calibration: {sequences: 0}", "calibration.sequences"),
        ("- a list", "must hold the fields of a recipe"),
        ("", "must hold the fields of a recipe"),
        ("a: [1", "not valid YAML"),
        ("1: 2", "names of fields"),
    ],
)
def test_what_is_wrong_with_a_file(text: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=problem) as raised:
        load_recipe(str(file))
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_unknown_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean qoq-g128"):
        load_recipe("qoq-g12")
    with pytest.raises(ValueError, match="cannot be read"):
        load_recipe(str(tmp_path / "none.yaml"))


@given(st.text())
def test_any_text_is_a_recipe_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("yaml") / "any.yaml"
    file.write_text(text, encoding="utf-8", newline="")
    try:
        load_recipe(str(file))
    except ValueError as error:
        assert str(file) in str(error)  # noqa: PT017


def test_calibration_can_be_changed() -> None:
    recipe = load_recipe("qoq-g128").calibrated_by({"sequences": 3, "seed": 7})
    assert (recipe.calibration.sequences, recipe.calibration.length, recipe.calibration.seed) == (3, 512, 7)
    with pytest.raises(ValueError, match=r"calibration\.length"):
        recipe.calibrated_by({"length": 1})
