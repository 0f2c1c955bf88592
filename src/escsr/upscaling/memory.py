"""Plan tiles before the first one runs, from what a network is known to need.

The bound: the source, two bands of the result in its own dtype, two blend zones in float32, and
the work of one tile. A result that is returned rather than written to a file is held whole.
"""

import logging
import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from escsr.engines.cost import NetworkCost
from escsr.errors import ConfigurationError, DeviceMemoryError
from escsr.upscaling.tiles import LEAST_OVERLAP_PIXELS, TileGrid, least_tile_pixels

logger = logging.getLogger("escsr")

TileChoice = Literal["auto", "whole"] | int | None
"""Side of a tile in LR pixels; "auto" chooses; "whole" or None runs the image in one piece."""

_MIB = 2**20
_MB = 10**6
_FLOAT_BYTES = 4
_LARGEST_AUTO_TILE_PIXELS = 512
AUTO_BUDGET_BYTES = 1024 * _MIB
"""Work beyond this is cut into tiles although it might fit: larger tiles are hardly faster."""
AUTO_SHARE = 0.25
"""Share of the memory at hand that "auto" takes."""
_MODEST_BYTES = 256 * _MIB
_MODEST_SHARE = 0.5
"""Where memory is short, the share is larger, up to this amount."""
SMALLER_TILES = "ask for smaller tiles (--tile, --overlap), whose seams may show"
"""What a user may do who is short of memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TilePlan:
    """How one pass over an image is cut, and what it will need."""

    grid: TileGrid
    """How the image is cut."""
    num_tiles: int
    """Tiles to run."""
    peak_memory_bytes: int
    """Estimate of everything held at once, beside the program itself."""

    @property
    def is_whole(self) -> bool:
        """Whether the image runs in one piece."""
        return self.num_tiles == 1

    @property
    def tile_pixels(self) -> int:
        """Longest side of a tile, in LR pixels."""
        return self.grid.tile_pixels

    @property
    def is_exact(self) -> bool:
        """Whether nothing differs from the whole image."""
        return self.is_whole

    @property
    def disk_bytes(self) -> int:
        """Tiles need no temporary files."""
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """One pass over one image, as far as memory is concerned."""

    width: int
    """Of the source, in pixels."""
    height: int
    """Of the source, in pixels."""
    channels: int = 3
    """Channels of source and result."""
    bytes_per_sample: int = 1
    """1, 2 or 4, of source and result."""
    num_images: int = 1
    """Images the network sees per tile (2 with alpha, B for a batch)."""
    images_at_once: int = 1
    """Of these, how many are in the network at the same time."""
    held_bytes: int = 0
    """What is held beside it all the time: the result, an earlier image."""
    is_loaded: bool = True
    """Whether the source is in memory already, when the plan is made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryBudget:
    """The memory there is."""

    device_bytes: int | None = None
    """At hand on the device of the network; None where unknown."""
    host_bytes: int | None = None
    """Likewise on the CPU, where features lie that do not fit on the device."""
    limit_bytes: int | None = None
    """Bound on what a plan may hold at once; what the user says outranks what is at hand."""

    def allows(self, workload: Workload, work_bytes: int) -> bool:
        """Whether work fits beside what is held, with nothing left over."""
        needed_bytes = work_bytes + standing_bytes(workload)
        if self.limit_bytes is not None:
            return needed_bytes <= self.limit_bytes
        if workload.is_loaded:
            needed_bytes -= _source_bytes(workload)
        return self.device_bytes is None or needed_bytes <= self.device_bytes

    @property
    def budget_bytes(self) -> int:
        """What the work may take, where it could be cut smaller."""
        if self.device_bytes is None:
            return AUTO_BUDGET_BYTES
        modest = min(_MODEST_BYTES, int(self.device_bytes * _MODEST_SHARE))
        return max(modest, min(AUTO_BUDGET_BYTES, int(self.device_bytes * AUTO_SHARE)))

    def refusal(
        self, workload: Workload, cost: NetworkCost, *, needed_bytes: int, advice: str
    ) -> DeviceMemoryError:
        """The error that says what is there, what is needed, and what to do."""
        needed = f"{math.ceil(needed_bytes / _MB)} MB"
        task = f"enlarging {workload.width}x{workload.height} pixels {cost.scale:.4g} times"
        if self.limit_bytes is not None:
            there = f"The memory limit is {_amount(self.limit_bytes)}"
            remedy = "Raise the limit to that (--memory)"
        else:
            there = f"About {(self.device_bytes or 0) / _MB:.0f} MB of memory are free"
            remedy = (
                f"Free memory, or give --memory {needed.replace(' ', '')} (memory_limit_bytes) if "
                "there is more than was found"
            )
        return DeviceMemoryError(
            f"{there}, but {task} needs at least {needed} for this image. {remedy}, {advice}, or "
            "choose a smaller model.",
            needed_bytes=needed_bytes,
        )


