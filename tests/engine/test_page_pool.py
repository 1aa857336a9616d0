"""The page pool against a plain model of it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lapidist.engine.page_pool import ROOT_HASH, PagePool, hash_page


def test_hash_depends_on_every_earlier_token() -> None:
    first = hash_page(ROOT_HASH, [1, 2])
    assert hash_page(first, [3, 4]) != hash_page(ROOT_HASH, [3, 4])
    assert hash_page(hash_page(ROOT_HASH, [9, 2]), [3, 4]) != hash_page(first, [3, 4])
    assert hash_page(first, [3, 4]) == hash_page(hash_page(ROOT_HASH, [1, 2]), [3, 4])


def test_scattered_pages_are_the_same_ones_in_runs_that_descend() -> None:
    pool = PagePool(1000, 4)
    held = pool.allocate(10)
    pool.scatter(0)
    assert pool.num_held == 10
    pages = pool.allocate(990)
    assert sorted(pages + held) == list(range(1000))
    runs = 1 + sum(later != earlier - 1 for earlier, later in pairwise(pages))
    assert 990 / 64 <= runs < 990 / 8
    other = PagePool(1000, 4)
    other.allocate(10)
    other.scatter(1)
    assert other.allocate(990) != pages


def test_least_recently_released_page_is_reused_first() -> None:
    pool = PagePool(3, 4)
    pages = pool.allocate(3)
    for index, page in enumerate(pages):
        pool.publish(page, bytes([index]))
    pool.release([pages[1]])
    pool.release([pages[0]])
    pool.release([pages[2]])
    assert pool.allocate(1) == [pages[1]]
    assert pool.find([bytes([0])]) == [pages[0]]
    assert pool.find([bytes([1])]) == []


def test_pages_without_cached_contents_are_reused_before_cached_ones() -> None:
    pool = PagePool(2, 4)
    cached, plain = pool.allocate(2)
    pool.publish(cached, b"prefix")
    pool.release([cached])
    pool.release([plain])
    assert pool.allocate(1) == [plain]


def test_end_of_a_prefix_is_forgotten_before_its_beginning() -> None:
    pool = PagePool(3, 4)
    pages = pool.allocate(3)
    for index, page in enumerate(pages):
        pool.publish(page, bytes([index]))
    pool.release(pages)
    pool.allocate(1)
    assert pool.find([bytes([0]), bytes([1]), bytes([2])]) == pages[:2]


def test_acquired_cached_page_is_shared_and_survives_one_release() -> None:
    pool = PagePool(1, 4)
    pages = pool.allocate(1)
    pool.publish(pages[0], b"x")
    pool.acquire(pool.find([b"x"]))
    pool.release(pages)
    assert pool.num_free == 0
    pool.release(pages)
    assert pool.num_free == 1


def test_misuse_is_refused() -> None:
    pool = PagePool(2, 4)
    with pytest.raises(ValueError, match="3 pages asked for, 2 free"):
        pool.allocate(3)
    with pytest.raises(ValueError, match="nobody holds it"):
        pool.release([0])
    with pytest.raises(ValueError, match="at least one page"):
        PagePool(0, 4)


@given(st.integers(0, 1000), st.integers(1, 64))
def test_pages_for_rounds_up(num_tokens: int, page_size: int) -> None:
    pages = PagePool(1, page_size).pages_for(num_tokens)
    assert (pages - 1) * page_size < num_tokens <= pages * page_size


class PoolMachine(RuleBasedStateMachine):
    """Random allocations, sharing, releases and publications keep the books straight."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(8, 4)
        self.held: list[list[int]] = []
        self.contents: dict[int, bytes] = {}  # what every page was last published with
        self.next_hash = 0

    @rule(count=st.integers(0, 8))
    def allocate(self, count: int) -> None:
        if count > self.pool.num_free:
            with pytest.raises(ValueError):
                self.pool.allocate(count)
            return
        pages = self.pool.allocate(count)
        taken = {page for group in self.held for page in group}
        assert len(set(pages)) == count
        assert not taken & set(pages)
        for page in pages:
            self.contents.pop(page, None)
        self.held.append(pages)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.pool.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @precondition(lambda self: any(self.held))
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        page = data.draw(st.sampled_from([page for group in self.held for page in group]))
        if page not in self.contents:
            self.contents[page] = self.next_hash.to_bytes(4, "little")
            self.next_hash += 1
        self.pool.publish(page, self.contents[page])

    @precondition(lambda self: self.contents)
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        page = data.draw(st.sampled_from(sorted(self.contents)))
        assert self.pool.find([self.contents[page]]) == [page]
        self.pool.acquire([page])
        self.held.append([page])

    @invariant()
    def counts_add_up(self) -> None:
        taken = {page for group in self.held for page in group}
        assert self.pool.num_held == len(taken)
        assert self.pool.num_free == 8 - len(taken)


TestPoolMachine = PoolMachine.TestCase
