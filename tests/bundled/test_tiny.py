"""The model that ships does what its card says: it loads, computes what transformers computes, and retrieves."""

import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from lapidist import LLM, SamplingParams
from lapidist.bundled import TINY, resolve_model

ADJECTIVES = ["quiet", "brave", "golden", "hidden", "early"]
NOUNS = ["harbour", "violin", "lantern", "meadow", "engine"]


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(TINY)


def test_files_are_complete_and_small() -> None:
    names = {file.name for file in TINY.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "generation_config.json",
        "README.md",
    } <= names
    assert sum(file.stat().st_size for file in TINY.glob("*.safetensors")) <= 24e6
    with safe_open(TINY / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118


def test_greedy_text_is_that_of_transformers() -> None:
    prompt = torch.randint(10, 3000, (1, 40))
    peer = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    expected = peer.generate(prompt, max_new_tokens=30, do_sample=False, eos_token_id=None, pad_token_id=0)
    params = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
    [output] = LLM(TINY, dtype="float32").generate({"prompt_token_ids": prompt[0].tolist()}, params)
    assert output.outputs[0].token_ids == expected[0, 40:].tolist()


@pytest.mark.parametrize("depth", [0.05, 0.5, 0.95])
def test_a_needle_is_found_in_a_long_haystack(llm: LLM, depth: float) -> None:
    """Most of four needles in about 1,800 tokens of made-up filler, at a depth each."""
    rng = random.Random()
    prompts, answers = [], []
    for _ in range(4):
        name = f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"
        number = str(rng.randint(10_000, 99_999))
        filler = ["The weather was mild and the ships were late, so the people waited for news."] * 85
        filler.insert(int(depth * len(filler)), f"The secret number for the {name} is {number}.")
        question = f"What is the secret number for the {name}?"
        prompts.append([{"role": "user", "content": " ".join(filler) + " " + question}])
        answers.append(number)
    outputs = llm.chat(prompts, SamplingParams(temperature=0, max_tokens=30))
    found = sum(number in output.outputs[0].text for number, output in zip(answers, outputs, strict=True))
    assert min(len(output.prompt_token_ids) for output in outputs) > 1500
    assert found >= 3


def test_the_name_tiny_means_the_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_model("tiny") == TINY
    (tmp_path / "tiny").mkdir()
    assert resolve_model("tiny") == Path("tiny")
    assert resolve_model("other/model") == Path("other/model")
