"""Run the passes that make a larger image: what files and arrays have in common."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from escsr.engines.devices import FreedMemory, available_memory_bytes, release_cached_memory
from escsr.engines.engine import Engine, Precision, require_choice
from escsr.engines.self_ensemble import run_eight_ways
from escsr.errors import ConfigurationError, DeviceMemoryError
from escsr.family.axis_view import AxisView
from escsr.images.files import ExtraChannel, ImageHeader
from escsr.upscaling.borders import NO_MARGINS, Edges, Margins, cropped
from escsr.upscaling.exact import ExactPlan, choose_pass, enlarge_exactly
from escsr.upscaling.fidelity import keep_colours
from escsr.upscaling.memory import (
    MemoryBudget,
    TileChoice,
    TilePlan,
    Workload,
    plan_tiles,
    require_tiling,
)
from escsr.upscaling.models import ModelPool
from escsr.upscaling.pixels import (
    AlphaMeaning,
    PixelPlanes,
    Pixels,
    SourceShape,
    Treatment,
    shape_of_file,
)
from escsr.upscaling.progress import OnProgress, ProgressMeter
from escsr.upscaling.sizes import Enlargement, SizeRequest, plan_enlargement
from escsr.upscaling.streaming import RunNetwork, enlarge_in_bands
from escsr.upscaling.tiles import LEAST_OVERLAP_PIXELS, Floats, TileGrid

logger = logging.getLogger("escsr")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkSettings:
    """How an Upscaler works, whatever the image; made once, and passed whole.

    Raises:
        ConfigurationError: a value that is not allowed.
    """

    tile: TileChoice = "auto"
    """Side of a tile in LR pixels, "auto", or "whole"."""
    overlap_pixels: int | None = None
    """Least overlap of tiles in LR pixels; None is a window, and at least 32."""
    memory_limit_bytes: int | None = None
    """Bound on the estimate of what is held at once."""
    keep_colours: bool = True
    """Whether results are held to the colours and flat regions of their source."""
    tta: bool = False
    """Whether networks are asked about eight flips and rotations, and the results averaged."""
    exact: bool = False
    """Whether an image that is cut gives what it gives whole."""
    alpha: AlphaMeaning = "opacity"
    """What a channel beside grey or RGB is."""
    edges: Edges = "auto"
    """What lies beyond an image's borders."""

    def __post_init__(self) -> None:
        """Check each value."""
        require_tiling(self.tile, self.overlap_pixels, self.memory_limit_bytes)
        if not isinstance(self.exact, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"exact is {self.exact!r}; it must be True or False.")
        if self.tta and self.exact:
            raise ConfigurationError(
                "exact and tta (--tta) contradict each other: flips and rotations are run in "
                "tiles. Leave out one of them."
            )
        require_choice("alpha", self.alpha, get_args(AlphaMeaning))
        require_choice("edges", self.edges, get_args(Edges))


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkPlan:
    """Everything settled before the first tile."""

    enlargement: Enlargement
    """Passes and sizes."""
    tiles: tuple[TilePlan | ExactPlan, ...]
    """One plan per pass."""
    precision: Precision
    """Of the networks."""
    margins: Margins = NO_MARGINS
    """What each pass extends its image by."""

    @property
    def num_tiles(self) -> int:
        """Tiles of all passes."""
        return sum(plan.num_tiles for plan in self.tiles)

    @property
    def is_whole(self) -> bool:
        """Whether every pass runs in one piece."""
        return all(plan.is_whole for plan in self.tiles)

    @property
    def tile_pixels(self) -> int:
        """Longest side of a tile in the last pass, in pixels of what it reads."""
        return self.tiles[-1].tile_pixels

    @property
    def is_exact(self) -> bool:
        """Whether every pass gives what the whole image gives in one piece."""
        return all(plan.is_exact for plan in self.tiles)

    @property
    def disk_bytes(self) -> int:
        """Size of the temporary files of the pass that needs most."""
        return max(plan.disk_bytes for plan in self.tiles)

    @property
    def peak_memory_bytes(self) -> int:
        """Estimate for the hungriest pass."""
        return max(plan.peak_memory_bytes for plan in self.tiles)


