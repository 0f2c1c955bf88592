"""Tiles: where they lie, how neighbours are blended, and rows handed on as they become final.

Tiles start on the window grid, so that every attention window of a tile is a window of the whole
image. Each is laid over what is there already: over the zone both share, its weight rises smoothly
from 0 to 1. Where tile and ground agree nothing changes, to the last bit, however many overlap.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from escsr.engines.devices import is_out_of_memory
from escsr.errors import DeviceMemoryError
from escsr.family.axis_view import AxisView

if TYPE_CHECKING:
    from escsr.upscaling.borders import Margins
    from escsr.upscaling.pixels import PixelPlanes, Pixels

Floats = npt.NDArray[np.float32]

logger = logging.getLogger("escsr")

LEAST_TILE_PIXELS = 128
"""Smaller tiles, in LR pixels, are not taken unless asked for: with 32 pixels of overlap they take
longer than working layer by layer, and show (``docs/tiles.md``)."""
LEAST_OVERLAP_PIXELS = 32
"""With 16 pixels, tiles of 128 of esc-tiny differed from the whole image twice as much, and without
any by 54 of 255 levels; 64 bring little more (``docs/tiles.md``)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A stretch of one axis of the LR image, in pixels."""

    start: int
    """First pixel; a multiple of the window side."""
    stop: int
    """One past the last pixel."""

    @property
    def length(self) -> int:
        """Pixels covered."""
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class AxisScale:
    """How one axis of the image grows; the factor need not be whole.

    An image may have been extended at its borders. Positions are then those of the extended image
    and of the result that it gives, as whole pixels of which the result proper is a part.
    """

    length: int
    """Of the image proper, in pixels."""
    output_length: int
    """Of its result, in pixels."""
    before: int = 0
    """Pixels that the image was extended by in front."""
    after: int = 0
    """Likewise behind."""

    @property
    def total_length(self) -> int:
        """Of the extended image, in pixels."""
        return self.before + self.length + self.after

    @property
    def total_output(self) -> int:
        """Of the result of the extended image, in pixels."""
        return self.at(self.total_length)

    @property
    def output_before(self) -> int:
        """Pixels of that result in front of the result proper."""
        return -self._edge_at(-self.before)

    @property
    def is_whole(self) -> bool:
        """Whether the factor is a whole number."""
        return self.output_length % self.length == 0

    def at(self, position: int) -> int:
        """The edge between pixels of the result that is nearest to one of the image."""
        return self._edge_at(position - self.before) + self.output_before

    def view(self, span: Span) -> AxisView:
        """What a tile of the image makes of the result."""
        return self.view_from(span.start, span)

    def view_from(self, start: int, span: Span) -> AxisView:
        """The result of a stretch of the image, where pixels from ``start`` on are at hand."""
        return AxisView(
            length=self.length,
            output_length=self.output_length,
            start=start - self.before,
            first=self._edge_at(span.start - self.before),
            stop=self._edge_at(span.stop - self.before),
            before=self.before,
            after=self.after,
        )

    def touched(self, first: int, stop: int) -> tuple[int, int]:
        """The pixels of the result that overlap those from ``first`` to ``stop`` of the image."""
        start = (first - self.before) * self.output_length // self.length + self.output_before
        end = -((self.before - stop) * self.output_length // self.length) + self.output_before
        return max(0, start), min(end, self.total_output)

    def complete(self, known: int) -> int:
        """How many pixels of the image overlap none but the first ``known`` of the result."""
        return (known - self.output_before) * self.length // self.output_length + self.before

    def samples(self, first: int, stop: int) -> npt.NDArray[np.float64]:
        """Centres of some pixels of the result in those of the image: (n,).

        The centre of the image's first pixel is 0.
        """
        place = np.arange(first, stop, dtype=np.float64) - self.output_before
        return (place + 0.5) * (self.length / self.output_length) - 0.5 + self.before

    def _edge_at(self, position: int) -> int:
        return (2 * position * self.output_length + self.length) // (2 * self.length)


@dataclass(frozen=True, kw_only=True, slots=True)
class TileGrid:
    """How an image is cut: the side of a tile, the least overlap, and the grid both keep to."""

    tile_pixels: int
    """Longest side of a tile, in LR pixels; rounded up to whole windows when cutting."""
    overlap_pixels: int
    """Least overlap of neighbours, in LR pixels; rounded up to whole windows when cutting, and at
    most one window less than a tile, so a tile of one window has none."""
    window_size: int
    """Side of an attention window, in LR pixels; or of several, where pixels become channels."""
    least_pixels: int = 1
    """Side to which tiles shrink at most when memory runs out; at least a window."""

    def cut(self, length: int, *, start: int = 0) -> tuple[Span, ...]:
        """Cover one axis with overlapping tiles of one length.

        The tiles are as few as ``tile_pixels`` allows, then as short as that number allows, and
        spread evenly, so that no thin tile is left at the end: its pooled statistics would be
        unlike the image's. Only the last may be shorter, by less than a window, where the image
        ends.

        Args:
            length: of the axis, in LR pixels.
            start: where to begin, a multiple of ``window_size`` below ``length``.
        Returns:
            Spans from top to bottom (left to right); starts and stops both increase.
        """
        windows = math.ceil((length - start) / self.window_size)
        tile = math.ceil(self.tile_pixels / self.window_size)
        if tile >= windows:
            return (Span(start=start, stop=length),)
        overlap = min(math.ceil(self.overlap_pixels / self.window_size), tile - 1)
        count = math.ceil((windows - overlap) / (tile - overlap))
        tile = math.ceil((windows - overlap) / count) + overlap
        firsts = (i * (windows - tile) // (count - 1) for i in range(count))
        return tuple(
            Span(
                start=start + first * self.window_size,
                stop=min(start + (first + tile) * self.window_size, length),
            )
            for first in firsts
        )

    def halved(self, longest_pixels: int) -> "TileGrid | None":
        """The grid with tiles of half the side; None where they are at the least already.

        Args:
            longest_pixels: longest side of the image; a tile beyond it was as long as that.
        """
        windows = math.ceil(min(self.tile_pixels, longest_pixels) / self.window_size)
        half = max(math.ceil(windows / 2), math.ceil(self.least_pixels / self.window_size))
        if half >= windows:
            return None
        return replace(self, tile_pixels=half * self.window_size)


def least_tile_pixels(overlap_pixels: int, window_size: int) -> int:
    """The shortest tile that is taken unasked, in LR pixels.

    Whole windows, and three times the overlap: shorter ones are mostly computed twice.
    """
    overlap = math.ceil(overlap_pixels / window_size) * window_size
    return math.ceil(max(LEAST_TILE_PIXELS, 3 * overlap) / window_size) * window_size


RunNetwork = Callable[[Floats, AxisView, AxisView], Floats]
"""(N, 3, h, w) float32 in [0, 1], and which rows and columns of the result it makes ->
(N, 3, h', w') float32."""

OnPixelsDone = Callable[[int], None]
"""Called with a number of LR pixels."""


def enlarge_in_bands(
    source: "PixelPlanes",
    run: RunNetwork,
    *,
    output_size: tuple[int, int],
    grid: TileGrid,
    margins: "Margins",
    on_pixels_done: OnPixelsDone | None = None,
    on_memory_error: Callable[[], None] | None = None,
) -> "Iterator[Pixels]":
    """Enlarge an image, band of tiles by band of tiles, from top to bottom.

    Held at any time: one band in the result's dtype, the blend zone below it in float32, and one
    tile. When memory runs out the tile's side is halved, down to the least, and the work goes
    on with the band at hand.

    Args:
        source: the image.
        run: the network.
        output_size: (width, height) of the result; of its margins, what is beyond.
        grid: how to cut the image into tiles.
        margins: of the image, which it has already, and which the result then has too.
        on_pixels_done: told after each tile how many LR pixels became final; a band that is
            started again reports its pixels again.
        on_memory_error: called before a smaller tile is tried.
    Yields:
        (rows, W', C) of the source's dtype; together the whole result.
    Raises:
        DeviceMemoryError: the least tile does not fit.
    """
    top, ground = 0, None
    scales = margins.scales((source.width, source.height), output_size)
    while top < source.height:
        failure = None
        columns = grid.cut(source.width)
        for rows, next_top in _bands(grid, top, source.height):
            try:
                band, below = _enlarge_band(
                    source, run, scales, rows, next_top, columns, ground, on_pixels_done
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failure = str(error).partition("\n")[0]
                break
            top, ground = next_top, below
            yield band
        if failure is not None:
            if on_memory_error is not None:
                on_memory_error()
            grid = _halved(grid, max(source.width, source.height), failure)


def _bands(grid: TileGrid, top: int, height: int) -> Iterator[tuple[Span, int]]:
    """The rows of each band from ``top`` on, and where the next band begins."""
    spans = grid.cut(height, start=top)
    return zip(spans, [*(span.start for span in spans[1:]), height], strict=True)


def _enlarge_band(
    source: "PixelPlanes",
    run: RunNetwork,
    scales: tuple[AxisScale, AxisScale],
    rows: Span,
    next_top: int,
    columns: tuple[Span, ...],
    ground: Floats | None,
    report: OnPixelsDone | None,
) -> "tuple[Pixels, Floats]":
    """Enlarge one row of tiles.

    Args:
        source: the image.
        run: the network.
        scales: of rows and of columns.
        rows: of the band.
        next_top: first row that is not final yet, since the next band reaches up to it.
        columns: of the tiles.
        report: told how many LR pixels became final.
        ground: (P, rows, W'), what earlier bands left from ``rows.start`` on.
    Returns:
        The final rows, and the ground for the next band.
    """
    down, across = scales
    num_final = down.at(next_top) - down.at(rows.start)
    num_rows = down.at(rows.stop) - down.at(rows.start)
    width = across.total_output
    band = np.empty((num_final, width, source.channels), source.pixels.dtype)
    below = np.empty((source.num_planes, num_rows - num_final, width), np.float32)
    beside: Floats | None = None
    lefts = [*(span.start for span in columns), source.width]
    for span, (left, next_left) in zip(columns, pairwise(lefts), strict=True):
        tile = source.collapse(run(source.read(rows, span), down.view(rows), across.view(span)))
        if beside is not None:
            blend_over(tile, beside, axis=2)
        place = slice(across.at(left), across.at(next_left))
        split = place.stop - place.start
        beside = tile[..., split:].copy()
        tile = tile[..., :split]
        if ground is not None:
            # A band that was made smaller may be shorter than what lies below it.
            blend_over(tile, ground[:, :num_rows, place], axis=1)
        below[..., place] = tile[:, num_final:]
        final = Span(start=down.at(rows.start), stop=down.at(next_top))
        seen = Span(start=place.start, stop=place.stop)
        band[:, place] = source.finish(source.hold_flat(tile[:, :num_final], final, seen, scales))
        if report is not None:
            report((next_left - left) * (next_top - rows.start))
    return band, below


def _halved(grid: TileGrid, longest_pixels: int, failure: str) -> TileGrid:
    smaller = grid.halved(longest_pixels)
    side = min(grid.tile_pixels, longest_pixels)
    if smaller is None:
        raise DeviceMemoryError(
            f"Memory ran out with the smallest tile, {side}x{side} pixels ({failure}). Free "
            "memory, choose a smaller model or another device, or ask for smaller tiles (--tile)."
        )
    logger.warning(
        "Memory ran out with tiles of %d pixels (%s); going on with tiles of %d.",
        side,
        failure,
        smaller.tile_pixels,
    )
    return smaller


def blend_over(tile: Floats, ground: Floats, *, axis: int) -> None:
    """Blend the beginning of a tile with what its predecessors left there, in place.

    Args:
        tile: (P, H, W); its first ``ground.shape[axis]`` positions along ``axis`` are changed.
        ground: (P, H', W'), as ``tile`` but for ``axis``, and not longer there.
        axis: 1 for rows, 2 for columns.
    """
    length = ground.shape[axis]
    if length == 0:
        return
    weight = ramp(length).reshape((1, length, 1) if axis == 1 else (1, 1, length))
    zone = tile[:, :length] if axis == 1 else tile[:, :, :length]
    # ground + weight * (zone - ground): exactly ground where both agree.
    zone -= ground
    zone *= weight
    zone += ground


def ramp(length: int) -> Floats:
    """Weights from 0 to 1 over a blend zone: (length,) float32, symmetric about 1/2.

    A raised cosine over the middle, and 0 or 1 over a quarter at either end: there a tile's
    convolutions see the zeros beyond its border. In trials with half-trained weights of esc-tiny
    and 32 pixels of overlap, tiles came 2 to 4 dB nearer to the whole image than with a ramp over
    the whole zone; ``benchmarks/measure_tiling.py`` measures it.
    """
    margin = length // 4
    position = (np.arange(length) - margin + 0.5) / (length - 2 * margin)
    return (0.5 - 0.5 * np.cos(math.pi * position.clip(0, 1))).astype(np.float32)
