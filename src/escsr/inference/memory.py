"""Plan tiles before the first one runs, from what a network is known to need.

The bound: the source, two bands of the result in its own dtype, two blend zones in float32, and
the work of one tile. A result that is returned rather than written to a file is held whole.
"""

import logging
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from escsr.errors import ConfigurationError, DeviceMemoryError
from escsr.inference.network_cost import NetworkCost
from escsr.inference.tiling import TileGrid

logger = logging.getLogger("escsr")

TileChoice = Literal["auto", "whole"] | int | None
"""Side of a tile in LR pixels; "auto" chooses; "whole" or None runs the image in one piece."""

_MIB = 2**20
_FLOAT_BYTES = 4
_LARGEST_AUTO_TILE_PIXELS = 512
AUTO_BUDGET_BYTES = 1024 * _MIB
"""Work beyond this is cut into tiles although it might fit: larger tiles are hardly faster."""
AUTO_SHARE = 0.25
"""Share of the memory at hand that "auto" takes at most."""

_LEAST_AUTO_OVERLAP_PIXELS = 32
"""In trials with half-trained weights of esc-tiny, 32 pixels brought tiles some 10 dB nearer to the
whole image than one window of 16, at a few per cent more work; ``benchmarks/measure_tiling.py``
measures it."""


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

    "auto" runs the image whole if the work stays within a quarter of the memory at hand and 1 GiB,
    else takes the largest tile, up to 512 pixels, that does. A limit shrinks any choice.

    Args:
        workload: the image.
        cost: the network.
        tile: side of a tile in LR pixels, "auto", or "whole".
        overlap_pixels: least overlap; None is a window, and at least 32 pixels.
        available_bytes: memory at hand; None where unknown.
        memory_limit_bytes: bound on ``peak_memory_bytes``.
    Raises:
        ConfigurationError: a value that cannot be.
        DeviceMemoryError: the limit is below what the smallest tile needs.
    """
    require_tiling(tile, overlap_pixels, memory_limit_bytes)
    overlap = max(cost.window_size, _LEAST_AUTO_OVERLAP_PIXELS)
    if overlap_pixels is not None:
        overlap = overlap_pixels
    longest = max(workload.width, workload.height)
    budget = AUTO_BUDGET_BYTES
    if available_bytes is not None:
        budget = min(budget, int(available_bytes * AUTO_SHARE))
    plan = None
    for side in _sides_to_try(tile, longest, cost.window_size):
        grid = TileGrid(tile_pixels=side, overlap_pixels=overlap, window_size=cost.window_size)
        work = _work_bytes(workload, cost, grid)
        peak = work + standing_bytes(workload)
        plan = TilePlan(grid=grid, num_tiles=count_tiles(workload, grid), peak_memory_bytes=peak)
        within_limit = memory_limit_bytes is None or peak <= memory_limit_bytes
        if within_limit and (tile != "auto" or work <= budget):
            _tell_if_smaller(tile, side, longest)
            return plan
    assert plan is not None
    if memory_limit_bytes is not None and plan.peak_memory_bytes > memory_limit_bytes:
        raise DeviceMemoryError(
            f"The memory limit is {memory_limit_bytes / _MIB:.0f} MiB, but enlarging "
            f"{workload.width}x{workload.height} pixels {cost.scale:.4g} times needs about "
            f"{plan.peak_memory_bytes / _MIB:.0f} MiB even with the smallest tiles. Raise the "
            "limit, or choose a smaller model."
        )
    return plan


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


def _sides_to_try(tile: TileChoice, longest: int, window_size: int) -> list[int]:
    """Sides from the preferred one down to a single window, all whole windows."""
    whole = math.ceil(longest / window_size)
    if tile == "auto":
        first = max(1, _LARGEST_AUTO_TILE_PIXELS // window_size)
        windows = [whole, *(n for n in range(first, 0, -1) if n < whole)]
    else:
        wanted = whole if tile in ("whole", None) else math.ceil(int(tile) / window_size)
        windows = [min(wanted, whole)]
        while windows[-1] > 1:
            windows.append(math.ceil(windows[-1] / 2))
    return [count * window_size for count in windows]


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
    samples = workload.width * workload.height * workload.channels
    return samples * workload.bytes_per_sample + workload.held_bytes


def _tell_if_smaller(tile: TileChoice, side: int, longest: int) -> None:
    wanted = longest if tile in ("whole", None) else tile
    if isinstance(wanted, int) and side < min(wanted, longest):
        logger.warning("Tiles of %d pixels exceed the memory limit; taking %d.", wanted, side)


def _is_integer(value: object, *, at_least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least
