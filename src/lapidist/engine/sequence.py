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
    _page_hashes: list[PageHash] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 < self.prompt_length <= len(self.token_ids):
            raise ValueError(
                f"a prompt of {self.prompt_length} tokens in a sequence of {len(self.token_ids)}"
            )

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_uncomputed(self) -> int:
        return len(self.token_ids) - self.num_computed

    def full_page_hashes(self, num_tokens: int, page_size: int) -> list[PageHash]:
        """Hashes of the full pages among the first ``num_tokens`` tokens; each is computed once."""
        hashes = self._page_hashes
        count = num_tokens // page_size
        while len(hashes) < count:
            start = len(hashes) * page_size
            parent = hashes[-1] if hashes else self.cache_salt
            hashes.append(hash_page(parent, self.token_ids[start : start + page_size]))
        return hashes[:count]
