"""The Python API against transformers and against its own promises."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lapidist import LLM, SamplingParams, StructuredOutput
from lapidist.engine.errors import InvalidRequestError
from lapidist.models.errors import ChatTemplateError
from lapidist.workload.step import read_steps

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(llama_directory: Path) -> LLM:
    return LLM(llama_directory, dtype="float32", max_num_batched_tokens=64)


@pytest.fixture(scope="module")
def peer(llama_directory: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(llama_directory, dtype=torch.float32).eval()


def tokens_of(llm: LLM, prompt: object, params: SamplingParams) -> list[int]:
    return llm.generate(prompt, params)[0].outputs[0].token_ids


def test_greedy_equals_transformers_generate(llm: LLM, peer: torch.nn.Module) -> None:
    prompt = torch.randint(3, 300, (1, 150))
    expected = peer.generate(prompt, max_new_tokens=40, do_sample=False, eos_token_id=None, pad_token_id=0)
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    assert tokens_of(llm, {"prompt_token_ids": prompt[0].tolist()}, params) == expected[0, 150:].tolist()


def test_text_and_chat_prompts_encode_as_transformers_does(llm: LLM, llama_directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(llama_directory)
    messages = [{"role": "user", "content": "where is the cat?"}]
    [text, chat] = [llm.generate("Grüße, 🙂!", GREEDY)[0], llm.chat(messages, GREEDY)[0]]
    assert text.prompt_token_ids == tokenizer("Grüße, 🙂!")["input_ids"]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert chat.prompt_token_ids == expected
    assert chat.prompt == tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def test_outputs_come_in_the_order_of_the_prompts(llm: LLM) -> None:
    prompts = ["the cat", {"prompt": "the dog sat"}, {"prompt_token_ids": [9, 8, 7]}]
    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in (9, 3, 6)]
    outputs = llm.generate(prompts, params)
    assert [len(output.outputs[0].token_ids) for output in outputs] == [9, 3, 6]
    assert outputs[0].prompt == "the cat"
    assert outputs[2].prompt_token_ids == [9, 8, 7]
    assert all(output.finished and output.outputs[0].finish_reason == "length" for output in outputs)
    assert outputs[1].outputs[0].token_ids == tokens_of(llm, prompts[1], params[1])


@pytest.mark.parametrize("k", [0, 3, -1])
def test_logprobs_equal_transformers(llm: LLM, peer: torch.nn.Module, k: int) -> None:
    prompt = torch.randint(3, 300, (90,)).tolist()
    params = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True, logprobs=k, prompt_logprobs=k)
    output = llm.generate({"prompt_token_ids": prompt}, params)[0]
    completion = output.outputs[0]
    everything = prompt + completion.token_ids
    with torch.inference_mode():
        expected = peer(torch.tensor([everything])).logits[0].log_softmax(-1)
    assert output.prompt_logprobs is not None
    assert completion.logprobs is not None
    assert output.prompt_logprobs[0] is None
    assert len(output.prompt_logprobs) == len(prompt)
    assert len(completion.logprobs) == 5
    total = 0.0
    for position, row in enumerate([*output.prompt_logprobs[1:], *completion.logprobs]):
        chosen = everything[position + 1]
        assert row is not None
        assert len(row) in ({llm.engine.config.vocab_size} if k == -1 else {k, k + 1})
        for token_id, entry in row.items():
            wanted = expected[position, token_id]
            assert entry.logprob == pytest.approx(wanted.item(), abs=1e-4)
            above = [(expected[position] > wanted + slack).sum().item() for slack in (1e-4, -1e-4)]
            assert above[0] < entry.rank <= above[1] + 1
        if position >= len(prompt) - 1:
            total += row[chosen].logprob
    assert completion.cumulative_logprob == pytest.approx(total)


def test_prompt_logprobs_ignore_a_warm_cache(llm: LLM) -> None:
    prompt = {"prompt_token_ids": list(range(3, 120))}
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    first, second = llm.generate(prompt, params)[0], llm.generate(prompt, params)[0]
    assert second.prompt_logprobs is not None
    assert first.prompt_logprobs is not None
    assert len(second.prompt_logprobs) == 117
    for a, b in zip(first.prompt_logprobs[1:], second.prompt_logprobs[1:], strict=True):
        assert a is not None
        assert b is not None
        assert next(iter(a.values())).logprob == pytest.approx(next(iter(b.values())).logprob, abs=1e-5)


def test_n_completions_share_the_prompt_and_differ(llm: LLM) -> None:
    prompt = {"prompt_token_ids": [(7 * i) % 300 for i in range(100)]}
    output = llm.generate(prompt, SamplingParams(n=4, seed=3, max_tokens=20, ignore_eos=True))[0]
    assert [completion.index for completion in output.outputs] == [0, 1, 2, 3]
    assert len({tuple(completion.token_ids) for completion in output.outputs}) == 4
    again = llm.generate(prompt, SamplingParams(n=4, seed=3, max_tokens=20, ignore_eos=True))[0]
    assert [c.token_ids for c in again.outputs] == [c.token_ids for c in output.outputs]
    assert again.num_cached_tokens == 96


def test_stop_string_ends_the_text_before_it(llm: LLM) -> None:
    full = llm.generate("the cat", SamplingParams(temperature=0, max_tokens=30, ignore_eos=True))[0].outputs[
        0
    ]
    stop = full.text[7:9]
    cut = llm.generate(
        "the cat", SamplingParams(temperature=0, max_tokens=30, ignore_eos=True, stop=["never there", stop])
    )[0].outputs[0]
    assert cut.text == full.text[: full.text.index(stop)]
    assert (cut.finish_reason, cut.stop_reason) == ("stop", stop)
    kept = llm.generate(
        "the cat",
        SamplingParams(
            temperature=0, max_tokens=30, ignore_eos=True, stop=stop, include_stop_str_in_output=True
        ),
    )[0].outputs[0]
    assert kept.text == full.text[: full.text.index(stop)] + stop


def test_stop_token_eos_and_min_tokens(llm: LLM) -> None:
    free = tokens_of(llm, "the cat", SamplingParams(temperature=0, max_tokens=20, ignore_eos=True))
    first = free.index(free[6])
    stopped = llm.generate(
        "the cat", SamplingParams(temperature=0, max_tokens=20, ignore_eos=True, stop_token_ids=[free[6]])
    )[0].outputs[0]
    assert stopped.token_ids == free[: first + 1]
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", free[6])
    forced = llm.generate("the cat", SamplingParams(max_tokens=9, logit_bias={2: 100.0}))[0].outputs[0]
    assert (forced.token_ids, forced.text, forced.finish_reason, forced.stop_reason) == (
        [2],
        "",
        "stop",
        None,
    )
    late = llm.generate("the cat", SamplingParams(max_tokens=9, min_tokens=4, logit_bias={2: 100.0}))[
        0
    ].outputs[0]
    assert len(late.token_ids) == 5
    assert late.token_ids[-1] == 2


def test_maximum_length_is_enforced(llm: LLM) -> None:
    prompt = {"prompt_token_ids": [5] * (llm.max_model_len - 3)}
    output = llm.generate(prompt, SamplingParams(temperature=0, max_tokens=None, ignore_eos=True))[0].outputs[
        0
    ]
    assert (len(output.token_ids), output.finish_reason) == (3, "length")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "prompt is empty"),
        ({"prompt_token_ids": []}, "prompt is empty"),
        ({"prompt_token_ids": [3, 99999]}, "99999"),
        ({"prompt_token_ids": [3, -1]}, "-1"),
        ({"prompt_token_ids": [3, "x"]}, "'x'"),
        ({"text": "typo"}, "a prompt is a string"),
        ({"prompt_token_ids": [3] * 512}, "exceeds the maximum length of 512"),
    ],
)
def test_impossible_prompts_are_refused_in_one_sentence(llm: LLM, prompt: object, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        llm.generate(["fine", prompt], GREEDY)
    assert llm.engine.stats().pages_used == 0
    assert not llm.engine.has_work()


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"n": 0},
        {"max_tokens": 0},
        {"presence_penalty": 3},
        {"repetition_penalty": 0},
        {"stop": [""]},
        {"stop": [3]},
        {"top_k": -2},
        {"min_tokens": 99},
        {"logprobs": -5},
    ],
)
def test_impossible_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError, match=next(iter(wrong))):
        SamplingParams(**wrong)


def test_structured_output_is_valid(llm: LLM) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 5},
            "age": {"type": "integer", "maximum": 99, "minimum": 0},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    params = SamplingParams(seed=1, max_tokens=200, structured_output=StructuredOutput(json_schema=schema))
    for completion in (output.outputs[0] for output in llm.generate(["a", "b", "c"], params)):
        value = json.loads(completion.text)
        assert set(value) == {"name", "age"}
        assert completion.finish_reason == "stop"
    regex = SamplingParams(
        seed=1, max_tokens=50, structured_output=StructuredOutput(regex="(cat|dog) [0-9]{3}")
    )
    text = llm.generate("x", regex)[0].outputs[0].text
    assert text[:3] in ("cat", "dog")
    assert text[4:].isdigit()


def test_chat_without_template_says_so(llm: LLM, llama_directory: Path, tmp_path: Path) -> None:
    for file in llama_directory.iterdir():
        if file.name != "tokenizer_config.json":
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(ChatTemplateError, match="chat template"):
        LLM(tmp_path, dtype="float32").chat([{"role": "user", "content": "hi"}], GREEDY)


def test_recorded_steps_tell_what_ran(llama_directory: Path, tmp_path: Path) -> None:
    record = tmp_path / "steps.jsonl"
    llm = LLM(llama_directory, dtype="float32", max_num_batched_tokens=64, record=record)
    llm.generate({"prompt_token_ids": [5] * 70}, SamplingParams(temperature=0, max_tokens=3, ignore_eos=True))
    steps = list(read_steps(record))
    assert [[(s.query_length, s.kv_length) for s in step.sequences] for step in steps] == [
        [(64, 64)],
        [(6, 70)],
        [(1, 71)],
        [(1, 72)],
    ]
    assert [step.logit_rows for step in steps] == [0, 1, 1, 1]
    assert all(step.duration_seconds and step.duration_seconds > 0 for step in steps)
    for step, later in pairwise(steps):
        assert later.start_seconds >= step.start_seconds + step.duration_seconds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float8"}, "float8"),
        ({"max_model_len": 0}, "max_model_len"),
        ({"kv_cache_bytes": 10}, "KV cache"),
        ({"kv_cache_bytes": 100_000, "max_model_len": 512}, "raise kv_cache_bytes"),
        ({"max_num_seqs": 0}, "max_num_seqs"),
        ({"max_num_seqs": 64, "max_num_batched_tokens": 32}, "max_num_batched_tokens"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_impossible_options_are_refused(
    llama_directory: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LLM(llama_directory, **options)
