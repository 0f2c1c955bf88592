"""Exact results: images that do not fit in one piece, made as if they did.

The core makes the features of all pixels, layer by layer, kept in memory or in a temporary file,
and then the result row by row. Of engines that are not the core's, it is opened beside them.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Literal

import numpy as np

from escsr.core.network import Job, Network
from escsr.engines.core_engine import axis_of
from escsr.engines.cost import NetworkCost
from escsr.engines.devices import is_out_of_memory
from escsr.engines.engine import Engine, reflected_positions
from escsr.errors import ConfigurationError, DeviceMemoryError, DiskSpaceError, EscsrError
from escsr.upscaling.borders import NO_MARGINS, Margins
from escsr.upscaling.fidelity import keep_colours_of_bands
from escsr.upscaling.memory import (
    AUTO_SHARE,
    SMALLER_TILES,
    MemoryBudget,
    TileChoice,
    TilePlan,
    Workload,
    standing_bytes,
)
from escsr.upscaling.pixels import PixelPlanes, Pixels
from escsr.upscaling.tiles import AxisScale, Floats, Span

Place = Literal["memory", "disk"]
"""Where features are kept."""

_COPIES_OF_RESULT = 7
"""Of a band in float32: as it comes, waiting for the colour guard, guarded, as planes, clamped,
multiplied; and a part of it in the making."""
_ROWS_WAITING = 28
"""LR rows that the colour guard holds back, and those of the last band that go with them."""
_FLOAT_BYTES = 4

OnShareDone = Callable[[float], None]
"""Called with a share of the work, to be added up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactPlan:
    """How one pass over an image is made exactly, and what it will need."""

    band_rows: int
    """Rows of the result that are made at a time."""
    place: Place
    """Where the features of all pixels lie."""
    tile_pixels: int
    """Longest side of the image, in LR pixels: there are no tiles."""
    peak_memory_bytes: int
    """Estimate of everything held at once, beside the program itself."""
    disk_bytes: int
    """What lies in temporary files."""
    limit_bytes: int
    """What the core is told to keep within, for each image; 0 lets it do with the least."""
    num_tiles: int = 1
    is_whole: bool = False
    """Never: what fits in one piece is run in one piece."""
    is_exact: bool = True


def choose_pass(
    tiles: TilePlan | DeviceMemoryError,
    workload: Workload,
    engine: Engine,
    cost: NetworkCost,
    *,
    exact: bool,
    tile: TileChoice,
    memory: MemoryBudget,
) -> TilePlan | ExactPlan:
    """Settle one pass: exactly or in tiles; an image that fits in one piece is run so.

    Where its features fit in memory, the core makes it row by row at no further cost, and so
    rather than in tiles. Where the least tile does not fit, working layer by layer may.

    Args:
        tiles: the plan for tiles, or why there is none.
        workload: the image.
        engine: the network.
        cost: of the network.
        exact: what was asked for.
        tile: side of a tile as asked for.
        memory: what there is.
    Raises:
        ConfigurationError: an exact result of a network that the core cannot run.
        DeviceMemoryError, DiskSpaceError: there is no room; or for exactness, if asked for.
    """
    if isinstance(tiles, TilePlan) and tiles.is_whole:
        return tiles
    if engine.name == "native" and tile == "auto":
        plan = _plan_in_memory(workload, engine, cost, memory)
        if plan is not None:
            return plan
    # Where in the image a tile for "lda" lies is something that the core cannot be told.
    config = engine.config
    has_tiles = engine.name != "native" or config is None or config.upsampler != "lda"
    if isinstance(tiles, TilePlan) and not exact and has_tiles:
        return tiles
    try:
        return plan_exactly(workload, engine, cost, memory)
    except (ConfigurationError, DeviceMemoryError, DiskSpaceError) as error:
        if exact or not isinstance(tiles, DeviceMemoryError):
            raise
        raise _neither(tiles, error, workload, cost, memory) from error


def _neither(
    tiles: DeviceMemoryError,
    error: EscsrError,
    workload: Workload,
    cost: NetworkCost,
    memory: MemoryBudget,
) -> DeviceMemoryError:
    """Why there is no plan at all, in the words of what was asked for."""
    if isinstance(error, DeviceMemoryError):
        # Of both ways the one that needs less.
        least = min(tiles.needed_bytes or 0, error.needed_bytes or 0)
        return memory.refusal(workload, cost, needed_bytes=least, advice=SMALLER_TILES)
    if isinstance(error, DiskSpaceError):
        return DeviceMemoryError(
            f"{tiles} Layer by layer it would do, but: {error}", needed_bytes=tiles.needed_bytes
        )
    return tiles


