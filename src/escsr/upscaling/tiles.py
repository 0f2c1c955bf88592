"""Tiles: where they lie, and how neighbours are blended.

Tiles start on the window grid, so that every attention window of a tile is a window of the whole
image. Each is laid over what is there already: over the zone both share, its weight rises smoothly
from 0 to 1. Where tile and ground agree nothing changes, to the last bit, however many overlap.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from escsr.family.axis_view import AxisView

Floats = npt.NDArray[np.float32]


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