class MultiPassUpscaler:
    """Networks and settings; a call changes nothing of it that changes a result."""

    def __init__(
        self, models: ModelPool, settings: WorkSettings, *, default_scale: float | None
    ) -> None:
        self.models = models
        self.settings = settings
        self._default_scale = default_scale
        self._freed_memory = FreedMemory(models.device)
        self._warned_of: set[str] = set()

    def treatment(self, extra: ExtraChannel = "alpha") -> Treatment:
        """How an image is treated, whose last channel is stated to be opacity or data."""
        return Treatment(
            alpha="data" if extra == "data" else self.settings.alpha,
            edges=self.settings.edges,
            holds_flat=self.settings.keep_colours,
        )

    def plan_size(self, width: int, height: int, request: SizeRequest) -> Enlargement:
        """The passes and the final size for a source of one size; loads nothing."""
        if request == SizeRequest() and self._default_scale is not None:
            request = SizeRequest(scale=self._default_scale)
        return plan_enlargement(
            width,
            height,
            request,
            scales=self.models.scales,
            default_scale=self.models.default_scale,
            makes_any_size=self.models.makes_any_size,
        )

    def plan(
        self, source: SourceShape, enlargement: Enlargement, *, result_is_held: bool
    ) -> WorkPlan:
        """Settle the tiles of each pass; loads the networks.

        Args:
            source: sizes of the image.
            enlargement: from ``plan_size``.
            result_is_held: whether the last pass's result stays in memory too.
        Raises:
            DeviceMemoryError: the memory limit cannot be kept.
        """
        sizes = ((source.width, source.height), *enlargement.sizes)
        bytes_per_pixel = source.channels * source.bytes_per_sample
        eight_bit = source.bytes_per_sample == 1
        precision: Precision = "float32"
        tiles: list[TilePlan | ExactPlan] = []
        for index, scale in enumerate(enlargement.passes):
            output_size = sizes[index + 1]
            factor = max(output_size[0] / sizes[index][0], output_size[1] / sizes[index][1])
            width, height = source.margins.extended_size(*sizes[index])
            is_last = index == len(enlargement.passes) - 1
            held = source.num_bytes if index > 0 else 0
            if not source.margins.is_empty:
                held += bytes_per_pixel * sizes[index][0] * sizes[index][1]
            if result_is_held or not is_last:
                held += bytes_per_pixel * output_size[0] * output_size[1]
            engine = self.models.engine(scale)
            precision = engine.choose_precision(eight_bit=eight_bit)
            workload = Workload(
                width=width,
                height=height,
                channels=source.channels,
                bytes_per_sample=source.bytes_per_sample,
                num_images=source.num_images,
                images_at_once=engine.images_at_once(source.num_images),
                held_bytes=held,
                is_loaded=index == 0,
            )
            tiles.append(self._plan_pass(workload, engine, factor, precision))
        return WorkPlan(
            enlargement=enlargement, tiles=tuple(tiles), precision=precision, margins=source.margins
        )

    def plan_of_file(self, header: ImageHeader, request: SizeRequest) -> WorkPlan:
        """What is planned for a file, as far as its header tells.

        A picture whose borders turn out flat is extended, and takes a little more.

        Raises:
            ConfigurationError, ImageSizeError, DeviceMemoryError: as of ``plan_size``, ``plan``.
        """
        enlargement = self.plan_size(header.width, header.height, request)
        shape = shape_of_file(header, self.treatment(header.extra))
        held = enlargement.shrinks and shape.margins.wraps
        return self.plan(shape, enlargement, result_is_held=held)

    def stream(
        self, source: PixelPlanes, plan: WorkPlan, on_progress: OnProgress | None = None
    ) -> Iterator[Pixels]:
        """Run the passes; the last one's rows are yielded as they become final.

        Yields:
            (rows, network width, C); not yet shrunk to the target size.
        """
        enlargement = plan.enlargement
        sizes = ((source.width, source.height), *enlargement.sizes[:-1])
        extended = [plan.margins.extended_size(*size) for size in sizes]
        meter = ProgressMeter(sum(width * height for width, height in extended), on_progress)
        passes = zip(enlargement.passes, enlargement.sizes, plan.tiles, strict=True)
        for index, (scale, size, tiles) in enumerate(passes):
            rows = self._enlarge(source, scale, size, tiles, plan.precision, meter)
            if index == len(plan.tiles) - 1:
                yield from rows
            else:
                source = replace(source, pixels=assemble(rows, source, size))
        meter.finish()
        self._freed_memory.release()

    def _enlarge(
        self,
        source: PixelPlanes,
        scale: int,
        size: tuple[int, int],
        tiles: TilePlan | ExactPlan,
        precision: Precision,
        meter: ProgressMeter,
    ) -> Iterator[Pixels]:
        """Run one pass."""
        engine, margins = self.models.engine(scale), source.margins
        source = source.extended()
        if isinstance(tiles, ExactPlan):
            pixels = source.width * source.height
            rows = enlarge_exactly(
                source,
                engine,
                tiles,
                output_size=size,
                margins=margins,
                keeps_colours=self.settings.keep_colours,
                on_share_done=lambda share: meter.add(share * pixels),
            )
        else:
            rows = enlarge_in_bands(
                source,
                self._run_of(engine, precision),
                output_size=size,
                grid=tiles.grid,
                margins=margins,
                on_pixels_done=meter.add,
                on_memory_error=lambda: release_cached_memory(self.models.device),
            )
        if margins.is_empty:
            return rows
        return cropped(rows, margins.scales((source.width, source.height), size))

    def _run_of(self, engine: Engine, precision: Precision) -> RunNetwork:
        """One engine's work on a tile, held to the colours of its source."""

        def run(tile: Floats, rows: AxisView, columns: AxisView) -> Floats:
            ask = run_eight_ways if self.settings.tta else Engine.run
            result = ask(engine, tile, precision, (rows, columns))
            if not self.settings.keep_colours:
                return result
            return keep_colours(result, tile, views=(rows, columns))

        return run

    def _plan_pass(
        self, workload: Workload, engine: Engine, factor: float, precision: Precision
    ) -> TilePlan | ExactPlan:
        settings = self.settings
        cost = engine.cost(factor, precision)
        memory = MemoryBudget(
            device_bytes=available_memory_bytes(engine.device),
            host_bytes=available_memory_bytes("cpu"),
            limit_bytes=settings.memory_limit_bytes,
        )
        try:
            tiles = plan_tiles(
                workload,
                cost,
                tile=settings.tile,
                overlap_pixels=settings.overlap_pixels,
                available_bytes=memory.device_bytes,
                memory_limit_bytes=memory.limit_bytes,
            )
        except DeviceMemoryError as error:
            tiles = error
        if settings.tta and isinstance(tiles, TilePlan):
            return tiles
        plan = choose_pass(
            tiles,
            workload,
            engine,
            cost,
            exact=settings.exact,
            tile=settings.tile,
            memory=memory,
        )
        is_slower = isinstance(plan, ExactPlan) and (engine.name != "native" or plan.disk_bytes > 0)
        if is_slower and not settings.exact:
            self._warn_once(
                "Tiles do not fit in memory; working layer by layer instead, which takes longer."
            )
        self._warn_of_rounding(cost.window_size, max(workload.width, workload.height))
        if isinstance(plan, TilePlan) and not plan.is_whole:
            self._warn_of_seams(plan.grid)
        return plan

    def _warn_of_rounding(self, window_size: int, longest: int) -> None:
        """Where tiles of the side that was asked for cannot be."""
        tile = self.settings.tile
        if isinstance(tile, int) and tile % window_size and tile < longest:
            rounded = math.ceil(tile / window_size) * window_size
            self._warn_once(
                f"A tile of {tile} pixels is rounded up to {rounded}, whole attention windows of "
                f"{window_size}."
            )

    def _warn_of_seams(self, grid: TileGrid) -> None:
        """Where the user asked for less than is taken unasked."""
        if grid.tile_pixels < grid.least_pixels:
            self._warn_once(
                f"Tiles of {grid.tile_pixels} pixels are smaller than {grid.least_pixels}, "
                "so that seams may show; exact results (--exact) need no more memory."
            )
        if grid.overlap_pixels < LEAST_OVERLAP_PIXELS:
            self._warn_once(
                f"Tiles that overlap by {grid.overlap_pixels} pixels, less than "
                f"{LEAST_OVERLAP_PIXELS}, may show seams."
            )

    def _warn_once(self, message: str) -> None:
        """Not for each of many images."""
        if message not in self._warned_of:
            self._warned_of.add(message)
            logger.warning("%s", message)


def assemble(rows: Iterator[Pixels], source: PixelPlanes, size: tuple[int, int]) -> Pixels:
    """Collect rows into one array of a (width, height): (H', W', C) of the source's dtype."""
    result = np.empty((size[1], size[0], source.channels), source.pixels.dtype)
    top = 0
    for band in rows:
        result[top : top + band.shape[0]] = band
        top += band.shape[0]
    return result
