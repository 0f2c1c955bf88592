"""Batches made ahead of their use, so that the network does not wait for data."""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from torch import Tensor

from escsr.training.data.pairs import PairSource

Batch = tuple[Tensor, Tensor]


class Prefetcher:
    """The batches of the steps ``first_step``, …, ``last_step - 1``, in order.

    Threads suffice: decoding and slicing let go of Python's lock. What the batches hold does not
    depend on the number of workers, since the source makes each from its step alone.

    Args:
        source: makes the batch of a step; several threads call it at once.
        first_step: of the first batch.
        last_step: the one before which to stop.
        rank: which of the processes this is.
        world_size: number of processes that share each batch.
        workers: threads; one suffices while the images are in memory.
        ahead: batches that are ready or being made while one is used.
        pin_memory: put them into page-locked memory, from which a CUDA device copies faster.
    Raises:
        What the source raises, from ``next`` of the batch that it concerns; then it is closed.
    """

    def __init__(
        self,
        source: PairSource,
        *,
        first_step: int,
        last_step: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 1,
        ahead: int = 4,
        pin_memory: bool = False,
    ) -> None:
        self._source = source
        self._rank = rank
        self._world_size = world_size
        self._pin_memory = pin_memory
        self._steps = iter(range(first_step, last_step))
        self._waited_seconds = 0.0
        self._batches: deque[Future[Batch]] = deque()
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="escsr-data")
        for _ in range(max(ahead, workers)):
            self._start_next()

    @property
    def waited_seconds(self) -> float:
        """Time that ``next`` has waited for data so far, in all."""
        return self._waited_seconds

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if not self._batches:
            raise StopIteration
        began = time.perf_counter()
        try:
            batch = self._batches.popleft().result()
        except BaseException:
            self.close()
            raise
        self._waited_seconds += time.perf_counter() - began
        self._start_next()
        return batch

    def close(self) -> None:
        """Drop what is not begun, and wait for what is: at most a batch per worker."""
        self._batches.clear()
        self._steps = iter(())
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _start_next(self) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._batches.append(self._pool.submit(self._make, step))

    def _make(self, step: int) -> Batch:
        lr_batch, hr_batch = self._source.batch(step, rank=self._rank, world_size=self._world_size)
        if self._pin_memory:
            return lr_batch.pin_memory(), hr_batch.pin_memory()
        return lr_batch, hr_batch
