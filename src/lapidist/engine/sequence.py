"""One completion being generated, as the scheduler sees it: token ids and pages."""

from dataclasses import dataclass, field

from lapidist.engine.page_pool import ROOT_HASH, PageHash, hash_page


@dataclass(eq=False)
class Sequence:
    """A prompt and what has been generated after it.

    Parameters
    ----------
    token_ids : prompt and generated tokens; the owner appends, the scheduler only reads.
    prompt_length : how many of them are the prompt.
    max_length : the sequence never grows beyond so many tokens.
    reads_prefix_cache : False where every prompt token must be computed (prompt log-probabilities).
    cache_salt : sequences with different salts never share pages.
    """

    token_ids: list[int]
    prompt_length: int
    max_length: int
    reads_prefix_cache: bool = True
    cache_salt: bytes = ROOT_HASH

    num_computed: int = 0
    """Tokens whose keys and values are in ``pages``."""
    pages: list[int] = field(default_factory=list)
    num_cached_tokens: int = 0
    """Prompt tokens found in the prefix cache at the first admission."""
    num_preemptions: int = 0
    arrival: int = 0
    """Its number among all that arrived, from 1."""
    needs_filter: bool = False
    """Whether a prompt filter must run before the sequence can be admitted."""
    num_restored: int = 0
    """Tokens at the beginning whose keys and values a filter hands over: no token ids say what they are, and no other
    sequence may share them."""
    prompt_positions: list[int] | None = None
    """Of the first tokens, where they are not 0, 1, 2..."""
    position_offset: int = 0
    """Of every later token, what its position exceeds its place by."""
    rope_length: int = 0
    """Tokens of the prompt as length-dependent rotary embedding counts them."""
    _page_hashes: list[PageHash] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 < self.prompt_length <= len(self.token_ids):
            raise ValueError(
                f"a prompt of {self.prompt_length} tokens in a sequence of {len(self.token_ids)}"
            )
        self.rope_length = self.rope_length or self.prompt_length

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_uncomputed(self) -> int:
        return len(self.token_ids) - self.num_computed

    def positions(self, start: int, end: int) -> list[int]:
        """Of the tokens at places ``start`` to ``end``."""
        offset = self.position_offset
        given = (self.prompt_positions or [])[start:end]
        return [*given, *range(start + len(given) + offset, end + offset)]

    def begin(self, token_ids: list[int], max_length: int, cache_salt: bytes) -> None:
        """Start over with another prompt, which a filter made, before anything was computed or generated."""
        self.token_ids = token_ids
        self.prompt_length = self.rope_length = len(token_ids)
        self.max_length = max_length
        self.cache_salt = cache_salt
        self.needs_filter = False
        self._page_hashes.clear()

    def full_page_hashes(self, num_tokens: int, page_size: int) -> list[PageHash]:
        """Hashes of the full pages among the first ``num_tokens`` tokens; each is computed once."""
        hashes = self._page_hashes
        count = num_tokens // page_size
        while len(hashes) < count:
            start = len(hashes) * page_size
            parent = hashes[-1] if hashes else self.cache_salt
            hashes.append(hash_page(parent, self.token_ids[start : start + page_size]))
        return hashes[:count]