def plan_exactly(
    workload: Workload, engine: Engine, cost: NetworkCost, memory: MemoryBudget
) -> ExactPlan:
    """Settle one pass: the features lie in memory where they fit, else on disk.

    Args:
        workload: the image.
        engine: the network.
        cost: of the network.
        memory: what there is.
    Raises:
        ConfigurationError: the core cannot run the network.
        DeviceMemoryError: the limit is below what the smallest parts need.
        DiskSpaceError: the features fit neither in memory nor on the disk.
    """
    if engine.exact_network is None:
        raise ConfigurationError(
            "exact is True and the image does not fit in one piece, but only a network that is an "
            'ESC can be run layer by layer, and not with the back-end "reference". Use '
            'exact=False, or tile="whole" if there is memory enough.'
        )
    plan = _plan_in_memory(workload, engine, cost, memory)
    if plan is not None:
        return plan
    standing = standing_bytes(workload)
    budget = _budget_of(memory, workload)

    def within(limit: int) -> ExactPlan:
        return _plan_within(limit, "disk", workload, engine, cost)

    plans = map(within, _limits_within(budget))
    plan = next((plan for plan in plans if plan.peak_memory_bytes - standing <= budget), within(1))
    work = plan.peak_memory_bytes - standing
    if not memory.allows(workload, work):
        advice = "do without exact results (exact=False, --no-exact)"
        raise memory.refusal(workload, cost, needed_bytes=work + standing, advice=advice)
    require_disk_space(plan.disk_bytes * workload.num_images)
    return plan


def _plan_in_memory(
    workload: Workload, engine: Engine, cost: NetworkCost, memory: MemoryBudget
) -> ExactPlan | None:
    """The same with features in memory; None where they do not fit."""
    standing = standing_bytes(workload)
    for limit in (0, _limits_within(_budget_of(memory, workload))[-1]):
        plan = _plan_within(limit, "memory", workload, engine, cost)
        work = plan.peak_memory_bytes - standing
        fits = memory.host_bytes is None or work <= memory.host_bytes * AUTO_SHARE
        if fits and (memory.limit_bytes is None or plan.peak_memory_bytes <= memory.limit_bytes):
            return plan
    return None


def _budget_of(memory: MemoryBudget, workload: Workload) -> int:
    """What the work on a part may take, if parts can be as small as that."""
    if memory.limit_bytes is None:
        return memory.budget_bytes
    return min(memory.budget_bytes, memory.limit_bytes - standing_bytes(workload))


def _limits_within(budget: int) -> list[int]:
    """What the core may take beside the rows that wait: a half, or less where these are many."""
    return [max(1, int(budget * share)) for share in (1 / 2, 1 / 4, 1 / 8)]


def _plan_within(
    limit: int, place: Place, workload: Workload, engine: Engine, cost: NetworkCost
) -> ExactPlan:
    network = engine.exact_network
    assert network is not None
    size = _extended_size(workload.height, workload.width, engine.multiple)
    factor = cost.scale if network.config.is_arbitrary_scale else network.scale
    needs = network.plan(
        size,
        (round(size[0] * factor), round(size[1] * factor)),
        num_threads=engine.options.num_threads,
        limit_bytes=limit,
        with_storage=place == "disk",
    )
    # Each image of several keeps its own features until the last row is made.
    work = needs.memory_bytes * workload.num_images
    work += _rows_waiting_bytes(workload, cost, needs.band_rows)
    return ExactPlan(
        band_rows=needs.band_rows,
        place=place,
        tile_pixels=max(size),
        peak_memory_bytes=standing_bytes(workload) + work,
        disk_bytes=needs.storage_bytes,
        limit_bytes=limit,
    )


def _rows_waiting_bytes(workload: Workload, cost: NetworkCost, band_rows: int) -> int:
    """What bands of so many rows of the result take on their way to it."""
    lr_rows = min(band_rows / cost.scale + _ROWS_WAITING, workload.height)
    values = 3 * workload.num_images * cost.scale**2 * workload.width
    return math.ceil(_COPIES_OF_RESULT * values * lr_rows) * _FLOAT_BYTES