def plan_tiles(
    workload: Workload,
    cost: NetworkCost,
    *,
    tile: TileChoice = "auto",
    overlap_pixels: int | None = None,
    available_bytes: int | None = None,
    memory_limit_bytes: int | None = None,
) -> TilePlan:
    """Choose tiles for one pass.

    "auto" runs the image whole if the work stays within a quarter of the memory at hand and 1 GiB
    (of less than 1 GiB at hand, within half and 256 MiB), else takes the largest tile, up to 512
    pixels, that does; if none does, the least (``least_tile_pixels``). A limit shrinks any
    choice, but not below the least.

    Args:
        workload: the image.
        cost: the network.
        tile: side of a tile in LR pixels, "auto", or "whole".
        overlap_pixels: least overlap; None is a window, and at least 32 pixels.
        available_bytes: memory at hand; None where unknown.
        memory_limit_bytes: bound on ``peak_memory_bytes``.
    Raises:
        ConfigurationError: a value that cannot be.
        DeviceMemoryError: the limit, or for "auto" the memory at hand where there is no limit, is
            below what the least tile needs.
    """
    require_tiling(tile, overlap_pixels, memory_limit_bytes)
    memory = MemoryBudget(device_bytes=available_bytes, limit_bytes=memory_limit_bytes)
    longest = max(workload.width, workload.height)
    overlap = max(cost.window_size, LEAST_OVERLAP_PIXELS)
    if overlap_pixels is not None:
        overlap = overlap_pixels
    grid = TileGrid(
        tile_pixels=longest,
        overlap_pixels=overlap,
        window_size=cost.window_size,
        least_pixels=least_tile_pixels(overlap, cost.window_size),
    )
    plans = [
        _plan_of(workload, cost, replace(grid, tile_pixels=side))
        for side in _sides_to_try(tile, longest, grid)
    ]
    chosen = _first_that_fits(plans, workload, memory, tile)
    if chosen is None:
        needed_bytes = min(plan.peak_memory_bytes for plan in plans)
        raise memory.refusal(workload, cost, needed_bytes=needed_bytes, advice=SMALLER_TILES)
    _tell_if_smaller(tile, chosen.tile_pixels, longest)
    return chosen


def _first_that_fits(
    plans: list[TilePlan], workload: Workload, memory: MemoryBudget, tile: TileChoice
) -> TilePlan | None:
    """Of plans with ever smaller tiles; None where not even the last fits."""
    standing = standing_bytes(workload)
    if tile != "auto":
        # What the user asks for outranks what is at hand, but not what the user allows.
        limit = math.inf if memory.limit_bytes is None else memory.limit_bytes
        return next((plan for plan in plans if plan.peak_memory_bytes <= limit), None)
    allowed = [plan for plan in plans if memory.allows(workload, plan.peak_memory_bytes - standing)]
    for plan in allowed:
        if plan.peak_memory_bytes - standing <= memory.budget_bytes:
            return plan
    return min(allowed, key=lambda plan: plan.peak_memory_bytes, default=None)


def _plan_of(workload: Workload, cost: NetworkCost, grid: TileGrid) -> TilePlan:
    peak = _work_bytes(workload, cost, grid) + standing_bytes(workload)
    return TilePlan(grid=grid, num_tiles=count_tiles(workload, grid), peak_memory_bytes=peak)


