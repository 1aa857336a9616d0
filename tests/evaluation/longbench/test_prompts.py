"""Prompts that fit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.bundled import TINY
from lapidist.evaluation.long_context.generated_prose import generated_prose
from lapidist.evaluation.longbench.data import Example
from lapidist.evaluation.longbench.prompts import prompt_tokens, truncated_in_the_middle
from lapidist.evaluation.longbench.tasks import TASKS
from lapidist.models.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_directory(TINY)
LONG = Example(generated_prose(12_000), "Who {x} {context} asked?", ("a",), ())


@given(st.integers(64, 3000), st.sampled_from(list(TASKS)), st.booleans())
@settings(deadline=None, max_examples=40)
def test_prompts_fit_and_keep_both_ends(max_tokens: int, name: str, chat: bool) -> None:
    task = TASKS[name]
    ids = prompt_tokens(task, LONG, TOKENIZER, max_tokens, chat)
    assert max_tokens - 40 <= len(ids) <= max_tokens or len(ids) < max_tokens
    whole = task.prompt.replace("{context}", LONG.context).replace("{input}", LONG.input)
    text = TOKENIZER.decode(ids, skip_special_tokens=False)
    framed = chat and task.takes_chat
    assert text.startswith("<|bos|><|user|>" if framed else "<|bos|>" + whole[:4])
    text = text.removeprefix("<|bos|>").removeprefix("<|user|>").removesuffix("<|end|><|assistant|>")
    assert text[:40] == whole[:40]
    assert text[-40:] == whole[-40:]


def test_the_middle_goes_and_the_halves_stay() -> None:
    tokens = TOKENIZER.encode(LONG.context)
    text = truncated_in_the_middle(LONG.context, TOKENIZER, 501)
    first, last = TOKENIZER.decode(tokens[:250]), TOKENIZER.decode(tokens[-250:])
    assert text == first + last
    assert LONG.context.startswith(first)
    assert LONG.context.endswith(last)
    assert truncated_in_the_middle(LONG.context, TOKENIZER, len(tokens)) == LONG.context


def test_braces_in_the_data_are_left_alone() -> None:
    ids = prompt_tokens(TASKS["lcc"], Example("def f(): {input} {}", "q", ("a",), ()), TOKENIZER, 500, False)
    assert TOKENIZER.decode(ids).endswith("def f(): {input} {}Next line of code:\n")
    ids = prompt_tokens(TASKS["trec"], Example("c {input}", "q {context}", ("a",), ()), TOKENIZER, 500, False)
    assert TOKENIZER.decode(ids).endswith("c {input}\nq {context}")


def test_few_shot_tasks_and_code_take_no_chat_template() -> None:
    assert {name for name, task in TASKS.items() if not task.takes_chat} == {
        *("trec", "triviaqa", "samsum", "lcc", "repobench-p")
    }
    assert {name for name, task in TASKS.items() if task.first_line_only} == {"trec", "triviaqa", "samsum"}


def test_no_room_at_all() -> None:
    with pytest.raises(ValueError, match="leave no room"):
        prompt_tokens(TASKS["hotpotqa"], LONG, TOKENIZER, 3, True)
