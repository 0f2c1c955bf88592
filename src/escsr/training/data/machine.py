"""What of this machine the training data may take: cores and memory."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from escsr.machine import free_memory_bytes, usable_cores

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
