"""Exact enlargement by the core: its jobs plan, cut and store by themselves."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import torch

from escsr.core.network import Floats, Job, Network
from escsr.inference.core_network import axes_of
from escsr.inference.exact.feature_store import (
    Place,
    in_our_words,
    open_temporary_file,
    require_disk_space,
    transfer_all,
)
from escsr.inference.exact.image_source import map_size
from escsr.inference.exact.plan import ExactPlan, budget_of, rows_waiting_bytes
from escsr.inference.memory import AUTO_SHARE, Room, Workload, standing_bytes
from escsr.inference.network_cost import NetworkCost
from escsr.inference.planes import PixelPlanes
from escsr.inference.tiling import AxisScale, Span
from escsr.model.padding import reflected_positions
from escsr.shapes import ImageBatch


def plan_on_core(
    workload: Workload,
    network: Network,
    cost: NetworkCost,
    *,
    multiple: int,
    room: Room,
) -> ExactPlan:
    """Settle one pass: the features lie in memory where they fit, else on disk.

    Args:
        workload: the image.
        network: what the core runs.
        cost: of the network.
        multiple: both sides of the image are extended to multiples of so many pixels.
        room: the memory there is.
    Raises:
        DeviceMemoryError: the limit is below what the smallest parts need.
        DiskSpaceError: the features fit neither in memory nor on the disk.
    """
    plan = plan_in_memory(workload, network, cost, multiple=multiple, room=room)
    if plan is not None:
        return plan
    standing = standing_bytes(workload)
    budget = budget_of(room, workload)

    def within(limit: int) -> ExactPlan:
        return _plan_within(limit, "disk", workload, network, cost, multiple=multiple)

    plans = map(within, _limits_within(budget))
    plan = next((plan for plan in plans if plan.peak_memory_bytes - standing <= budget), within(1))
    work = plan.peak_memory_bytes - standing
    if not room.allows(workload, work):
        advice = "do without exact results (exact=False, --no-exact)"
        raise room.refusal(workload, cost, needed_bytes=work + standing, advice=advice)
    require_disk_space(plan.disk_bytes * workload.num_images)
    return plan


def plan_in_memory(
    workload: Workload, network: Network, cost: NetworkCost, *, multiple: int, room: Room
) -> ExactPlan | None:
    """The same with features in memory; None where they do not fit."""
    standing = standing_bytes(workload)
    for limit in (0, _limits_within(budget_of(room, workload))[-1]):
        plan = _plan_within(limit, "memory", workload, network, cost, multiple=multiple)
        work = plan.peak_memory_bytes - standing
        fits = room.host_bytes is None or work <= room.host_bytes * AUTO_SHARE
        if fits and (room.limit_bytes is None or plan.peak_memory_bytes <= room.limit_bytes):
            return plan
    return None


def _limits_within(budget: int) -> list[int]:
    """What the core may take beside the rows that wait: a half, or less where these are many."""
    return [max(1, int(budget * share)) for share in (1 / 2, 1 / 4, 1 / 8)]


def _plan_within(
    limit: int,
    place: Place,
    workload: Workload,
    network: Network,
    cost: NetworkCost,
    *,
    multiple: int,
) -> ExactPlan:
    size = map_size((workload.height, workload.width), multiple=multiple)
    factor = cost.scale if network.config.is_arbitrary_scale else network.scale
    needs = network.plan(
        size,
        (round(size[0] * factor), round(size[1] * factor)),
        num_threads=torch.get_num_threads(),
        limit_bytes=limit,
        with_storage=place == "disk",
    )
    # Each image of several keeps its own features until the last row is made.
    work = needs.memory_bytes * workload.num_images
    work += rows_waiting_bytes(workload, cost, needs.band_rows)
    return ExactPlan(
        core_size=size,
        head_core_size=(math.ceil(needs.band_rows / factor), size[1]),
        place=place,
        num_tiles=1,
        tile_pixels=max(size),
        peak_memory_bytes=standing_bytes(workload) + work,
        disk_bytes=needs.storage_bytes,
        limit_bytes=limit,
    )


def bands_on_core(
    source: PixelPlanes,
    network: Network,
    plan: ExactPlan,
    *,
    multiple: int,
    scales: tuple[AxisScale, AxisScale],
    on_share_done: Callable[[float], None],
) -> Iterator[ImageBatch]:
    """What ``Engine.run`` gives for the whole image, band by band.

    Arguments as of ``exact_bands``; ``scales`` are of rows and of columns.

    Yields:
        (num_images, 3, rows, W') float32 on the CPU, not clamped.
    """
    told = _Shares(on_share_done)
    height, width = (axis.total_output for axis in scales)
    with ExitStack() as stack:
        jobs = [
            stack.enter_context(
                _begin(source, number, network, plan, multiple, scales, told, stack)
            )
            for number in range(source.num_images)
        ]
        step = max(1, round(plan.head_core_size[0] * height / source.height))
        for top in range(0, height, step):
            rows = [job.rows(top, min(top + step, height))[:, :, :width] for job in jobs]
            yield torch.from_numpy(np.stack(rows))  # pyright: ignore[reportUnknownMemberType]
        on_share_done(1 - told.total)


def _begin(
    source: PixelPlanes,
    number: int,
    network: Network,
    plan: ExactPlan,
    multiple: int,
    scales: tuple[AxisScale, AxisScale],
    told: "_Shares",
    stack: ExitStack,
) -> Job:
    """Make the features of one of the images."""
    size = map_size((source.height, source.width), multiple=multiple)
    any_size = network.config.is_arbitrary_scale
    views = [axis.view(Span(start=0, stop=axis.total_length)) for axis in scales]
    output_size = (views[0].num_pixels, views[1].num_pixels) if any_size else None
    limit, storage, threads = plan.limit_bytes, None, torch.get_num_threads()
    if plan.place == "disk":
        limit = max(1, limit)
        needs = network.plan(
            size, output_size, num_threads=threads, limit_bytes=limit, with_storage=True
        )
        storage = stack.enter_context(_FileStorage(needs.storage_bytes))
    return network.begin(
        size,
        _rows_of(source, number, size),
        output_size,
        storage=storage,
        limit_bytes=limit,
        num_threads=threads,
        on_progress=told.of_one(source.num_images),
        axes=axes_of(*views) if any_size else None,
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


def _rows_of(
    source: PixelPlanes, number: int, size: tuple[int, int]
) -> Callable[[int, int], Floats]:
    """Reads rows of an image that is extended by reflection to a size."""
    columns = reflected_positions(torch.arange(size[1]), source.width)
    is_wider = size[1] != source.width

    def read(top: int, bottom: int) -> Floats:
        rows = reflected_positions(torch.arange(top, bottom), source.height)
        first, last = int(rows.min()), int(rows.max()) + 1
        image = source.read(Span(start=first, stop=last), Span(start=0, stop=source.width))[number]
        if bottom > source.height:
            image = image.index_select(1, rows - first)
        return (image.index_select(2, columns) if is_wider else image).numpy()

    return read


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
