"""Whatever the logits, text under a grammar is what the grammar says."""

import functools
import json
import random
import re
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.engine.detokenizer import IncrementalDetokenizer
from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.sampler import Sampler
from lapidist.engine.sampling_params import SamplingParams, StructuredOutput
from lapidist.engine.sequence_sampling import SequenceSampling
from lapidist.engine.structured_output import MAX_GRAMMAR_CHARACTERS, GrammarCompiler, GrammarState
from lapidist.models.tokenizer import Tokenizer
from tests.trained_tokenizers import tokenizer_directory

PADDING = 37
EVERY_KIND = pytest.mark.parametrize("kind", ["byte_level", "llama2", "llama2_resaved", "gemma"])


@functools.cache
def loaded(kind: str) -> tuple[Tokenizer, GrammarCompiler]:
    tokenizer = Tokenizer.from_directory(tokenizer_directory(kind))
    assert tokenizer.eos_token_id is not None
    return tokenizer, GrammarCompiler(tokenizer, tokenizer.vocab_size + PADDING, [tokenizer.eos_token_id])


def generate(kind: str, constraint: StructuredOutput, max_tokens: int = 2000) -> tuple[str, bool]:
    """Text sampled from random logits under the constraint, and whether it came to its end."""
    tokenizer, compiler = loaded(kind)
    state = compiler.compile(constraint)
    vocab_size = tokenizer.vocab_size + PADDING
    params = SamplingParams(structured_output=constraint, max_tokens=None)
    sampling = SequenceSampling(params, [], vocab_size, eos_token_ids=[tokenizer.eos_token_id])
    # Something precedes, as always in a model's answer: the first token keeps its leading space.
    detokenizer = IncrementalDetokenizer(tokenizer, tokenizer.encode("x", add_special_tokens=False))
    sampler, text = Sampler(random.getrandbits(60)), ""
    for _ in range(max_tokens):
        [token] = sampler.sample(torch.randn(1, vocab_size) * 3, [sampling], [state])
        assert token.error is None
        assert token.token_id < tokenizer.vocab_size
        state.accept(token.token_id)
        text += detokenizer.append(token.token_id)
        if token.token_id == tokenizer.eos_token_id or state.is_terminated:
            return text + detokenizer.flush(), True
    return text + detokenizer.flush(), False


def allowed(kind: str, state: GrammarState) -> set[int]:
    words = (loaded(kind)[0].vocab_size + PADDING + 31) // 32
    row = torch.zeros(words, dtype=torch.int32)
    state.fill_mask(row)
    return set(np.flatnonzero(np.unpackbits(row.numpy().view(np.uint8), bitorder="little")).tolist())


# -- JSON ----------------------------------------------------------------------------------------------------

NAMES = st.text(st.sampled_from('abü"\\ 你/'), min_size=1, max_size=4)
BOUNDED_STRINGS = st.integers(0, 5).map(lambda n: {"type": "string", "maxLength": n})
LEAVES = st.one_of(
    BOUNDED_STRINGS,
    st.tuples(st.integers(-999, 0), st.integers(0, 999)).map(
        lambda pair: {"type": "integer", "minimum": pair[0], "maximum": pair[1]}
    ),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"const": {"ключ": [1, "é"]}}]),
    st.lists(st.one_of(NAMES, st.integers(-9, 9), st.booleans()), min_size=1, max_size=3).map(
        lambda v: {"enum": v}
    ),
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.dictionaries(NAMES, inner, max_size=3).flatmap(
        lambda properties: (
            st.lists(st.sampled_from(sorted(properties)), unique=True).map(
                lambda required: {
                    "type": "object",
                    "properties": properties,
                    "required": required,
                    "additionalProperties": False,
                }
            )
            if properties
            else st.just({"type": "object", "additionalProperties": False})
        )
    )
    arrays = st.tuples(inner, st.integers(0, 2), st.integers(0, 2)).map(
        lambda parts: {
            "type": "array",
            "items": parts[0],
            "minItems": parts[1],
            "maxItems": parts[1] + parts[2],
        }
    )
    return objects | arrays | st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts})


@EVERY_KIND
@settings(max_examples=30, deadline=None)
@given(schema=st.recursive(LEAVES, containers, max_leaves=6))
def test_random_logits_give_json_of_the_schema(kind: str, schema: dict[str, Any]) -> None:
    text, finished = generate(kind, StructuredOutput(json_schema=schema))
    assert finished
    jsonschema_rs.validate(schema, json.loads(text))


def test_any_json_object() -> None:
    for _ in range(10):
        text, finished = generate(
            "byte_level", StructuredOutput(json_schema={"type": "object"}), max_tokens=400
        )
        if finished:
            assert isinstance(json.loads(text), dict)


def test_recursive_schema() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}, "additionalProperties": False}
    schema = {"$defs": {"tree": tree}, "$ref": "#/$defs/tree"}
    text, finished = generate("byte_level", StructuredOutput(json_schema=schema))
    assert finished
    jsonschema_rs.validate(schema, json.loads(text))


def test_max_tokens_may_cut_the_text() -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 1000}
    text, finished = generate("byte_level", StructuredOutput(json_schema=schema), max_tokens=50)
    assert not finished
    assert text.lstrip().startswith("[")


# -- regular expressions -------------------------------------------------------------------------------------


