"""Short English prose written from templates: tales, places, lives, ships, films, speeches, letters, reports.

Ten million parameters learn little grammar from five million tokens of real text. Here every sentence is whole, what a
passage says of its people and places stays true to its end, and no passage comes twice.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import yaml

from recipes.tiny import words
from recipes.tiny.facts import number, pick

Random = np.random.Generator

KINDS: dict[str, list[list[str]]] = yaml.safe_load(Path(__file__).with_name("prose.yaml").read_bytes())
"""Templates by kind: wordings of each paragraph."""


def person(rng: Random, prefix: str, but: str = "") -> dict[str, str]:
    """A name and the pronouns that go with it: slots `NAME`, `NAME_they`, `NAME_them`, `NAME_their`."""
    name = pick(rng, [name for name in words.NAMES if name != but])
    they, them, their = ("she", "her", "her") if name in words.WOMEN else ("he", "him", "his")
    slots = {"": name, "_they": they, "_them": them, "_their": their, "_They": they.capitalize()}
    slots["_Their"] = their.capitalize()
    return {prefix + key: value for key, value in slots.items()}


def scene(rng: Random) -> dict[str, str]:
    """What one passage is about; the same words wherever a template names them."""
    hero = person(rng, "hero")
    year = int(rng.integers(1780, 1990))
    town, other = (pick(rng, words.TOWN_BEGINNINGS) + pick(rng, words.TOWN_ENDINGS) for _ in range(2))
    animal, other_animal = (str(a) for a in rng.choice(words.ANIMALS, 2, replace=False))
    role = pick(rng, [role for role in words.ROLES if role != "girl" or hero["hero"] in words.WOMEN])
    return {
        **hero,
        **person(rng, "friend", but=hero["hero"]),
        "surname": pick(rng, words.SURNAMES),
        "other_surname": pick(rng, words.SURNAMES),
        "role": role,
        "other_role": pick(rng, [r for r in words.ROLES if r not in (role, "girl")]),
        "relative": pick(rng, words.FAMILY),
        "adjective": pick(rng, words.ADJECTIVES),
        "ship": f"{pick(rng, words.ADJECTIVES).capitalize()} {pick(rng, words.NOUNS).capitalize()}",
        "object": f"{pick(rng, words.COLORS)} {pick(rng, words.OBJECTS)}",
        "animal": animal,
        "Animal": animal.capitalize(),
        "other_animal": other_animal,
        "food": pick(rng, words.FOODS),
        "town": town,
        "other_town": other if other != town else other + " Hill",
        "city": pick(rng, words.CITIES),
        "country": pick(rng, words.COUNTRIES),
        "weather": pick(rng, words.WEATHER),
        "year": str(year),
        "soon": str(year + int(rng.integers(1, 6))),
        "later": str(year + int(rng.integers(7, 30))),
        "last": str(year + int(rng.integers(31, 60))),
        "age": str(int(rng.integers(18, 30))),
        "small": pick(rng, words.NUMBERS),
        "count": number(rng, int(rng.integers(2, 4))).lstrip("0") + "0",
        "month": pick(rng, words.MONTHS),
        "day": str(int(rng.integers(1, 29))),
    }


def expand(rng: Random, template: str, slots: dict[str, str]) -> str:
    """`template` with each `[this|that]` replaced by one of its choices, inner ones first, and `{slot}` filled."""
    while "[" in template:
        template = re.sub(r"\[([^\[\]]*)\]", lambda m: pick(rng, m[1].split("|")), template)
    text = re.sub(r" +", " ", template.format_map(slots)).strip()
    return re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text)


def passage(rng: Random, kind: str | None = None) -> str:
    """One passage of some 60 to 150 words, of a `kind` of `KINDS` or of any."""
    paragraphs = KINDS[kind or pick(rng, list(KINDS))]
    slots = scene(rng)
    return "\n".join(
        expand(rng, wording, slots) for wording in [pick(rng, wordings) for wordings in paragraphs]
    )
