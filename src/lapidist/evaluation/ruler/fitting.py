"""The largest number of units (sentences, words, documents) with which a prompt still has the length asked for."""

from collections.abc import Callable


def most_that_fit(tokens: Callable[[int], int], room: int, fewest: int, most: int | None = None) -> int:
    """The largest count from ``fewest`` to ``most`` with ``tokens(count) <= room``, as far as ``tokens`` rises.

    ``tokens`` is nearly linear, so that a chord finds the place in a few calls, each of which tokenizes a prompt.

    Raises
    ------
    ValueError : even ``fewest`` take more.
    """
    least = tokens(fewest)
    if least > room:
        raise ValueError(f"it takes at least {least} tokens")
    low, low_tokens = fewest, least
    high, high_tokens = None, 0  # the smallest count known not to fit
    step = 8
    while high is None or high - low > 1:
        if high is None:
            guess = low + step
        else:
            slope = (high_tokens - low_tokens) / (high - low)
            guess = low + int((room - low_tokens) / slope) if slope > 0 else (low + high) // 2
            guess = min(max(guess, low + 1), high - 1)
        if most is not None and guess > most:
            high, high_tokens = most + 1, max(room + 1, low_tokens)
            continue
        found = tokens(guess)
        if found <= room:
            per_unit = (found - low_tokens) / (guess - low)
            low, low_tokens = guess, found
            # Straight to the end of the room by the pace so far, and a little beyond.
            step = max(1, int(1.02 * (room - found) / per_unit) + 1) if per_unit > 0 else 2 * step
        else:
            high, high_tokens = guess, found
    return low
