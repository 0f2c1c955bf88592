"""A budget that holds, and nothing loaded twice at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escsr.training import memory_cache
from escsr.training.memory_cache import MemoryCache


def cache_of_texts(budget_bytes: int, **options: int) -> tuple[MemoryCache[int, str], list[int]]:
    """Values of as many bytes as their key says, and the list of what was loaded."""
    loaded: list[int] = []

    def load(key: int) -> str:
        loaded.append(key)
        return "x" * key

    return MemoryCache(load, size_bytes=len, budget_bytes=budget_bytes, **options), loaded


@given(keys=st.lists(st.integers(0, 9)), budget_bytes=st.integers(0, 40))
def test_the_budget_holds_and_the_values_are_right(keys: list[int], budget_bytes: int) -> None:
    """Whatever is asked for in whatever order."""
    cache, _ = cache_of_texts(budget_bytes)
    for key in keys:
        assert cache.get(key) == "x" * key
        assert cache.kept_bytes <= budget_bytes


def test_the_value_not_used_for_longest_goes_first() -> None:
    """2 and 3 fit together; 2 was used again, so 3 makes room for 4... and 2 stays."""
    cache, loaded = cache_of_texts(6)
    for key in (2, 3, 2, 4, 2, 3):
        cache.get(key)
    assert loaded == [2, 3, 4, 3]


def test_so_many_as_are_needed_at_once_stay_beyond_the_budget() -> None:
    """Two shards that are both larger than the budget are not read again for each image."""
    cache, loaded = cache_of_texts(0, keep_at_least=2)
    for key in (5, 6, 5, 6, 5, 7, 5):
        cache.get(key)
    assert loaded == [5, 6, 7]


def test_threads_that_ask_at_once_share_one_loading() -> None:
    """A shard is read by the first; the others wait for it."""
    loaded: list[int] = []
    everybody_asked = threading.Event()

    def load(key: int) -> int:
        loaded.append(key)
        everybody_asked.wait(5)
        return key

    cache = MemoryCache[int, int](load, size_bytes=lambda _: 1, budget_bytes=9)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(cache.get, 7) for _ in range(4)]
        everybody_asked.set()
        assert [answer.result() for answer in answers] == [7, 7, 7, 7]
    assert loaded == [7]


def test_an_error_is_not_kept() -> None:
    """A file that was put back is read."""
    answers = iter([OSError("gone"), "back"])

    def load(key: int) -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    cache = MemoryCache[int, str](load, size_bytes=len, budget_bytes=9)
    with pytest.raises(OSError, match="gone"):
        cache.get(1)
    assert cache.get(1) == "back"


@pytest.mark.parametrize(
    ("free_bytes", "cache_bytes"), [(None, 1 << 30), (0, 0), (8 << 30, 2 << 30)]
)
def test_no_memory_is_not_unknown_memory(
    free_bytes: int | None, cache_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what is free for two processes; of 4 GiB where the system does not tell."""
    monkeypatch.setattr(memory_cache, "free_memory_bytes", lambda: free_bytes)
    assert memory_cache.default_cache_bytes(processes=2) == cache_bytes
