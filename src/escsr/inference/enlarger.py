"""Plan and run the passes that make a larger image: the part that files and arrays share."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from escsr.errors import DeviceMemoryError
from escsr.family.axis_view import AxisView
from escsr.images.files import ExtraChannel
from escsr.inference.borders import NO_MARGINS, Edges, Margins, cropped
from escsr.inference.devices import (
    FreedMemory,
    Precision,
    available_memory_bytes,
    choose_dtype,
    is_out_of_memory,
    release_cached_memory,
)
from escsr.inference.engine import Engine
from escsr.inference.exact.choice import choose_pass
from escsr.inference.exact.plan import ExactPlan
from escsr.inference.exact.run import enlarge_exactly
from escsr.inference.flat_regions import Samples, hold_flat_regions
from escsr.inference.geometry import Enlargement, SizeWish, plan_enlargement
from escsr.inference.memory import Room, TileChoice, TilePlan, Workload, plan_tiles
from escsr.inference.models import ModelShelf
from escsr.inference.network_cost import cost_on_core, network_cost
from escsr.inference.planes import AlphaMeaning, PixelPlanes, Pixels, SourceShape, Treatment
from escsr.inference.progress_meter import OnProgress, ProgressMeter
from escsr.inference.streaming import RunNetwork, enlarge_in_bands
from escsr.inference.tiling import LEAST_OVERLAP_PIXELS, Span, TileGrid
from escsr.shapes import ImageBatch

logger = logging.getLogger("escsr")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkSettings:
    """How an Upscaler works, whatever the image."""

    precision: Precision
    """As asked for."""
    tile: TileChoice
    """Side of a tile in LR pixels, "auto", or "whole"."""
    overlap_pixels: int | None
    """Least overlap of tiles in LR pixels; None is a window, and at least 32."""
    memory_limit_bytes: int | None
    """Bound on the estimate of what is held at once."""
    exact: bool = False
    """Whether an image that is cut gives what it gives whole."""
    alpha: AlphaMeaning = "opacity"
    """What a channel beside grey or RGB is."""
    edges: Edges = "auto"
    """What lies beyond an image's borders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkPlan:
    """Everything settled before the first tile."""

    enlargement: Enlargement
    """Passes and sizes."""
    tiles: tuple[TilePlan | ExactPlan, ...]
    """One plan per pass."""
    dtype: torch.dtype
    """Precision of the networks."""
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


