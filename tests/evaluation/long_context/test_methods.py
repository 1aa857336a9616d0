"""How methods are written."""

import pytest

from lapidist.engine.prompt_filters.config import METHODS, GemFilter, SnapKV, parse_prompt_filter
from lapidist.evaluation.long_context.methods import parse_keep, parse_methods


def test_all_methods_of_the_engine_can_be_named() -> None:
    methods = parse_methods(",".join(["full", *METHODS]), 0.1)
    assert [method.label for method in methods] == ["full", *METHODS]
    assert methods[0].prompt_filter is None
    assert all(method.prompt_filter.keep == 0.1 for method in methods[1:] if method.prompt_filter)
    assert methods[0].describe() is None


def test_a_method_with_options() -> None:
    [first, second] = parse_methods("gemfilter:layer=3:positions=original:softmax=true, snapkv:keep=64", 0.1)
    assert first.prompt_filter == GemFilter(layer=3, positions="original", softmax=True, keep=0.1)
    assert second.prompt_filter == SnapKV(keep=64)
    described = second.describe()
    assert described is not None
    assert parse_prompt_filter(described) == SnapKV(keep=64)
    assert described.items() >= {"method": "snapkv", "keep": 64, "window": 32, "pool": 5}.items()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "name at least one"),
        ("full,magic", "there is no method 'magic'"),
        ("full,full", "named twice"),
        ("full:keep=3", "has no options"),
        ("gemfilter:layer", "name=value"),
        ("gemfilter:lair=3", "no option 'lair'"),
        ("gemfilter:layer=x", "layer must be a whole number"),
    ],
)
def test_what_is_no_method(given: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_methods(given, None)


def test_keep() -> None:
    assert parse_keep("0.1") == 0.1
    assert parse_keep("1024") == 1024
    assert isinstance(parse_keep("1.0"), float)
    for wrong in ("0", "-3", "1.5", "0.0", "ten", "", "nan.0"):
        with pytest.raises(ValueError, match="keep must be a share"):
            parse_keep(wrong)
