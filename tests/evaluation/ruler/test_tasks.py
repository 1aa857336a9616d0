"""Every generator: length, answers that are there and cannot be mistaken, repeatability."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.evaluation.ruler.needles import NEEDLE_TASKS, NOISE
from lapidist.evaluation.ruler.sample import Sample
from lapidist.evaluation.ruler.tasks import PHRASINGS, SYNTHETIC, sentences_of
from tests.evaluation.ruler.materials import SENTENCES, TOKENIZER, ruler

SEEDS = st.integers(0, 2**31)
# The most that another sentence, line, needle, word or document takes in the bundled model's tokens.
LARGEST_UNIT = 130


@given(
    seed=SEEDS,
    index=st.integers(0, 500),
    length=st.integers(640, 3000),
    task=st.sampled_from([*SYNTHETIC, "qa_1"]),
    phrasing=st.sampled_from(PHRASINGS),
    chat=st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_samples_have_the_length_asked_for_and_come_again(
    seed: int, index: int, length: int, task: str, phrasing: str, chat: bool
) -> None:
    made = ruler(phrasing, chat)
    samples = made.samples(task, length, seed, index)
    tokens = max(made.tokens(sample) for sample in samples)
    assert tokens <= length
    if task != "qa_1":  # whose documents come to an end
        assert tokens > length - LARGEST_UNIT, task
    assert samples == made.samples(task, length, seed, index)
    assert samples != made.samples(task, length, seed, index + 1)
    prompt = TOKENIZER.decode(samples[0].prompt(TOKENIZER, made.frame), skip_special_tokens=False)
    assert prompt.startswith("<|bos|><|user|>" if chat else "<|bos|>")
    between = "<|end|><|assistant|>" if chat else " "
    assert prompt.endswith(between + samples[0].answer_prefix[1:])


@given(seed=SEEDS, task=st.sampled_from(list(NEEDLE_TASKS)), length=st.integers(700, 2500))
@settings(deadline=None, max_examples=60)
def test_needles_as_published(seed: int, task: str, length: int) -> None:
    kind = NEEDLE_TASKS[task]
    [sample] = ruler().samples(task, length, seed, 0)
    needles = re.findall(r"One of the special magic (\w+) for (\S+) is: (\S+)\.", sample.body)
    assert {each[0] for each in needles} == {kind.value}
    values = [value for _, _, value in needles]
    assert len(set(values)) == len(values)
    keys = Counter(key for _, key, _ in needles)
    assert set(keys.values()) == {kind.values}
    assert len(keys) >= kind.keys
    assert (len(keys) > kind.keys) == (kind.haystack == "needles")
    asked = re.search(r"for ([^?]*) mentioned in the provided text\?", sample.body.rsplit("\n", 1)[1])
    assert asked is not None
    queries = re.split(r", and |, ", asked[1])
    assert len(queries) == kind.queries
    # What is asked for is exactly what the needles of these keys say, and stands there once.
    assert set(sample.outputs) == {value for _, key, value in needles if key in queries}
    assert len(sample.outputs) == kind.queries * kind.values
    assert all(sample.body.count(value) == 1 for value in sample.outputs)
    assert sample.reply_tokens(TOKENIZER) == 128


def test_the_published_wording() -> None:
    [one] = ruler().samples("niah_single_2", 1000, 0, 0)
    key = re.search(r"for (\S+) is:", one.body)[1]  # type: ignore[index]
    assert one.body.startswith(
        "A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you "
        "about the number afterwards.\n"
    )
    assert one.body.endswith(f"\nWhat is the special magic number for {key} mentioned in the provided text?")
    assert one.answer_prefix == f" The special magic number for {key} mentioned in the provided text is"
    [several] = ruler().samples("niah_multivalue", 1000, 0, 0)
    key = re.search(r"for (\S+) is:", several.body)[1]  # type: ignore[index]
    assert several.body.startswith(
        "Some special magic numbers are hidden within the following text. Make sure"
    )
    assert several.body.endswith(
        f"\nWhat are all the special magic numbers for {key} mentioned in the provided text?"
    )
    assert several.answer_prefix == f" The special magic numbers for {key} mentioned in the provided text are"


@given(seed=SEEDS, task=st.sampled_from(list(NEEDLE_TASKS)))
@settings(deadline=None, max_examples=40)
def test_needles_in_plain_words(seed: int, task: str) -> None:
    kind = NEEDLE_TASKS[task]
    samples = ruler("plain").samples(task, 900, seed, 0)
    assert len(samples) == kind.queries  # one thing at a time
    assert len({sample.body.rsplit("\n\n", 1)[0] for sample in samples}) == 1  # about one document
    for sample in samples:
        needles = re.findall(rf"{re.escape(sample.answer_prefix[1:])} (\S+)\.", sample.body)
        assert sorted(needles) == sorted(sample.outputs)
        assert len(needles) == kind.values
        assert sample.body.endswith(f"\n\nWhat is the{sample.answer_prefix[4:-3]}?")
        assert sample.reply_tokens(TOKENIZER) >= len(TOKENIZER.encode(" ".join(sample.outputs)))


@given(seed=SEEDS, index=st.integers(0, 50))
@settings(deadline=None, max_examples=30)
def test_essays_are_whole_sentences_and_needles_lie_at_rulers_depths(seed: int, index: int) -> None:
    [sample] = ruler().samples("niah_multikey_1", 1500, seed, index)
    context = sample.body.split("\n")[1]
    parts = sentences_of(re.sub(r"One of the special magic numbers for \S+ is: \d+\.", "", context))
    starts = [place for place, sentence in enumerate(SENTENCES) if sentence == parts[0]]
    assert any(parts == (SENTENCES * 2)[start : start + len(parts)] for start in starts)
    found = sentences_of(context)
    places = [
        place for place, sentence in enumerate(found) if sentence.startswith("One of the special magic")
    ]
    assert len(places) == 4
    # Each needle has as many sentences before it as one of 40 depths says.
    allowed = {int(len(parts) * round(100 * step / 39) / 100) for step in range(40)}
    assert all(place - rank in allowed for rank, place in enumerate(places))


@given(seed=SEEDS, length=st.sampled_from([512, 1000, 2048, 3000]))
@settings(deadline=None, max_examples=30)
def test_variable_tracking(seed: int, length: int) -> None:
    [sample] = ruler().samples("vt", length, seed, 0)
    problem = sample.body.rsplit("Memorize and track", 1)[1]
    assert (sample.body.count("Memorize and track") == 2) == (length >= 2048)
    [first] = re.findall(r"VAR ([A-Z]{5}) = (\d{5})", problem)
    held = {first[0]}
    for name, source in re.findall(r"VAR ([A-Z]{5}) = VAR ([A-Z]{5}) ", problem):  # in the text's order
        assert source in held
        held.add(name)
    assert held == set(sample.outputs)
    assert len(held) == 5
    assert f"assigned the value {first[1]} in the text above." in problem
    assert f"5 variables are assigned the value {first[1]}, they are: " in sample.answer_prefix
    assert NOISE in problem


@given(seed=SEEDS, length=st.sampled_from([600, 1500, 2500, 4500]))
@settings(deadline=None, max_examples=20)
def test_common_words_are_the_ten_most_common(seed: int, length: int) -> None:
    [sample] = ruler().samples("cwe", length, seed, 0)
    last = sample.body.rsplit("Below is a numbered list", 1)[1]
    listed = re.findall(r"(\d+)\. ([a-z]+)", last)
    assert [int(number) for number, _ in listed] == list(range(1, len(listed) + 1))
    counts = Counter(word for _, word in listed)
    ten = counts.most_common(11)
    assert {word for word, _ in ten[:10]} == set(sample.outputs)
    assert ten[9][1] > ten[10][1]
    assert (sample.body.count("Below is a numbered list") == 2) == (length >= 2048)
    assert ten[0][1] == (30 if length >= 4096 else 6 if length >= 2048 else 3)


@given(seed=SEEDS, length=st.integers(512, 4000))
@settings(deadline=None, max_examples=20)
def test_frequent_words_are_the_three_most_frequent(seed: int, length: int) -> None:
    [sample] = ruler().samples("fwe", length, seed, 0)
    context = sample.body.split("coded words. ", 1)[1].rsplit("\nQuestion:", 1)[0]
    counts = Counter(context.split()).most_common()
    assert counts[0][0] == "..."
    assert [word for word, _ in counts[1:4]] == list(sample.outputs)
    numbers = [count for _, count in counts[:5]] if len(counts) > 4 else [count for _, count in counts] + [0]
    assert numbers == sorted(set(numbers), reverse=True)  # no ties among those that matter


@given(seed=SEEDS, index=st.integers(0, 100), length=st.integers(300, 3000))
@settings(deadline=None, max_examples=30)
def test_questions_have_their_document(seed: int, index: int, length: int) -> None:
    [sample] = ruler().samples("qa_1", length, seed, index)
    number = re.search(r"Question: Who met number (\d+)\?$", sample.body)[1]  # type: ignore[index]
    assert sample.outputs == (f"Answer {number}",)
    documents = re.findall(r"Document \d+:\nText (\d+) says", sample.body)
    assert str(2 * int(number)) in documents
    assert len(set(documents)) == len(documents)


def test_what_does_not_fit() -> None:
    for task in SYNTHETIC:
        with pytest.raises(ValueError, match=f"task {task} does not fit into 60 tokens: it takes at least"):
            ruler().samples(task, 60, 0, 0)


def test_a_reply_after_a_chat_template_begins_without_a_space() -> None:
    sample = Sample("body", " The answer is", ("x",), 3)
    text = TOKENIZER.decode(sample.prompt(TOKENIZER, ruler(chat=True).frame), skip_special_tokens=False)
    assert text == "<|bos|><|user|>body<|end|><|assistant|>The answer is"


def test_sentences() -> None:
    assert sentences_of("One  two.\nThree? Four! 3.14 five") == ["One two.", "Three?", "Four!", "3.14 five"]
    assert sentences_of(" \n") == []
