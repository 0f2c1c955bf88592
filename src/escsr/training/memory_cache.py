"""Parallel loading for training data, and a cache of bounded size."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

from escsr.machine import free_memory_bytes, usable_cores

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class MemoryCache(Generic[Key, Value]):
    """Loads values when they are asked for, each by one thread however many ask at once.

    Args:
        load: makes the value of a key; what it raises reaches all who asked.
        size_bytes: of a value.
        budget_bytes: kept values take no more than this together.
        keep_at_least: so many are kept even beyond the budget.
    """

    def __init__(
        self,
        load: Callable[[Key], Value],
        *,
        size_bytes: Callable[[Value], int],
        budget_bytes: int,
        keep_at_least: int = 0,
    ) -> None:
        self._load = load
        self._size_bytes = size_bytes
        self._budget_bytes = budget_bytes
        self._keep_at_least = keep_at_least
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._kept_bytes = 0
        self._pending: dict[Key, Future[Value]] = {}
        self._lock = threading.Lock()

    @property
    def kept_bytes(self) -> int:
        """Size of all kept values together."""
        return self._kept_bytes

    def get(self, key: Key) -> Value:
        """The value of a key, from memory or loaded now."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            pending = self._pending.get(key)
            is_first = pending is None
            if pending is None:
                pending = self._pending[key] = Future()
        if is_first:
            self._fill(key, pending)
        return pending.result()

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._kept.clear()
            self._kept_bytes = 0

    def _fill(self, key: Key, pending: "Future[Value]") -> None:
        try:
            value = self._load(key)
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            pending.set_exception(error)
            return
        with self._lock:
            del self._pending[key]
            self._keep(key, value)
        pending.set_result(value)

    def _keep(self, key: Key, value: Value) -> None:
        self._kept[key] = value
        self._kept_bytes += self._size_bytes(value)
        while self._kept_bytes > self._budget_bytes and len(self._kept) > self._keep_at_least:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= self._size_bytes(oldest)


Item = TypeVar("Item")
Result = TypeVar("Result")

_UNKNOWN_MEMORY_BYTES = 4 << 30
"""Taken for granted where the system does not tell."""


@contextmanager
def mapped_on_all_cores(
    work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Iterator[Result]]:
    """Do the same work on many items, one thread per core; what is left at the end is not begun.

    Args:
        work: done on each item; what it raises is raised where its result is taken.
        items: all are taken at once.
    Yields:
        The results, in the order of ``items``.
    """
    pool = ThreadPoolExecutor(max_workers=usable_cores())
    try:
        yield pool.map(work, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def default_cache_bytes(processes: int = 1) -> int:
    """Half of the memory that is free now, shared among the processes of this machine."""
    free_bytes = free_memory_bytes()
    if free_bytes is None:
        free_bytes = _UNKNOWN_MEMORY_BYTES
    return free_bytes // (2 * processes)
