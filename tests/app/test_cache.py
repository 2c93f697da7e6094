"""A budget of bytes, the least recently used out, and each value made once."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prisma_app.cache import Cache


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40)), max_size=60))
def test_it_never_holds_more_than_its_budget(steps: list[tuple[int, int]]) -> None:
    cache: Cache[bytes] = Cache(100, len)
    kept: dict[int, bytes] = {}
    for key, size in steps:
        value = cache.get(key, lambda size=size: bytes(size))  # type: ignore[misc]
        kept.pop(key, None)
        kept[key] = value
        while sum(map(len, kept.values())) > 100:
            kept.pop(next(iter(kept)))
        assert cache.held == sum(map(len, kept.values())) <= 100
    for key, value in list(kept.items()):
        assert cache.find(key) is value


def test_what_is_larger_than_the_budget_is_not_kept() -> None:
    cache: Cache[bytes] = Cache(10, len)
    assert len(cache.get("a", lambda: bytes(11))) == 11
    assert cache.find("a") is None and cache.held == 0


def test_two_who_ask_at_once_make_it_once() -> None:
    cache: Cache[int] = Cache(10, lambda _: 1)
    made, start, found = [], threading.Event(), []

    def make() -> int:
        made.append(1)
        start.wait(5)
        return 7

    threads = [threading.Thread(target=lambda: found.append(cache.get("a", make))) for _ in range(5)]
    for thread in threads:
        thread.start()
    start.set()
    for thread in threads:
        thread.join()
    assert (made, found) == ([1], [7] * 5)


def test_what_fails_is_not_kept() -> None:
    cache: Cache[int] = Cache(10, lambda _: 1)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 // 0)
    assert cache.get("a", lambda: 3) == 3
