"""Generated prose: whole sentences, consistent people, never twice the same."""

import re

import numpy as np
import pytest

from recipes.tiny import prose, words


@pytest.mark.parametrize("kind", list(prose.KINDS))
def test_passages_are_whole_sentences_without_leftovers(kind: str) -> None:
    rng = np.random.default_rng()
    for _ in range(100):
        for paragraph in prose.passage(rng, kind).splitlines():
            assert not re.search(r"[\[\]{}|_]|  | [.,?!]", paragraph), paragraph
            assert not re.search(r"\b[Aa] [aeiouAEIOU]", paragraph), paragraph
            assert paragraph[0].isupper() or paragraph[0] == '"', paragraph
            assert paragraph[-1] in '.?!"' or kind == "letter", paragraph
            assert paragraph.count('"') % 2 == 0, paragraph


def test_every_choice_of_every_wording_expands() -> None:
    slots = prose.scene(np.random.default_rng(0))
    for paragraphs in prose.KINDS.values():
        for wordings in paragraphs:
            for wording in wordings:
                assert wording.count("[") == wording.count("]")
                assert set(re.findall(r"{(\w+)}", wording)) <= set(slots)


def test_pronouns_agree_with_the_name() -> None:
    rng = np.random.default_rng()
    for _ in range(50):
        person = prose.person(rng, "hero")
        expected = ("she", "her", "her") if person["hero"] in words.WOMEN else ("he", "him", "his")
        assert (person["hero_they"], person["hero_them"], person["hero_their"]) == expected
    assert set(words.NAMES) >= words.WOMEN


def test_the_seed_decides_and_passages_differ() -> None:
    first = [prose.passage(np.random.default_rng(3)) for _ in range(2)]
    rng = np.random.default_rng(4)
    many = [prose.passage(rng) for _ in range(200)]
    assert first[0] == first[1]
    assert len(set(many)) == len(many)


def test_an_inner_choice_is_made_before_the_outer_one() -> None:
    rng = np.random.default_rng()
    seen = {prose.expand(rng, "a [[apple|pear] tree|{x}]", {"x": "oak"}) for _ in range(200)}
    assert seen == {"an apple tree", "a pear tree", "an oak"}
