"""Rows generated on the fly: key-value lookup, needles in a haystack, copying, plain text, prose, chat."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from recipes.tiny import words
from recipes.tiny.chat import conversation
from recipes.tiny.facts import Fact, Random, number, pick, random_facts, thing
from recipes.tiny.prose import passage
from recipes.tiny.rows import Materials, Part, Row
from recipes.tiny.tokenizer import ASSISTANT, BOS, END, SPECIAL_TOKENS, USER

FIRST_ORDINARY_TOKEN = len(SPECIAL_TOKENS)


def start(materials: Materials) -> Row:
    row = Row()
    row.add(materials.encode(BOS), Part.CONTEXT)
    return row


def text_row(rng: Random, length: int, materials: Materials) -> Row:
    """Real text from a random place."""
    row = start(materials)
    row.add(materials.passage(rng, length - 1)[0], Part.TEXT)
    return row


def letters(rng: Random) -> str:
    return "".join(chr(97 + int(letter)) for letter in rng.integers(26, size=int(rng.integers(2, 6))))


def random_key(rng: Random, style: int, vocabulary: list[str]) -> str:
    makers: list[Callable[[], str]] = [
        lambda: pick(rng, vocabulary),
        lambda: thing(rng),
        lambda: number(rng, int(rng.integers(2, 5))),
        lambda: letters(rng),
        lambda: f"{pick(rng, words.NAMES)} {pick(rng, vocabulary)}",
    ]
    return makers[style]()


def key_value_row(rng: Random, length: int, materials: Materials) -> Row:
    """A table of random `key: value` lines, then lookups in random order until the row is full."""
    row = start(materials)
    key_style, value_style = int(rng.integers(5)), int(rng.integers(4))
    separator = pick(rng, [":", " =", " ->", " is"])
    prefix = pick(rng, ["", "", "Q: ", "? "])
    # The table takes a third to a half of the row; now and then real text stands between table and lookups.
    table_end = int(length * rng.uniform(0.3, 0.5))
    entries: dict[str, str] = {}
    for _ in range(length):
        key = random_key(rng, key_style, materials.words)
        if key in entries:
            continue
        if len(row) >= table_end:
            break
        entries[key] = random_key(rng, value_style, materials.words)
        row.add(materials.encode(f"\n{key}{separator} {entries[key]}"), Part.CONTEXT)
    if rng.random() < 0.3:
        row.add(materials.encode("\n"), Part.CONTEXT)
        row.add(materials.passage(rng, int(length * rng.uniform(0.1, 0.3)))[0], Part.TEXT)
    row.add(materials.encode("\n"), Part.CONTEXT)
    keys = list(entries)
    while len(row) < length:
        for index in rng.permutation(len(keys)):
            key = keys[int(index)]
            row.add(materials.encode(f"\n{prefix}{key}{separator}"), Part.CONTEXT)
            row.add(materials.encode(f" {entries[key]}"), Part.KEY_VALUE)
            if len(row) >= length:
                break
    row.cut(length)
    return row


def hide(rng: Random, facts: list[Fact], length: int, materials: Materials) -> Row:
    """`length` tokens of real text with the facts at random depths, each at the nearest sentence
    start.
    """
    needles = [materials.encode(f" {fact.statement}") for fact in facts]
    text, starts = materials.passage(rng, max(1, length - sum(map(len, needles))))
    places = np.asarray([0, *starts, len(text)])
    row, done = Row(), 0
    # Every third document has its facts near the beginning: far lookups are the hardest to learn.
    skew = 2.5 if rng.random() < 0.33 else 1.0
    depths = np.sort(len(text) * rng.random(size=len(facts)) ** skew)
    for needle, depth in zip(needles, depths, strict=True):
        place = int(places[np.abs(places - depth).argmin()])
        row.add(text[done:place], Part.TEXT)
        row.add(needle, Part.CONTEXT)
        done = place
    row.add(text[done:], Part.TEXT)
    return row


def ask(fact: Fact, materials: Materials) -> Row:
    """The question after a plain document and its answer."""
    row = Row()
    row.add(materials.encode(f"\n\n{fact.question} {fact.lead}"), Part.CONTEXT)
    row.add(materials.encode(f"{fact.answer}."), Part.NEEDLE)
    return row


def ask_in_chat(fact: Fact, first: bool, materials: Materials) -> Row:
    """The question as a chat turn; the first one follows the document inside the user's message."""
    row = Row()
    row.add(materials.encode("\n\n" if first else USER), Part.CONTEXT)
    row.add(materials.encode(f"{fact.question}{END}{ASSISTANT}"), Part.CONTEXT)
    row.add(materials.encode(fact.lead), Part.CHAT)
    row.add(materials.encode(f"{fact.answer}.{END}"), Part.NEEDLE)
    return row


