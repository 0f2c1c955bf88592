"""Enlarge an image tile by tile, and hand on rows as soon as no tile can change them."""

import logging
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from escsr.engines.devices import is_out_of_memory
from escsr.errors import DeviceMemoryError
from escsr.family.axis_view import AxisView
from escsr.upscaling.borders import Margins
from escsr.upscaling.pixels import PixelPlanes, Pixels
from escsr.upscaling.tiles import AxisScale, Floats, Span, TileGrid, blend_over

logger = logging.getLogger("escsr")

RunNetwork = Callable[[Floats, AxisView, AxisView], Floats]
"""(N, 3, h, w) float32 in [0, 1], and which rows and columns of the result it makes ->
(N, 3, h', w') float32."""

OnPixelsDone = Callable[[int], None]
"""Called with a number of LR pixels."""


def enlarge_in_bands(
    source: PixelPlanes,
    run: RunNetwork,
    *,
    output_size: tuple[int, int],
    grid: TileGrid,
    margins: Margins,
    on_pixels_done: OnPixelsDone | None = None,
    on_memory_error: Callable[[], None] | None = None,
) -> Iterator[Pixels]:
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
    source: PixelPlanes,
    run: RunNetwork,
    scales: tuple[AxisScale, AxisScale],
    rows: Span,
    next_top: int,
    columns: tuple[Span, ...],
    ground: Floats | None,
    report: OnPixelsDone | None,
) -> tuple[Pixels, Floats]:
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
