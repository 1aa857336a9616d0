"""A request of a trace as the scheduler sees it: so many tokens, nobody knows which."""

from lapidist.engine.page_pool import PageHash
from lapidist.engine.sequence import Sequence

_TOKEN = 0  # a trace tells lengths only; the scheduler counts tokens and never looks at them


class TraceSequence(Sequence):
    """A sequence whose pages are told apart by request and position instead of by tokens.

    Parameters
    ----------
    request : its number in the trace.
    shared_tokens : first tokens of the prompt that all requests have in common.
    """

    def __init__(self, request: int, prompt_tokens: int, output_tokens: int, shared_tokens: int = 0) -> None:
        super().__init__([_TOKEN] * prompt_tokens, prompt_tokens, prompt_tokens + output_tokens)
        self.request = request
        self.shared_tokens = shared_tokens

    @property
    def generated(self) -> int:
        """Tokens after the prompt."""
        return len(self.token_ids) - self.prompt_length

    def append(self, count: int = 1) -> None:
        """Take ``count`` generated tokens in."""
        self.token_ids.extend([_TOKEN] * count)

    def full_page_hashes(self, num_tokens: int, page_size: int) -> list[PageHash]:
        """As of ``Sequence``: equal where pages hold the same tokens, here those of the shared prefix."""
        hashes, count = self._page_hashes, num_tokens // page_size
        for page in range(len(hashes), count):
            owner = "shared" if (page + 1) * page_size <= self.shared_tokens else self.request
            hashes.append(f"{owner}/{page}".encode())
        return hashes if len(hashes) == count else hashes[:count]
