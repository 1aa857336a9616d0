"""Reading filters from JSON."""

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist import SamplingParams
from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.prompt_filters import METHODS, GemFilter, SnapKV, parse_prompt_filter
from lapidist.engine.prompt_filters.policy import gemfilter_policy
from lapidist.models.filter_config import GemFilterPolicy


def test_reads_objects_and_passes_filters_on() -> None:
    found = parse_prompt_filter({"method": "gemfilter", "layer": 3, "keep": 0.1, "softmax": True})
    assert found == GemFilter(layer=3, keep=0.1, softmax=True)
    assert parse_prompt_filter(found) is found
    assert SamplingParams(prompt_filter={"method": "snapkv"}).prompt_filter == SnapKV()


def test_defaults_are_the_published_method() -> None:
    assert gemfilter_policy(GemFilter(), None) == GemFilterPolicy(
        pool=5, keep_first=0, keep_last=0, chunk=1, softmax=False, window=1
    )
    assert (GemFilter().positions, GemFilter().threshold) == ("fresh", 0)
    assert (SnapKV().window, SnapKV().pool) == (32, 5)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, "prompt_filter"),
        ("gemfilter", "prompt_filter"),
        ({}, "method"),
        ({"method": "oracle"}, "streamingllm"),
        ({"method": ["gemfilter"]}, "method"),
        ({"method": "gemfilter", "kep": 1}, "kep"),
        ({"method": "gemfilter", 5: 1}, "5"),
        ({"method": "snapkv", "layer": 1}, "layer"),
        ({"method": "gemfilter", "keep": 0}, "keep"),
        ({"method": "gemfilter", "keep": 1.01}, "keep"),
        ({"method": "gemfilter", "keep": float("nan")}, "keep"),
        ({"method": "gemfilter", "keep": True}, "keep"),
        ({"method": "gemfilter", "keep": "10%"}, "keep"),
        ({"method": "gemfilter", "layer": -1}, "layer"),
        ({"method": "gemfilter", "layer": 1.0}, "layer"),
        ({"method": "gemfilter", "pool": 4}, "odd"),
        ({"method": "gemfilter", "softmax": 1}, "softmax"),
        ({"method": "gemfilter", "positions": "old"}, "fresh or original"),
        ({"method": "gemfilter", "window": 0}, "window"),
        ({"method": "gemfilter", "chunk": 0}, "chunk"),
        ({"method": "gemfilter", "policy": "best"}, "published or calibrated"),
        ({"method": "gemfilter", "threshold": None}, "threshold"),
        ({"method": "snapkv", "window": None}, "window"),
        ({"method": "adaptive", "agreement": -0.1}, "agreement"),
        ({"method": "adaptive", "mass": 0}, "mass"),
        ({"method": "fastkv", "propagate": 0}, "propagate"),
        ({"method": "adaptive", "gain": 0.5}, "gain"),
        ({"method": "adaptive", "first_layer": 4, "last_layer": 2}, "first_layer"),
    ],
)
def test_mistakes_are_named_in_one_sentence(value: Any, named: str) -> None:
    with pytest.raises(InvalidRequestError, match="prompt_filter") as raised:
        parse_prompt_filter(value)
    assert named in str(raised.value)
    assert "\n" not in str(raised.value)


@given(
    st.sampled_from(sorted(METHODS)),
    st.dictionaries(
        st.sampled_from(sorted({field.name for kind in METHODS.values() for field in fields(kind)})),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())),
    ),
)
def test_any_json_is_read_or_refused(method: str, options: dict[str, Any]) -> None:
    try:
        found = parse_prompt_filter({"method": method, **options})
    except InvalidRequestError:
        return
    assert found.method == method
    hash(found)


def test_prompt_logprobs_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="prompt_logprobs"):
        SamplingParams(prompt_filter=GemFilter(), prompt_logprobs=1)
