"""Plan an exact enlargement: what is worked on at a time, and where its features lie meanwhile."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from escsr.family.configuration import ESCConfig
from escsr.inference.exact.body import INNER_SLACK, convolved_slack
from escsr.inference.exact.cores import cut_into_cores
from escsr.inference.exact.feature_store import Place, map_bytes, require_disk_space
from escsr.inference.exact.head import SKIP_REACH, largest_margin
from escsr.inference.exact.image_source import map_size
from escsr.inference.memory import AUTO_SHARE, Room, TileChoice, Workload, standing_bytes
from escsr.inference.network_cost import NetworkCost

_LARGEST_CORE_BYTES = 2**25
"""Of queries, keys and values of an automatic part. Larger blocks are taken from the system and
given back each time: parts of 512 pixels of esc-tiny took 1.14 times as long as parts of 256."""
_LEAST_AUTO_CORE_PIXELS = 192
"""With smaller parts, what is computed twice around them would weigh more."""
_LARGEST_BAND_ROWS = 64
_COPIES_OF_RESULT = 7
"""Of a band in float32: as it comes, waiting for the colour guard, guarded, as planes, clamped,
multiplied; and a part of it in the making."""
_ROWS_WAITING = 28
"""LR rows that the colour guard holds back, and those of the last band that go with them."""
_FLOAT_BYTES = 4
_WHOLE_VECTOR = 16
"""The native kernels keep the channels to be convolved in whole vectors, of 16 numbers at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactPlan:
    """How one pass over an image is made layer by layer, and what it will need."""

    core_size: tuple[int, int]
    """(height, width) of the parts that a layer is worked on in, in pixels of the features."""
    head_core_size: tuple[int, int]
    """Likewise of the parts that the result is made in; their height is that of a band."""
    place: Place
    """Where the features of all pixels lie."""
    num_tiles: int
    """Parts of a layer."""
    tile_pixels: int
    """Longest side of one, in LR pixels."""
    peak_memory_bytes: int
    """Estimate of everything held at once, beside the program itself."""
    disk_bytes: int
    """What lies in temporary files."""
    limit_bytes: int = 0
    """What the core is told to keep within, for each image; 0 lets it do with the least."""

    @property
    def is_whole(self) -> bool:
        """Never: what fits in one piece is run in one piece."""
        return False

    @property
    def is_exact(self) -> bool:
        """Whether nothing differs from the whole image."""
        return True


def plan_exactly(
    workload: Workload,
    config: ESCConfig,
    cost: NetworkCost,
    *,
    multiple: int = 1,
    dtype: torch.dtype = torch.float32,
    tile: TileChoice = "auto",
    room: Room,
) -> ExactPlan:
    """Choose the parts of one pass, and whether its features lie in memory or on disk.

    The features stay in memory where they take at most a quarter of what is at hand and keep to the
    limit.

    Args:
        workload: the image.
        config: of the network.
        cost: of the network.
        multiple: both sides of the image are extended to multiples of so many pixels.
        dtype: of the features.
        tile: longest side of a part in LR pixels, or "auto".
        room: the memory there is.
    Raises:
        DeviceMemoryError: the limit is below what the smallest parts need.
        DiskSpaceError: the features fit neither in memory nor on the disk.
    """
    size = map_size(
        (workload.height, workload.width), multiple=multiple, unshuffle=config.unshuffle
    )
    standing = standing_bytes(workload)
    needs = _Needs(workload, config, cost, size)
    side, band, work = _choose_parts(needs, tile, budget_of(room, workload))
    if not room.allows(workload, work):
        advice = "do without exact results (exact=False, --no-exact)"
        raise room.refusal(workload, cost, needed_bytes=work + standing, advice=advice)
    maps = feature_bytes(size, config, num_images=workload.num_images, dtype=dtype)
    fits = room.host_bytes is None or maps <= room.host_bytes * AUTO_SHARE
    keeps_limit = room.limit_bytes is None or standing + work + maps <= room.limit_bytes
    place: Place = "memory" if fits and keeps_limit else "disk"
    if place == "disk":
        require_disk_space(maps)
    cores = cut_into_cores(size, core_size=(side, side), window_size=config.window_size)
    return ExactPlan(
        core_size=(side, side),
        head_core_size=(band, side),
        place=place,
        num_tiles=len(cores),
        tile_pixels=max(max(core.height, core.width) for core in cores) * config.unshuffle,
        peak_memory_bytes=standing + work + (maps if place == "memory" else 0),
        disk_bytes=maps if place == "disk" else 0,
    )