def require_tiling(
    tile: TileChoice, overlap_pixels: int | None, memory_limit_bytes: int | None
) -> None:
    """Refuse values that cannot be.

    Raises:
        ConfigurationError: says which.
    """
    if tile not in ("auto", "whole", None) and not _is_integer(tile, at_least=1):
        raise ConfigurationError(
            f'tile is {tile!r}; it must be "auto", "whole", or a side in pixels such as 256.'
        )
    if overlap_pixels is not None and not _is_integer(overlap_pixels, at_least=0):
        raise ConfigurationError(
            f"overlap_pixels is {overlap_pixels!r}; it must be a whole number of pixels, >= 0."
        )
    if memory_limit_bytes is not None and not _is_integer(memory_limit_bytes, at_least=1):
        raise ConfigurationError(
            f"memory_limit_bytes is {memory_limit_bytes!r}; it must be a number of bytes, >= 1."
        )


def count_tiles(workload: Workload, grid: TileGrid) -> int:
    """Tiles that a grid cuts an image into."""
    return len(grid.cut(workload.width)) * len(grid.cut(workload.height))


def _sides_to_try(tile: TileChoice, longest: int, grid: TileGrid) -> list[int]:
    """Sides from the preferred one down to the least, all whole windows."""
    window = grid.window_size
    whole, least = math.ceil(longest / window), grid.least_pixels // window
    if tile == "auto":
        first = max(least, _LARGEST_AUTO_TILE_PIXELS // window)
        windows = [whole, *(n for n in range(first, least - 1, -1) if n < whole)]
    else:
        wanted = whole if tile in ("whole", None) else math.ceil(int(tile) / window)
        windows = [min(wanted, whole)]
        while windows[-1] > least:
            windows.append(max(least, math.ceil(windows[-1] / 2)))
    return [count * window for count in windows]


def _work_bytes(workload: Workload, cost: NetworkCost, grid: TileGrid) -> int:
    """One tile in the network or being finished, two bands, two blend zones."""
    columns, rows = grid.cut(workload.width), grid.cut(workload.height)
    tile_height, tile_width = (max(span.length for span in spans) for spans in (rows, columns))
    tile_pixels = tile_height * tile_width
    sr_pixels = math.ceil(tile_pixels * cost.scale**2)
    in_network = (
        cost.fixed_bytes
        + tile_pixels * cost.bytes_per_pixel * workload.images_at_once
        + sr_pixels * 3 * _FLOAT_BYTES * workload.num_images
    )
    finishing = cost.fixed_bytes + 4 * sr_pixels * 3 * _FLOAT_BYTES * workload.num_images
    samples_per_row = workload.width * cost.scale**2 * workload.channels
    overlap = max((a.stop - b.start for a, b in pairwise(rows)), default=0)
    bands = 2 * tile_height * samples_per_row * workload.bytes_per_sample
    blend_zones = 2 * overlap * samples_per_row * _FLOAT_BYTES
    return max(in_network, finishing) + math.ceil(bands + blend_zones)


def standing_bytes(workload: Workload) -> int:
    """What is held all the time: the source, and what the workload names."""
    return _source_bytes(workload) + workload.held_bytes


def _source_bytes(workload: Workload) -> int:
    return workload.width * workload.height * workload.channels * workload.bytes_per_sample


def _tell_if_smaller(tile: TileChoice, side: int, longest: int) -> None:
    wanted = longest if tile in ("whole", None) else tile
    if isinstance(wanted, int) and side < min(wanted, longest):
        logger.warning("Tiles of %d pixels exceed the memory limit; taking %d.", wanted, side)


def _amount(num_bytes: int) -> str:
    """In a unit in which it is not 0."""
    for unit, name in ((_MB, "MB"), (1000, "KB")):
        if num_bytes >= 100 * unit:
            return f"{num_bytes / unit:.0f} {name}"
        if num_bytes >= unit:
            return f"{num_bytes / unit:.3g} {name}"
    return f"{num_bytes} bytes"


def _is_integer(value: object, *, at_least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least
