"""Finding stop strings in text that comes in pieces."""

from collections.abc import Sequence


class StopStringMatcher:
    """Watches a text for stop strings and holds back no more of it than may still become one.

    The text ends at the stop string that is complete first; of those complete at the same character, at the
    longest. The result does not depend on how the text is cut into pieces. Each character costs time constant
    in the length of the stop strings, amortised (Knuth, Morris and Pratt 1977).

    Parameters
    ----------
    stops : non-empty strings.
    include_stop : leave the stop string in the text.
    """

    def __init__(self, stops: Sequence[str], include_stop: bool = False) -> None:
        # Longest first, so that the first complete one is the longest.
        self._patterns = [_Pattern(stop) for stop in sorted(stops, key=len, reverse=True)]
        self._include_stop = include_stop
        self._held = ""

    def feed(self, text: str, final: bool = False) -> tuple[str, str | None]:
        """Take the next piece of text.

        Parameters
        ----------
        final : nothing follows, so nothing is held back.

        Returns
        -------
        The text that is certain now and was not before, and the stop string if one is complete; nothing may
        be fed after that.
        """
        if not self._patterns:
            return text, None
        whole = self._held + text
        for end, character in enumerate(text, start=len(self._held) + 1):
            for pattern in self._patterns:
                pattern.advance(character)
            for pattern in self._patterns:
                if pattern.complete:
                    self._held = ""
                    return whole[: end if self._include_stop else end - len(pattern.text)], pattern.text
        keep = 0 if final else max(pattern.matched for pattern in self._patterns)
        certain = len(whole) - keep
        self._held = whole[certain:]
        return whole[:certain], None


class _Pattern:
    """A string and how many of its characters the text seen so far ends with."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched = 0
        # Length of the longest proper prefix of text[:i + 1] that it also ends with.
        self._border = [0] * len(text)
        for i in range(1, len(text)):
            self._border[i] = self._extend(self._border[i - 1], text[i])

    @property
    def complete(self) -> bool:
        return self.matched == len(self.text)

    def advance(self, character: str) -> None:
        self.matched = self._extend(self.matched, character)

    def _extend(self, matched: int, character: str) -> int:
        while matched and self.text[matched] != character:
            matched = self._border[matched - 1]
        return matched + (self.text[matched] == character)