@EVERY_KIND
@pytest.mark.parametrize(
    "regex",
    [
        r"[0-9]{1,3}",
        r"(yes|no|maybe)",
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
        r"[é🦊你]{2,4}",
        r"a/b\.c\"d",
        r"(the (quick|lazy) (fox|dog) ){1,3}",
        r"^[A-F]{2}$",
        r"(?i)stone",
        "line\nbreak",
    ],
)
def test_random_logits_give_text_that_matches(kind: str, regex: str) -> None:
    for _ in range(5):
        text, finished = generate(kind, StructuredOutput(regex=regex))
        assert finished
        assert re.fullmatch(regex, text), text


# -- masks and states ----------------------------------------------------------------------------------------


def test_a_complete_text_may_go_on_or_end() -> None:
    tokenizer, compiler = loaded("byte_level")
    state = compiler.compile(StructuredOutput(regex="ab?"))
    [a] = tokenizer.encode("a")
    [b] = tokenizer.encode("b")
    assert a in allowed("byte_level", state)
    assert tokenizer.eos_token_id not in allowed("byte_level", state)
    state.accept(a)
    assert allowed("byte_level", state) == {b, tokenizer.eos_token_id}
    assert not state.is_terminated
    state.accept(tokenizer.eos_token_id)
    assert state.is_terminated


def test_special_and_padding_tokens_are_never_allowed() -> None:
    tokenizer, compiler = loaded("byte_level")
    found = allowed("byte_level", compiler.compile(StructuredOutput(regex=r"(.|\n)*")))
    assert found.isdisjoint(tokenizer.special_token_ids - {tokenizer.eos_token_id})
    assert max(found) < tokenizer.vocab_size


def test_states_of_one_grammar_are_independent() -> None:
    tokenizer, compiler = loaded("byte_level")
    first, second = (compiler.compile(StructuredOutput(regex="ab")) for _ in range(2))
    before = allowed("byte_level", second)
    first.accept(tokenizer.encode("a")[0])
    assert allowed("byte_level", second) == before != allowed("byte_level", first)


def test_a_token_against_the_grammar_fails_the_next_mask() -> None:
    tokenizer, compiler = loaded("byte_level")
    state = compiler.compile(StructuredOutput(regex="ab"))
    state.accept(tokenizer.encode("b")[0])
    assert not state.is_terminated
    with pytest.raises(InvalidRequestError, match="structured_output"):
        allowed("byte_level", state)


# -- what is refused -----------------------------------------------------------------------------------------


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"anyOf": [schema, {"type": "null"}]}
    return schema


@pytest.mark.parametrize(
    ("constraint", "reason"),
    [
        ({"regex": "(a"}, "unclosed group"),
        ({"regex": "a{3,2}"}, "repetition"),
        ({"regex": r"(a)\1"}, "backreferences"),
        ({"regex": "\ud83d"}, "surrogates"),
        ({"regex": "a" * (MAX_GRAMMAR_CHARACTERS + 1)}, "limit"),
        ({"json_schema": {"type": "nonsense"}}, "nonsense"),
        ({"json_schema": {"not": {}}}, "not"),
        ({"json_schema": {"type": "string", "pattern": "(a"}}, "unclosed group"),
        ({"json_schema": {"$ref": "http://example.com/schema"}}, "example.com"),
        ({"json_schema": {"const": float("nan")}}, "JSON"),
        ({"json_schema": {"const": {1, 2}}}, "JSON"),
        ({"json_schema": {"enum": ["x" * MAX_GRAMMAR_CHARACTERS]}}, "limit"),
        ({"json_schema": nested(200)}, "recursion"),
        ({"json_schema": nested(100_000)}, "recursion"),
        ({"json_schema": {"allOf": [{"type": "string"}, {"type": "null"}]}}, "nsatisfiable"),
    ],
)
def test_constraints_that_cannot_be_followed_are_refused(constraint: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        loaded("byte_level")[1].compile(StructuredOutput(**constraint))
    assert str(caught.value).startswith("structured_output")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "constraint",
    [
        {"regex": "((a{1,100}){1,100}){1,100}"},
        {"regex": "(a|b)*a(a|b){5000}"},
        {"regex": r"(\w|\p{L}){1,100000}"},
        {"json_schema": {"type": "array", "items": {"type": "string"}, "minItems": 10**6}},
        {"json_schema": {"type": "string", "maxLength": 10**9}},
        {"json_schema": {"type": "integer", "minimum": 1, "maximum": 10**15, "multipleOf": 9999991}},
        {
            "json_schema": {
                "type": "object",
                "properties": {f"p{i}": {"type": "integer"} for i in range(1500)},
            }
        },
    ],
)
def test_hostile_constraints_are_refused_or_followed(constraint: dict[str, Any]) -> None:
    try:
        state = loaded("byte_level")[1].compile(StructuredOutput(**constraint))
    except InvalidRequestError:
        return
    assert allowed("byte_level", state)


@pytest.mark.parametrize("kind", ["unigram", "metaspace"])
def test_a_tokenizer_that_cannot_be_constrained(kind: str) -> None:
    with pytest.raises(InvalidRequestError, match="tokenizer"):
        loaded(kind)[1].compile(StructuredOutput(regex="a"))


def test_a_model_without_end_of_text() -> None:
    tokenizer = loaded("byte_level")[0]
    with pytest.raises(InvalidRequestError, match="eos"):
        GrammarCompiler(tokenizer, tokenizer.vocab_size, []).compile(StructuredOutput(regex="a"))