def _extended_size(height: int, width: int, multiple: int) -> tuple[int, int]:
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def enlarge_exactly(
    source: PixelPlanes,
    engine: Engine,
    plan: ExactPlan,
    *,
    output_size: tuple[int, int],
    margins: Margins = NO_MARGINS,
    keeps_colours: bool = False,
    on_share_done: OnShareDone,
) -> Iterator[Pixels]:
    """Enlarge an image as the network does in one piece.

    Args:
        source: the image.
        engine: one with an ``exact_network``.
        plan: how to make it, and where its features lie.
        output_size: (width, height) of the result; of its margins, what is beyond.
        margins: of the image, which it has already, and which the result then has too.
        keeps_colours: hold the result to the colours of the image.
        on_share_done: called with shares of the work as they are done; they add up to 1.
    Yields:
        (rows, W', C) of the source's dtype; together the whole result.
    Raises:
        DiskSpaceError: no room for the features.
        DeviceMemoryError: memory ran out.
        CheckpointError: the network gives NaN or infinite values.
    """
    scales = margins.scales((source.width, source.height), output_size)
    columns = Span(start=0, stop=scales[1].total_output)
    top = 0
    try:
        bands = exact_bands(source, engine, plan, scales=scales, on_share_done=on_share_done)
        if keeps_colours:
            bands = keep_colours_of_bands(bands, _rows_of_all(source), scales)
        for band in bands:
            rows = Span(start=top, stop=top + band.shape[2])
            top = rows.stop
            yield source.finish(source.hold_flat(source.collapse(band), rows, columns, scales))
    except (RuntimeError, MemoryError, DeviceMemoryError) as error:
        if not is_out_of_memory(error) and not isinstance(error, DeviceMemoryError):
            raise
        failure = str(error).partition("\n")[0]
        raise DeviceMemoryError(
            f"Memory ran out during exact work ({failure}). Free memory, set a memory limit, or do "
            "without exact results (exact=False, --no-exact)."
        ) from error


def exact_bands(
    source: PixelPlanes,
    engine: Engine,
    plan: ExactPlan,
    *,
    scales: tuple[AxisScale, AxisScale],
    on_share_done: OnShareDone,
) -> Iterator[Floats]:
    """What ``Engine.run`` gives for the whole image, band by band.

    Arguments and errors as of ``enlarge_exactly``; ``scales`` are of rows and of columns.

    Yields:
        (num_images, 3, rows, W'), not clamped.
    """
    shares = _Shares(on_share_done)
    height, width = (axis.total_output for axis in scales)
    with ExitStack() as stack:
        jobs = [
            stack.enter_context(_begin(source, number, engine, plan, scales, shares, stack))
            for number in range(source.num_images)
        ]
        for top in range(0, height, plan.band_rows):
            stop = min(top + plan.band_rows, height)
            yield np.stack([job.rows(top, stop)[:, :, :width] for job in jobs])
        on_share_done(1 - shares.total)


def _begin(
    source: PixelPlanes,
    number: int,
    engine: Engine,
    plan: ExactPlan,
    scales: tuple[AxisScale, AxisScale],
    shares: "_Shares",
    stack: ExitStack,
) -> Job:
    """Make the features of one of the images."""
    network, threads = engine.exact_network, engine.options.num_threads
    assert isinstance(network, Network)
    size = _extended_size(source.height, source.width, engine.multiple)
    any_size = network.config.is_arbitrary_scale
    views = [axis.view(Span(start=0, stop=axis.total_length)) for axis in scales]
    result_size = (views[0].num_pixels, views[1].num_pixels) if any_size else None
    limit, storage = plan.limit_bytes, None
    if plan.place == "disk":
        limit = max(1, limit)
        needs = network.plan(
            size, result_size, num_threads=threads, limit_bytes=limit, with_storage=True
        )
        storage = stack.enter_context(_FileStorage(needs.storage_bytes))
    return network.begin(
        size,
        _rows_of_one(source, number, size),
        result_size,
        storage=storage,
        limit_bytes=limit,
        num_threads=threads,
        on_progress=shares.of_one(source.num_images),
        axes=(axis_of(views[0]), axis_of(views[1])) if any_size else None,
    )


class _Shares:
    """Turns what is done of each image into shares of all the work that add up."""

    def __init__(self, on_share_done: Callable[[float], None]) -> None:
        self._on_share_done = on_share_done
        self.total = 0.0

    def of_one(self, num_images: int) -> Callable[[float], None]:
        """What to tell about one of the images: how much of it is done."""
        done = 0.0

        def tell(share: float) -> None:
            nonlocal done
            more, done = (share - done) / num_images, share
            self.total += more
            self._on_share_done(more)

        return tell


