"""Facts hidden in a haystack, and the questions that ask for them, in several phrasings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lapidist.evaluation.needle_facts import number, outing, pick, thing
from recipes.tiny import words

Random = np.random.Generator


@dataclass(frozen=True)
class Fact:
    """One needle.

    `statement` is the sentence to hide; `question` asks for it; `lead` begins the reply and ends right before
    `answer`, which starts with a space or a digit-free boundary so that tokens never straddle the two.
    """

    subject: str
    statement: str
    question: str
    lead: str
    answer: str


def secret(rng: Random, kind: str, subject: str, value: str) -> Fact:
    statement = f"The {kind} for the {subject} is {value}."
    question = f"What is the {kind} for the {subject}?"
    return Fact(f"{kind} {subject}", statement, question, f"The {kind} for the {subject} is", f" {value}")


def secret_number(rng: Random) -> Fact:
    return secret(rng, "secret number", thing(rng), number(rng, 5 if rng.random() < 0.5 else None))


def secret_word(rng: Random) -> Fact:
    kind = pick(rng, ["secret word", "password", "code word", "magic word"])
    return secret(rng, kind, thing(rng), pick(rng, words.NOUNS + words.ADJECTIVES))


def access_code(rng: Random) -> Fact:
    kind = pick(rng, ["access code", "lucky number", "phone number", "room number", "code"])
    return secret(rng, kind, thing(rng), number(rng))


def special_magic_number(rng: Random) -> Fact:
    subject, value = thing(rng), number(rng)
    statement = f"One of the special magic numbers for {subject} is: {value}."
    question = f"What is the special magic number for {subject} mentioned in the provided text?"
    lead = f"The special magic number for {subject} mentioned in the provided text is"
    return Fact(f"magic {subject}", statement, question, lead, f" {value}")


def pass_key(rng: Random) -> Fact:
    value = number(rng, 5)
    statement = f"The pass key is {value}. Remember it. {value} is the pass key."
    return Fact("pass key", statement, "What is the pass key?", "The pass key is", f" {value}")


def best_thing(rng: Random) -> Fact:
    city, answer = pick(rng, words.CITIES), outing(rng)
    lead = f"The best thing to do in {city} is"
    return Fact(
        f"best {city}",
        f"{lead} to{answer}.",
        f"What is the best thing to do in {city}?",
        f"{lead} to",
        answer,
    )


def person(rng: Random) -> Fact:
    name = pick(rng, words.NAMES)
    lead, question, answer = [
        (f"{name} lives in", f"Where does {name} live?", pick(rng, words.CITIES)),
        (
            f"The favorite color of {name} is",
            f"What is the favorite color of {name}?",
            pick(rng, words.COLORS),
        ),
        (
            f"The favorite animal of {name} is the",
            f"What is the favorite animal of {name}?",
            pick(rng, words.NOUNS),
        ),
        (f"{name} was born in the year", f"When was {name} born?", number(rng, 4)),
        (f"{name} keeps the {thing(rng)} in the", "", pick(rng, words.NOUNS)),
    ][int(rng.integers(5))]
    question = question or "Where does " + lead.removesuffix(" in the").replace(" keeps ", " keep ") + "?"
    return Fact(f"{question}", f"{lead} {answer}.", question, lead, f" {answer}")


KINDS: list[tuple[Callable[[Random], Fact], float]] = [
    (secret_number, 0.35),
    (secret_word, 0.12),
    (access_code, 0.15),
    (special_magic_number, 0.12),
    (pass_key, 0.03),
    (best_thing, 0.08),
    (person, 0.15),
]


def random_facts(rng: Random, count: int) -> list[Fact]:
    """`count` facts about different subjects."""
    makers, chances = zip(*KINDS, strict=True)
    facts: dict[str, Fact] = {}
    while len(facts) < count:
        fact = makers[int(rng.choice(len(makers), p=chances))](rng)
        facts.setdefault(fact.subject, fact)
    return list(facts.values())
