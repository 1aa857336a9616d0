"""Who owns which page of the KV cache: reference counts, prefix cache, least-recently-used reuse.

Pure bookkeeping over page numbers: no tensors, no clock.
"""

import random
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

PageHash = bytes

ROOT_HASH: PageHash = b""

_LONGEST_RUN = 64


def hash_page(parent: PageHash, token_ids: Sequence[int]) -> PageHash:
    """Identity of a full page: its tokens and, through ``parent``, every token before it.

    A cryptographic hash, because a collision would hand one user's context to another.
    """
    return blake2b(parent + array("q", token_ids).tobytes(), digest_size=16).digest()


class PagePool:
    """A fixed number of KV pages.

    A page is *held* while a sequence refers to it and *free* otherwise. A free page keeps its contents, and its
    entry in the prefix cache, until it is handed out again; the page released longest ago goes first.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        if num_pages < 1 or page_size < 1:
            raise ValueError(
                f"a page pool needs at least one page of one token, got {num_pages} x {page_size}"
            )
        self.num_pages = num_pages
        self.page_size = page_size
        self._references = [0] * num_pages
        self._hashes: list[PageHash | None] = [None] * num_pages
        self._cached: dict[PageHash, int] = {}
        # Ordered by reuse: the first page is the next one handed out.
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_pages))

    @property
    def num_free(self) -> int:
        """Pages no sequence refers to; cached ones included, for they can be handed out."""
        return len(self._free)

    @property
    def num_held(self) -> int:
        return self.num_pages - len(self._free)

    def pages_for(self, num_tokens: int) -> int:
        """Pages that ``num_tokens`` tokens occupy."""
        return -(-num_tokens // self.page_size)

    def allocate(self, count: int) -> list[int]:
        """Hand out ``count`` pages; their cached contents are forgotten.

        Raises
        ------
        ValueError : fewer than ``count`` pages are free. Nothing is handed out then.
        """
        if count > len(self._free):
            raise ValueError(f"{count} pages asked for, {len(self._free)} free")
        pages = []
        for _ in range(count):
            page, _ = self._free.popitem(last=False)
            self._forget(page)
            self._references[page] = 1
            pages.append(page)
        return pages

    def find(self, hashes: Sequence[PageHash]) -> list[int]:
        """The cached pages of the longest prefix of ``hashes``. Takes no reference."""
        pages = []
        for page_hash in hashes:
            page = self._cached.get(page_hash)
            if page is None:
                break
            pages.append(page)
        return pages

    def num_unreferenced(self, pages: Sequence[int]) -> int:
        """How many of ``pages`` are free now, so that acquiring them lowers ``num_free``."""
        return sum(self._references[page] == 0 for page in pages)

    def acquire(self, pages: Sequence[int]) -> None:
        """Take one more reference to each of ``pages``."""
        for page in pages:
            if self._references[page] == 0:
                del self._free[page]
            self._references[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """Give back one reference to each of ``pages``, given in the order of the sequence.

        The last page is the first to be reused: a prefix is only worth keeping from its beginning.
        """
        for page in reversed(pages):
            if self._references[page] == 0:
                raise ValueError(f"page {page} is released but nobody holds it")
            self._references[page] -= 1
            if self._references[page] == 0:
                self._free[page] = None
                if self._hashes[page] is None:
                    self._free.move_to_end(page, last=False)

    def publish(self, page: int, page_hash: PageHash) -> None:
        """Make a full, computed page findable. The first page with given contents stays the cached one."""
        if self._hashes[page] is None and page_hash not in self._cached:
            self._hashes[page] = page_hash
            self._cached[page_hash] = page

    def scatter(self, seed: int) -> None:
        """Order the free pages as long service leaves them, for measurements: runs of pages that a sequence had, the
        last one first, and the runs in any order. A fresh pool hands out page after page, which memory likes better.
        """
        choice, pages, runs = random.Random(seed), sorted(self._free), []
        while pages:
            length = choice.randint(1, _LONGEST_RUN)
            runs.append(pages[:length][::-1])
            del pages[:length]
        choice.shuffle(runs)
        self._free = OrderedDict.fromkeys(page for run in runs for page in run)

    def _forget(self, page: int) -> None:
        page_hash = self._hashes[page]
        if page_hash is not None:
            del self._cached[page_hash]
            self._hashes[page] = None
