"""The text that calibration uses when the user gives none: endless, and always the same."""

import random
from collections.abc import Iterator
from importlib.resources import files

_HEADING = "%% "


def default_texts() -> Iterator[str]:
    """Documents in which prose, code, other scripts, numbers and repetitions follow each other in changing order.

    The variety matters more than the amount: a head's largest scores come from what it looks for, be it an earlier
    copy of a name, a bracket or the first token. Numbers and repetitions are drawn from a fixed seed.
    """
    rng = random.Random(0)
    paragraphs = _paragraphs()
    while True:
        parts = [rng.choice(paragraphs[kind]) for kind in ("prose", "prose", "code", "languages")]
        parts += [_numbers(rng), _repetition(rng, rng.choice(paragraphs["prose"]))]
        rng.shuffle(parts)
        yield "\n\n".join(parts) + "\n\n"


def _paragraphs() -> dict[str, list[str]]:
    """The shipped paragraphs by kind."""
    found: dict[str, list[str]] = {}
    for section in files(__package__).joinpath("default_text.txt").read_text("utf-8").split(_HEADING)[1:]:
        kind, _, text = section.partition("\n")
        found[kind] = [paragraph for paragraph in text.strip().split("\n\n") if paragraph]
    return found


def _numbers(rng: random.Random) -> str:
    rows = rng.randint(2, 8)
    kinds = (
        lambda: f"{rng.randint(0, 10**6)}, {rng.uniform(-100, 100):.3f}, {rng.randint(0, 9)}",
        lambda: (
            f"20{rng.randint(0, 40):02}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02} {rng.getrandbits(32):08x}"
        ),
        lambda: f"{(a := rng.randint(2, 999))} * {(b := rng.randint(2, 999))} = {a * b}",
    )
    return "\n".join(rng.choice(kinds)() for _ in range(rows))


def _repetition(rng: random.Random, paragraph: str) -> str:
    """A word, a sentence or a character again and again: what copying heads react to most."""
    sentences = paragraph.split(". ")
    piece = rng.choice(
        [rng.choice(paragraph.split()) + " ", rng.choice(sentences) + ". ", rng.choice("=-. #0\n")]
    )
    return piece * rng.randint(4, max(5, 240 // len(piece)))
