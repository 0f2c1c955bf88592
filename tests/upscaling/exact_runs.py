"""An image in one piece and in parts, for tests of exact results."""

from typing import Any

import numpy as np
import pytest
import torch

from escsr.model import ESC
from escsr.upscaling.exact import ExactPlan, Place, enlarge_exactly
from escsr.upscaling.fidelity import keep_colours
from escsr.upscaling.pixels import PixelPlanes, Pixels
from escsr.upscaling.tiles import AxisScale, Span
from tests.upscaling.networks import engine_of

ROUNDING = 2e-5
"""Of [0, 1]: sums are added up in another order."""


def random_pixels(height: int, width: int, channels: int = 3) -> Pixels:
    """Colours in [0, 1], the same each time."""
    return np.random.default_rng(5).random((height, width, channels), np.float32)


def shaken(network: ESC) -> ESC:
    """Give the dynamic kernels something to do; as built they are zero in most classes."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in network.named_parameters():
            if "dynamic_kernel.to_kernel" in name:
                parameter.normal_(std=0.3)
    return network


def plan_of(band_rows: int, place: Place = "memory") -> ExactPlan:
    """Rows at a time; the least memory for the rest."""
    return ExactPlan(
        band_rows=band_rows,
        place=place,
        tile_pixels=0,
        peak_memory_bytes=0,
        disk_bytes=0,
        limit_bytes=0 if place == "memory" else 1,
    )


def whole_and_exact(
    network: ESC,
    source: PixelPlanes,
    plan: ExactPlan,
    *,
    size: tuple[int, int] | None = None,
    keeps_colours: bool = False,
    **options: Any,
) -> tuple[Pixels, Pixels]:
    """The same image in one piece and in parts."""
    engine = engine_of(network, **options)
    size = size or (source.width * network.scale, source.height * network.scale)
    rows, columns = (
        AxisScale(length=length, output_length=output_length)
        for length, output_length in ((source.height, size[1]), (source.width, size[0]))
    )
    spans = (Span(start=0, stop=source.height), Span(start=0, stop=source.width))
    views = (rows.view(spans[0]), columns.view(spans[1]))
    image = source.read(*spans)
    made = engine.run(image, "float32", views)
    if keeps_colours:
        made = keep_colours(made, image, views=views)
    whole = source.finish(source.collapse(made))
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
