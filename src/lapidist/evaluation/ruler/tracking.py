"""RULER's variable tracking: which variables hold a value, through a chain of assignments hidden in noise?"""

import numpy as np

from lapidist.evaluation.needle_facts import number
from lapidist.evaluation.ruler.needles import NOISE
from lapidist.evaluation.ruler.sample import Sample
from lapidist.evaluation.ruler.values import UPPER, distinct_letters

HOPS = 4
FEWEST_LINES = HOPS + 1
_REPLY = 30
_EXAMPLE_LINES = 5


def tracking_sample(rng: np.random.Generator, units: int, with_example: bool) -> Sample:
    """One chain of five variables among ``units`` lines of noise, at least ``FEWEST_LINES``.

    Parameters
    ----------
    with_example : put a worked example before it, with shorter names and five lines of noise.
    """
    body, prefix, variables = _problem(rng, units, name_length=5)
    if with_example:
        example, reply, found = _problem(rng, _EXAMPLE_LINES, name_length=3)
        body = f"{example}{reply}{' '.join(found)}\n\n{body}"
    return Sample(body, prefix, tuple(variables), _REPLY)


def _problem(rng: np.random.Generator, units: int, name_length: int) -> tuple[str, str, list[str]]:
    names = distinct_letters(rng, HOPS + 1, name_length, UPPER)
    value = number(rng, 5)
    chain = [f"VAR {names[0]} = {value}"]
    chain += [f"VAR {names[hop + 1]} = VAR {names[hop]} " for hop in range(HOPS)]
    lines = [f"{NOISE}\n"] * units
    places = np.sort(rng.choice(units, size=len(chain), replace=False))
    for place, assignment in reversed(list(zip(places.tolist(), chain, strict=True))):
        lines.insert(place, assignment)
    context = " ".join(lines).replace(". \n", ".\n")
    body = (
        "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
        f"{context}\nQuestion: Find all variables that are assigned the value {value} in the text above."
    )
    prefix = (
        " Answer: According to the chain(s) of variable assignment in the text above, "
        f"{HOPS + 1} variables are assigned the value {value}, they are: "
    )
    return body, prefix, names
