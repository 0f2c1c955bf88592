"""What of this machine the training data may take: cores and memory."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from escsr.inference.devices import available_memory_bytes

Item = TypeVar("Item")
Result = TypeVar("Result")

_UNKNOWN_MEMORY_BYTES = 4 << 30
"""Taken for granted where the system does not tell."""


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    free_bytes = available_memory_bytes(torch.device("cpu")) or _UNKNOWN_MEMORY_BYTES
    return free_bytes // (2 * processes)
