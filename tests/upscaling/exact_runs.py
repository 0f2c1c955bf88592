"""An image in one piece and layer by layer, for tests of exact results."""

import numpy as np
import pytest

from escsr.engines.engine import Engine
from escsr.upscaling.exact import ExactPlan, Place, enlarge_exactly
from escsr.upscaling.fidelity import keep_colours
from escsr.upscaling.pixels import PixelPlanes, Pixels
from escsr.upscaling.tiles import AxisScale, Span

ROUNDING = 2e-5
"""Of [0, 1]: sums are added up in another order."""


def random_pixels(height: int, width: int, channels: int = 3) -> Pixels:
    """Colours in [0, 1], the same each time."""
    return np.random.default_rng(5).random((height, width, channels), np.float32)


def plan_of(place: Place = "memory", *, band_rows: int = 11, limit_bytes: int = 1) -> ExactPlan:
    """Bands of so many rows, and by default the smallest parts; the rest of a plan is for people.

    Args:
        place: where features lie.
        band_rows: rows of the result that are made at a time.
        limit_bytes: what the core keeps within; 0 lets it work on the whole image at once.
    """
    return ExactPlan(
        band_rows=band_rows,
        place=place,
        num_tiles=2,
        tile_pixels=8,
        peak_memory_bytes=0,
        disk_bytes=0,
        limit_bytes=limit_bytes,
    )


def whole_and_exact(
    engine: Engine,
    source: PixelPlanes,
    plan: ExactPlan,
    *,
    size: tuple[int, int] | None = None,
    keeps_colours: bool = False,
) -> tuple[Pixels, Pixels]:
    """The same image in one piece and in bands; ``size`` is (width, height) of the result."""
    size = size or (source.width * engine.scale, source.height * engine.scale)
    rows, columns = (
        AxisScale(length=length, output_length=output_length)
        for length, output_length in ((source.height, size[1]), (source.width, size[0]))
    )
    spans = (Span(start=0, stop=source.height), Span(start=0, stop=source.width))
    views = (rows.view(spans[0]), columns.view(spans[1]))
    images = source.read(*spans)
    result = engine.run(images, "float32", views)
    if keeps_colours:
        result = keep_colours(result, images, views=views)
    whole = source.finish(source.collapse(result))
    shares: list[float] = []
    bands = enlarge_exactly(
        source,
        engine,
        plan,
        output_size=size,
        keeps_colours=keeps_colours,
        on_share_done=shares.append,
    )
    exact = np.concatenate(list(bands))
    assert sum(shares) == pytest.approx(1)
    return whole, exact