def needle_row(rng: Random, length: int, materials: Materials) -> Row:
    """A haystack of real text, one to twelve needles in it, and then a question for each in random order."""
    row = start(materials)
    in_chat = rng.random() < 0.3
    facts = random_facts(rng, int(rng.integers(1, max(2, min(13, length // 80)))))
    order = rng.permutation(len(facts))
    if in_chat:
        questions = [ask_in_chat(facts[int(i)], rank == 0, materials) for rank, i in enumerate(order)]
        row.add(materials.encode(USER), Part.CONTEXT)
    else:
        questions = [ask(facts[int(i)], materials) for i in order]
    # One document in four is shorter than the row, so that questions come at every position.
    room = length - len(row) - sum(map(len, questions))
    filled = int(room * rng.uniform(0.4, 1.0)) if rng.random() < 0.25 else room
    for piece in [hide(rng, facts, filled, materials), *questions]:
        row.tokens += piece.tokens
        row.parts += piece.parts
    if len(row) < length:
        row.add(text_row(rng, length - len(row), materials).tokens, Part.TEXT)
    row.cut(length)
    return row


def copy_row(rng: Random, length: int, materials: Materials) -> Row:
    """Segments of random tokens or real text, then the same segments again in other orders."""
    row = start(materials)
    size = int(rng.integers(4, min(64, length // 3) + 1))
    count = int(rng.integers(1, max(2, length // (2 * size) + 1)))
    body, _ = materials.passage(rng, size * count)
    first_part = Part.TEXT
    draw = rng.random()
    if draw < 0.7:
        # Text in random order has frequent tokens, unlike tokens drawn evenly; neither can be guessed, only
        # copied.
        vocab_size = materials.tokenizer.get_vocab_size()
        even = rng.integers(FIRST_ORDINARY_TOKEN, vocab_size, size=size * count)
        body = (even if draw < 0.3 else rng.permutation(body)).tolist()
        first_part = Part.CONTEXT
    segments = [body[i * size : (i + 1) * size] for i in range(count)]
    row.add(body, first_part)
    while len(row) < length:
        for index in rng.permutation(count):
            # A segment's first tokens say which one it is; from then on it is determined.
            row.add(segments[int(index)][:2], Part.CONTEXT)
            row.add(segments[int(index)][2:], Part.COPY)
    row.cut(length)
    return row


def recall_row(rng: Random, length: int, materials: Materials) -> Row:
    """Real text, then requests to repeat its sentences, each named by its opening words."""
    row = start(materials)
    text, starts = materials.passage(rng, int(length * rng.uniform(0.5, 0.8)))
    row.add(text, Part.TEXT)
    spans = [(a, b) for a, b in pairwise(starts) if 8 <= b - a <= 60]
    for index in rng.permutation(len(spans)):
        if len(row) >= length:
            break
        first, last = spans[int(index)]
        sentence, opening = text[first:last], text[first : first + 4]
        row.add(materials.encode("\n\nRepeat the sentence that starts with:"), Part.CONTEXT)
        row.add(opening, Part.CONTEXT)
        row.add(materials.encode("\nThe sentence is:"), Part.CONTEXT)
        row.add(sentence, Part.COPY)
    if len(row) < length:
        row.add(text_row(rng, length - len(row), materials).tokens, Part.TEXT)
    row.cut(length)
    return row


def chat_row(rng: Random, length: int, materials: Materials) -> Row:
    """Short conversations, one after the other."""
    row = Row()
    while len(row) < length:
        for text, spoken_by_model in conversation(rng):
            row.add(materials.encode(text), Part.CHAT if spoken_by_model else Part.CONTEXT)
    row.cut(length)
    return row


def prose_row(rng: Random, length: int, materials: Materials) -> Row:
    """Generated passages, one after the other."""
    row = start(materials)
    while len(row) < length:
        row.add(materials.encode(f"{passage(rng)}\n\n"), Part.PROSE)
    row.cut(length)
    return row


TASKS: dict[str, Callable[[Random, int, Materials], Row]] = {
    "text": text_row,
    "key_value": key_value_row,
    "needle": needle_row,
    "copy": copy_row,
    "recall": recall_row,
    "chat": chat_row,
    "prose": prose_row,
}
