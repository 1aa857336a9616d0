"""Sampling defaults of checkpoints."""

import json
from pathlib import Path

import pytest

from lapidist.models.errors import CheckpointError
from lapidist.models.generation_config import GenerationDefaults, load_generation_defaults


def written(directory: Path, generation: object = None, config: object = None) -> Path:
    for name, content in (("generation_config.json", generation), ("config.json", config)):
        if content is not None:
            (directory / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return directory


def test_nothing_there(tmp_path: Path) -> None:
    assert load_generation_defaults(tmp_path) == GenerationDefaults()


def test_values_of_an_instruct_model(tmp_path: Path) -> None:
    generation = {
        "bos_token_id": 151643,
        "do_sample": True,
        "eos_token_id": [151645, 151643],
        "pad_token_id": 151643,
        "repetition_penalty": 1.05,
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
        "min_p": None,
        "max_new_tokens": 2048,
        "transformers_version": "4.43.1",
    }
    assert load_generation_defaults(
        written(tmp_path, generation, {"eos_token_id": 151643})
    ) == GenerationDefaults(
        temperature=0.7,
        top_k=20,
        top_p=0.8,
        repetition_penalty=1.05,
        max_new_tokens=2048,
        do_sample=True,
        eos_token_ids=(151645, 151643),
    )


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        (None, {"eos_token_id": 2}, (2,)),
        ({"eos_token_id": 3}, {"eos_token_id": 2}, (3, 2)),
        ({"eos_token_id": [3, 2]}, {"eos_token_id": [2, 5]}, (3, 2, 5)),
        ({"eos_token_id": None}, {}, ()),
    ],
)
def test_end_of_text_tokens_of_both_files(tmp_path: Path, generation, config, expected) -> None:
    assert load_generation_defaults(written(tmp_path, generation, config)).eos_token_ids == expected


@pytest.mark.parametrize(
    ("generation", "named"),
    [
        ("{", "generation_config.json"),
        ("[]", "generation_config.json"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ('{"temperature": NaN}', "temperature"),
        ('{"temperature": Infinity}', "temperature"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"do_sample": 1}, "do_sample"),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
        ({"eos_token_id": [1, -2]}, "eos_token_id"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, generation, named: str) -> None:
    with pytest.raises(CheckpointError, match=named) as caught:
        load_generation_defaults(written(tmp_path, generation))
    assert "generation_config.json" in str(caught.value)
    assert "\n" not in str(caught.value)