class Enlarger:
    """Networks and settings; a call changes nothing of it that changes a result."""

    def __init__(
        self, shelf: ModelShelf, settings: WorkSettings, *, default_scale: float | None
    ) -> None:
        self.shelf = shelf
        self.settings = settings
        self._default_scale = default_scale
        self._freed_memory = FreedMemory(shelf.device)
        self._warned_of: set[str] = set()

    def treatment(self, extra: ExtraChannel = "alpha") -> Treatment:
        """How an image is treated, whose last channel is said to be opacity or data."""
        return Treatment(
            alpha="data" if extra == "data" else self.settings.alpha,
            edges=self.settings.edges,
            holds_flat=self.shelf.keeps_colours,
        )

    def plan_size(self, width: int, height: int, wish: SizeWish) -> Enlargement:
        """The passes and the final size for a source of one size; loads nothing."""
        if wish == SizeWish() and self._default_scale is not None:
            wish = SizeWish(scale=self._default_scale)
        return plan_enlargement(
            width,
            height,
            wish,
            scales=self.shelf.scales,
            default_scale=self.shelf.default_scale,
            makes_any_size=self.shelf.makes_any_size,
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
        dtype = self._dtype(eight_bit=source.bytes_per_sample == 1)
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
            engine = self.shelf.engine(scale)
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
            tiles.append(self._plan_pass(workload, engine, factor, dtype))
        return WorkPlan(
            enlargement=enlargement, tiles=tuple(tiles), dtype=dtype, margins=source.margins
        )

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
            rows = self._enlarge(source, scale, size, tiles, plan.dtype, meter)
            if index == len(plan.tiles) - 1:
                yield from rows
            else:
                source = replace(source, pixels=assemble(rows, source, size))
        meter.finish()
        self._freed_memory.release()

    def run_whole(self, image: ImageBatch, plan: WorkPlan) -> Tensor | None:
        """Run all passes over a batch in one piece, on the device and without copies.

        Returns:
            The result, float32; None where the plan has tiles or memory ran out, so that the work
            must go by ``stream``.
        """
        if not plan.is_whole:
            return None
        try:
            for scale, size in zip(plan.enlargement.passes, plan.enlargement.sizes, strict=True):
                image = self._run_pass_whole(image, scale, size, plan)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            self._freed_memory.release()
            return image
        release_cached_memory(self.shelf.device)
        return None

    def _enlarge(
        self,
        source: PixelPlanes,
        scale: int,
        size: tuple[int, int],
        tiles: TilePlan | ExactPlan,
        dtype: torch.dtype,
        meter: ProgressMeter,
    ) -> Iterator[Pixels]:
        """Run one pass."""
        engine, margins = self.shelf.engine(scale), source.margins
        source = source.extended()
        if isinstance(tiles, ExactPlan):
            pixels = source.width * source.height
            rows = enlarge_exactly(
                source,
                engine,
                tiles,
                output_size=size,
                margins=margins,
                dtype=dtype,
                on_share_done=lambda share: meter.add(share * pixels),
            )
        else:
            rows = enlarge_in_bands(
                source,
                _run_of(engine, dtype),
                output_size=size,
                grid=tiles.grid,
                margins=margins,
                on_pixels_done=meter.add,
                on_memory_error=lambda: release_cached_memory(self.shelf.device),
            )
        if margins.is_empty:
            return rows
        return cropped(rows, margins.scales((source.width, source.height), size))

    def _run_pass_whole(
        self, image: ImageBatch, scale: int, size: tuple[int, int], plan: WorkPlan
    ) -> ImageBatch:
        """One pass over a batch in one piece: (B, 3, H, W) -> (B, 3, H', W') in [0, 1]."""
        margins, engine = plan.margins, self.shelf.engine(scale)
        image = margins.extend_tensor(image).to(engine.device, torch.float32)
        height, width = image.shape[-2:]
        scales = margins.scales((width, height), size)
        whole = (Span(start=0, stop=axis.total_length) for axis in scales)
        views = tuple(axis.view(span) for axis, span in zip(scales, whole, strict=True))
        result = engine.run(image, plan.dtype, views)
        if self.shelf.keeps_colours:
            rows, columns = (
                Samples.at(
                    axis.samples(0, axis.total_output),
                    length=axis.total_length,
                    device=image.device,
                )
                for axis in scales
            )
            with torch.inference_mode():
                result = hold_flat_regions(result, image, rows, columns)
        down, across = scales
        result = result.narrow(2, down.output_before, down.output_length)
        return result.narrow(3, across.output_before, across.output_length).clamp(0, 1)

    def _plan_pass(
        self, workload: Workload, engine: Engine, factor: float, dtype: torch.dtype
    ) -> TilePlan | ExactPlan:
        settings = self.settings
        cost = network_cost(
            engine.config,
            scale=factor,
            attention_backend=engine.attention_backend,
            position_rank=engine.position_rank,
            device_type=engine.device.type,
        )
        if engine.core is not None and dtype == torch.float32:
            cost = cost_on_core(engine.core, cost)
        room = Room(
            device_bytes=available_memory_bytes(self.shelf.device),
            host_bytes=available_memory_bytes(torch.device("cpu")),
            limit_bytes=settings.memory_limit_bytes,
        )
        try:
            tiles = plan_tiles(
                workload,
                cost,
                tile=settings.tile,
                overlap_pixels=settings.overlap_pixels,
                available_bytes=room.device_bytes,
                memory_limit_bytes=room.limit_bytes,
            )
        except DeviceMemoryError as error:
            tiles = error
        plan = choose_pass(
            tiles,
            workload,
            engine,
            cost,
            exact=settings.exact,
            dtype=dtype,
            tile=settings.tile,
            room=room,
        )
        is_slower = isinstance(plan, ExactPlan) and (engine.core is None or plan.disk_bytes > 0)
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

    def _dtype(self, *, eight_bit: bool) -> torch.dtype:
        return choose_dtype(self.settings.precision, self.shelf.device, eight_bit=eight_bit)


def _run_of(engine: Engine, dtype: torch.dtype) -> RunNetwork:
    """One engine's work as streaming wants it."""

    def run(tile: ImageBatch, rows: AxisView, columns: AxisView) -> ImageBatch:
        return engine.run(tile, dtype, (rows, columns)).cpu()

    return run


def assemble(rows: Iterator[Pixels], source: PixelPlanes, size: tuple[int, int]) -> Pixels:
    """Collect rows into one array of a (width, height): (H', W', C) of the source's dtype."""
    result = np.empty((size[1], size[0], source.channels), source.pixels.dtype)
    top = 0
    for band in rows:
        result[top : top + band.shape[0]] = band
        top += band.shape[0]
    return result