def _rows_of_one(
    source: PixelPlanes, number: int, size: tuple[int, int]
) -> Callable[[int, int], Floats]:
    """Reads rows of an image that is extended by reflection to a size."""
    columns = reflected_positions(np.arange(size[1]), source.width)

    def read(top: int, bottom: int) -> Floats:
        rows = reflected_positions(np.arange(top, bottom), source.height)
        first, last = int(rows.min()), int(rows.max()) + 1
        image = source.read(Span(start=first, stop=last), Span(start=0, stop=source.width))[number]
        if bottom > source.height:
            image = image.take(rows - first, axis=1)
        return image.take(columns, axis=2) if size[1] != source.width else image

    return read


def _rows_of_all(source: PixelPlanes) -> Callable[[int, int], Floats]:
    return lambda top, stop: source.read(
        Span(start=top, stop=stop), Span(start=0, stop=source.width)
    )


class _FileStorage:
    """A temporary file without a name, so that not even a killed process leaves it behind.

    Raises:
        DiskSpaceError: there is no room for it, or it cannot be read back.
    """

    def __init__(self, num_bytes: int) -> None:
        self._file = open_temporary_file(num_bytes)

    def read(self, offset: int, values: memoryview) -> None:
        """Fill values with what was written."""
        with in_our_words("read back from"):
            self._file.seek(offset)
            transfer_all(values, self._file.readinto)

    def write(self, offset: int, values: memoryview) -> None:
        """Keep values."""
        with in_our_words("stored in"):
            self._file.seek(offset)
            transfer_all(values, self._file.write)

    def __enter__(self) -> "_FileStorage":
        """The storage."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, which removes it."""
        self._file.close()


def transfer_all(values: memoryview, transfer: Callable[[memoryview], int | None]) -> None:
    """Read or write all of some bytes: a file may do less than it is asked for, never nothing.

    Raises:
        OSError: it did nothing, or what the system says.
    """
    while values:
        count = transfer(values)
        if not count:
            raise OSError(0, "the file ended too early")
        values = values[count:]


@contextmanager
def in_our_words(action: str) -> Generator[None]:
    """Tell of what a file does not do.

    Raises:
        DiskSpaceError: what the system says, and what to do about it.
    """
    try:
        yield
    except OSError as error:
        raise DiskSpaceError(
            f"The features of the image could not be {action} a temporary file in "
            f"{temporary_folder()}: {error.strerror}. {_ADVICE}"
        ) from error


def open_temporary_file(num_bytes: int) -> FileIO:
    """A file without a name, for so many bytes, which are reserved where the system can.

    Raises:
        DiskSpaceError: there is no room for it.
    """
    folder = temporary_folder()
    try:
        file: FileIO = tempfile.TemporaryFile(dir=folder, buffering=0)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, num_bytes)
        except OSError:
            file.close()
            raise
    except OSError as error:
        raise DiskSpaceError(
            f"No temporary file of {num_bytes / 1e6:.0f} MB could be made in {folder}: "
            f"{error.strerror}. {_ADVICE}"
        ) from error
    return file


_ADVICE = (
    "Free some disk space, point TMPDIR to a folder on a larger disk, allow more memory, or do "
    "without exact results (exact=False, --no-exact)."
)


def require_disk_space(num_bytes: int) -> None:
    """Refuse what the disk has no room for.

    Raises:
        DiskSpaceError: says how much is needed and how much there is.
    """
    free = free_disk_bytes()
    if num_bytes > free:
        raise DiskSpaceError(
            f"The features of the image need {num_bytes / 1e6:.0f} MB on disk, but "
            f"{temporary_folder()} has {free / 1e6:.0f} MB left. {_ADVICE}"
        )


def free_disk_bytes() -> int:
    """What the disk of temporary files has left."""
    return shutil.disk_usage(temporary_folder()).free


def temporary_folder() -> Path:
    """Where files lie: TMPDIR (TEMP, TMP) where it is set, else a folder for large files.

    On Linux /tmp is often memory; /var/tmp is a disk.
    """
    is_chosen = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    large = Path("/var/tmp")
    if not is_chosen and large.is_dir() and os.access(large, os.W_OK):
        return large
    return Path(tempfile.gettempdir())