def budget_of(room: Room, workload: Workload) -> int:
    """What the work on a part may take, if parts can be as small as that."""
    if room.limit_bytes is None:
        return room.budget_bytes
    return min(room.budget_bytes, room.limit_bytes - standing_bytes(workload))


def feature_bytes(
    size: tuple[int, int], config: ESCConfig, *, num_images: int, dtype: torch.dtype
) -> int:
    """What all feature maps take: one of each image, and two between the layers of one."""
    convolved_dim = -(-config.pdim // _WHOLE_VECTOR) * _WHOLE_VECTOR
    own = num_images * map_bytes(size, config.dim, slack=0, dtype=dtype)
    inner = map_bytes(size, config.dim, slack=INNER_SLACK, dtype=dtype)
    return own + inner + map_bytes(size, convolved_dim, slack=convolved_slack(config), dtype=dtype)


def rows_waiting_bytes(workload: Workload, cost: NetworkCost, band_rows: int) -> int:
    """What bands of so many rows of the result take on their way to it."""
    lr_rows = min(band_rows / cost.scale + _ROWS_WAITING, workload.height)
    values = 3 * workload.num_images * cost.scale**2 * workload.width
    return math.ceil(_COPIES_OF_RESULT * values * lr_rows) * _FLOAT_BYTES


@dataclass(frozen=True, slots=True)
class _Needs:
    """What parts of a size need."""

    workload: Workload
    config: ESCConfig
    cost: NetworkCost
    size: tuple[int, int]

    def body(self, side: int) -> int:
        """One part in a layer, with what it sees around; the last may be longer by a window."""
        around = 2 * convolved_slack(self.config) + self.config.window_size - 1
        height, width = (min(side + around, length) for length in self.size)
        return self.cost.fixed_bytes + height * width * self.cost.body_bytes_per_feature

    def head(self, band: int, side: int) -> int:
        """One part of a band of the result, and the bands in all their forms."""
        around = 2 * (largest_margin(self.config) + SKIP_REACH)
        height, width = (
            min(part + around, length) for part, length in zip((band, side), self.size, strict=True)
        )
        rows = math.ceil(band * self.config.unshuffle * self.cost.scale)
        bands = rows_waiting_bytes(self.workload, self.cost, rows)
        in_part = height * width * self.cost.head_bytes_per_feature
        return self.cost.fixed_bytes + in_part + bands


def _choose_parts(needs: _Needs, tile: TileChoice, budget: int) -> tuple[int, int, int]:
    """The largest side of a part and height of a band that a budget allows, and what they need.

    The smallest where none does.
    """
    window, unshuffle = needs.config.window_size, needs.config.unshuffle
    fitting = math.isqrt(_LARGEST_CORE_BYTES // (3 * _FLOAT_BYTES * needs.config.dim))
    most = max(fitting, _LEAST_AUTO_CORE_PIXELS)
    if isinstance(tile, int):
        most = tile // unshuffle
    side, band = window, 1
    for side in _falling(max(window, most), window):
        if needs.body(side) <= budget:
            break
    for band in _falling(min(_LARGEST_BAND_ROWS, max(1, most)), 1):
        if needs.head(band, side) <= budget:
            break
    return side, band, max(needs.body(side), needs.head(band, side))


def _falling(most: int, least: int) -> Iterator[int]:
    """From ``most`` down to ``least``, each about three quarters of the one before."""
    while most > least:
        yield most
        most = most * 3 // 4
    yield least
