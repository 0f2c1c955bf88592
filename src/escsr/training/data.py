"""Training data: find its files, open a source of batches, and prefetch batches."""

import glob
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from escsr.errors import TrainingError
from escsr.images.files import READABLE_SUFFIXES
from escsr.training.arbitrary_scale import QuerySource
from escsr.training.batches import Batch, BatchSource
from escsr.training.memory_cache import default_cache_bytes
from escsr.training.patches import pillow_image_module
from escsr.training.photographs import Photographs, is_image_name
from escsr.training.recipe import Recipe
from escsr.training.shards import Shards

_log = logging.getLogger("escsr")

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def open_training_data(
    recipe: Recipe,
    data: Path | str | Sequence[Path | str],
    *,
    image_limit: int | None = None,
    cache_bytes: int | None = None,
    on_loaded: Callable[[int, int], None] = lambda _done, _total: None,
) -> BatchSource:
    """Open a training set: image files, or tar shards where they are too many for that.

    Broken images and those smaller than a patch are named in the log, counted and left out
    ("second-order" takes small ones, too); grey, transparent and 16-bit ones become 8-bit RGB.

    Args:
        recipe: gives scale and seed, and with ``[data]`` what batches are made of.
        data: one or more folders of images (searched with sub-folders), folders of ``.tar``
            files, files, or patterns such as ``set-{000..015}.tar``.
        image_limit: use only the first so many images.
        cache_bytes: memory for decoded images, or for shards; half of what is free unless given.
        on_loaded: called with (done, total) while images are decoded, or shards counted, at the
            start.
    Returns:
        A source of the batches that ``recipe.data.kind`` names.
    Raises:
        TrainingError: there is no usable image.
        MissingExtraError: tar shards without webdataset, or Pillow's degradation without Pillow.
    """
    if recipe.data.needs_pillow:
        pillow_image_module()
    budget = default_cache_bytes() if cache_bytes is None else cache_bytes
    files = find_data_files(data)
    source: BatchSource
    if files.shards:
        source = Shards(
            files.shards, recipe, image_limit=image_limit, cache_bytes=budget, on_loaded=on_loaded
        )
    else:
        source = Photographs(
            files.photographs,
            recipe,
            image_limit=image_limit,
            cache_bytes=budget,
            on_loaded=on_loaded,
        )
    return QuerySource(source, recipe) if recipe.data.kind == "queries" else source


@dataclass(frozen=True, slots=True)
class DataFiles:
    """The files of a training set; one of the two lists is empty."""

    photographs: list[Path]
    shards: list[Path]


def find_data_files(data: Path | str | Sequence[Path | str]) -> DataFiles:
    """Find image files or tar shards.

    Args:
        data: one or more of: a folder of images, searched with its sub-folders; a folder of
            ``.tar`` files; a file; a pattern such as ``set-*.tar`` or ``set-{000..015}.tar``.
    Raises:
        TrainingError: nothing is there, or both images and shards are.
    """
    items = [data] if isinstance(data, (Path, str)) else list(data)
    if not items:
        raise TrainingError("No training data is named; give a folder of images or tar shards.")
    found = [_behind(item) for item in items]
    photographs = list(dict.fromkeys(path for files in found for path in files.photographs))
    shards = list(dict.fromkeys(path for files in found for path in files.shards))
    if photographs and shards:
        raise TrainingError(
            f"The training data mixes image files ({photographs[0]}, …) and tar shards "
            f"({shards[0]}, …); give one kind."
        )
    return DataFiles(photographs, shards)


def _behind(item: Path | str) -> DataFiles:
    path = Path(item)
    if path.is_dir():
        return _in_folder(path)
    paths = [path] if path.exists() else list(_matching(str(item)))
    shards = [path for path in paths if path.suffix.lower() == ".tar"]
    photographs = [path for path in paths if is_image_name(path.name)]
    if not shards and not photographs:
        raise TrainingError(
            f"There is no training data at {item}. Give a folder of images, a folder of .tar "
            "files, or a pattern such as 'set-{000..015}.tar'."
        )
    return DataFiles(photographs, shards)


def _in_folder(folder: Path) -> DataFiles:
    photographs = sorted(path for path in folder.rglob("*") if is_image_name(path.name))
    shards = sorted(folder.glob("*.tar"))
    if photographs and shards:
        _log.warning(
            "%s holds %d images, which are used, and %d .tar files, which are not; to train on "
            "those, give the pattern %s",
            folder,
            len(photographs),
            len(shards),
            folder / "*.tar",
        )
        shards = []
    if not photographs and not shards:
        raise TrainingError(
            f"There is no image and no .tar file in {folder} or below it. Readable images are "
            f"{', '.join(sorted(READABLE_SUFFIXES))}."
        )
    return DataFiles(photographs, shards)


def _matching(pattern: str) -> Iterator[Path]:
    """Files behind a glob, a list in braces, or both; those of a list must all exist."""
    for name in _braces_opened(pattern):
        if glob.has_magic(name):
            yield from map(Path, sorted(glob.glob(name)))  # noqa: PTH207 - absolute ones too
        elif Path(name).is_file():
            yield Path(name)
        elif name != pattern:
            raise TrainingError(f"{name} does not exist, but {pattern} names it.")


def _braces_opened(pattern: str) -> Iterator[str]:
    """``a-{08..10}`` -> a-08, a-09, a-10; ``{a,b}`` -> a, b."""
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    numbers = _RANGE.fullmatch(braces[1])
    if numbers is None:
        parts = braces[1].split(",")
    else:
        first, last = int(numbers[1]), int(numbers[2])
        parts = [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]
    for part in parts:
        yield from _braces_opened(pattern[: braces.start()] + part + pattern[braces.end() :])


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
        source: BatchSource,
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

    def _start_next(self) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._batches.append(self._pool.submit(self._make, step))

    def _make(self, step: int) -> Batch:
        batch = self._source.batch(step, rank=self._rank, world_size=self._world_size)
        return batch.pin_memory() if self._pin_memory else batch
