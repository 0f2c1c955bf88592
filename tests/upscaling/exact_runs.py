"""An image in one piece and in parts, for tests of exact results."""

import numpy as np
import pytest
import torch

from escsr.engines.eager import Engine
from escsr.model import ESC
from escsr.upscaling.exact import ExactPlan, Place, enlarge_exactly
from escsr.upscaling.pixels import PixelPlanes, Pixels
from escsr.upscaling.tiles import AxisScale, Span

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


def plan_of(
    core: tuple[int, int], head_core: tuple[int, int], place: Place = "memory"
) -> ExactPlan:
    """Parts of these sizes; the rest of a plan is for people."""
    return ExactPlan(
        core_size=core,
        head_core_size=head_core,
        place=place,
        num_tiles=2,
        tile_pixels=max(core),
        peak_memory_bytes=0,
        disk_bytes=0,
    )


def whole_and_exact(
    network: ESC,
    source: PixelPlanes,
    plan: ExactPlan,
    *,
    size: tuple[int, int] | None = None,
    **options: object,
) -> tuple[Pixels, Pixels]:
    """The same image in one piece and in parts."""
    engine = Engine(network, scale=network.scale, device=torch.device("cpu"), **options)  # type: ignore[arg-type]
    size = size or (source.width * network.scale, source.height * network.scale)
    rows, columns = (
        AxisScale(length=length, output_length=output_length)
        for length, output_length in ((source.height, size[1]), (source.width, size[0]))
    )
    spans = (Span(start=0, stop=source.height), Span(start=0, stop=source.width))
    views = (rows.view(spans[0]), columns.view(spans[1]))
    whole = source.finish(source.collapse(engine.run(source.read(*spans), torch.float32, views)))
    shares: list[float] = []
    bands = enlarge_exactly(
        source, engine, plan, output_size=size, dtype=torch.float32, on_share_done=shares.append
    )
    exact = np.concatenate(list(bands))
    assert sum(shares) == pytest.approx(1)
    return whole, exact
