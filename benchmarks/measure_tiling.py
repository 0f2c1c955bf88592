"""How much tiles change the result, and whether a seam shows.

Runs one image whole and in tiles, prints what differs as JSON, and writes a picture of the worst
seam: whole, tiled, and their difference amplified around grey.

    python benchmarks/measure_tiling.py photo.png --model esc-tiny --scale 4 --tile 256
"""

import argparse
import json
from dataclasses import asdict, dataclass, replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from escsr.engines.eager import engine_of_module
from escsr.engines.engine import Engine, EngineOptions
from escsr.images.files import read_image
from escsr.images.writer import write_image
from escsr.model import ESC
from escsr.upscaling.borders import NO_MARGINS
from escsr.upscaling.pixels import planes_of
from escsr.upscaling.streaming import enlarge_in_bands
from escsr.upscaling.tiles import TileGrid
from escsr.weights import load_model

Image = npt.NDArray[np.float32]
"""(H, W, 3) RGB in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TilingError:
    """What tiles change. Differences are in levels of 255."""

    psnr_db: float
    """Of the tiled result, the whole one being the truth, over RGB."""
    max_difference: float
    """Largest of any channel of any pixel."""
    difference_of_99_99_percent: float
    """99.99 % of all values differ by no more."""
    mean_difference_in_blend_zones: float
    """Mean absolute difference where tiles overlap."""
    mean_difference_elsewhere: float
    """Mean absolute difference where one tile alone decides."""
    worst_seam_step: float
    """Mean jump of the difference across the edge of a blend zone, at the worst such edge."""
    typical_step: float
    """Median jump of the difference between neighbouring rows or columns anywhere."""
    worst_seam_axis: str
    """"column" for a vertical seam, "row" for a horizontal one; "none" without seams."""
    worst_seam_position: int
    """Where it lies, in pixels of the result."""


def tiling_error(
    network: nn.Module, image: Image, tile_pixels: int, overlap_pixels: int, *, scale: int
) -> tuple[TilingError, Image, Image]:
    """Compare a tiled run with a whole one, in float32.

    Args:
        network: (B, 3, H, W) -> (B, 3, scale*H, scale*W).
        image: the LR image.
        tile_pixels: side of a tile.
        overlap_pixels: least overlap.
        scale: factor of the network.
    Returns:
        The figures, the whole result and the tiled one.
    """
    engine = engine_of_module(network, scale=scale, options=EngineOptions(device="cpu"))
    window = engine.config.window_size if engine.config else 1
    grid = TileGrid(tile_pixels=tile_pixels, overlap_pixels=overlap_pixels, window_size=window)
    whole = _enlarge(engine, image, TileGrid(tile_pixels=1 << 30, overlap_pixels=0, window_size=1))
    tiled = _enlarge(engine, image, grid)
    difference = 255 * (tiled.astype(np.float64) - whole)
    zones = {
        "row": _zones(grid, image.shape[0], scale),
        "column": _zones(grid, image.shape[1], scale),
    }
    blended = np.zeros(difference.shape[:2], bool)
    for start, stop in zones["row"]:
        blended[start:stop] = True
    for start, stop in zones["column"]:
        blended[:, start:stop] = True
    steps = {
        "row": np.abs(np.diff(difference, axis=0)).mean(axis=(1, 2)),
        "column": np.abs(np.diff(difference, axis=1)).mean(axis=(0, 2)),
    }
    edges = [
        (float(steps[axis][edge - 1]), axis, edge)
        for axis, pairs in zones.items()
        for edge in chain.from_iterable(pairs)
    ]
    step, axis, position = max(edges, default=(0.0, "none", 0))
    magnitude = np.abs(difference).mean(axis=2)
    mean_square = float(np.square(difference / 255).mean())
    error = TilingError(
        psnr_db=float(-10 * np.log10(mean_square)) if mean_square else float("inf"),
        max_difference=float(np.abs(difference).max()),
        difference_of_99_99_percent=float(np.quantile(np.abs(difference), 0.9999)),
        mean_difference_in_blend_zones=float(magnitude[blended].mean()) if blended.any() else 0.0,
        mean_difference_elsewhere=float(magnitude[~blended].mean()) if not blended.all() else 0.0,
        worst_seam_step=step,
        typical_step=float(np.median(np.concatenate((steps["row"], steps["column"])))),
        worst_seam_axis=axis,
        worst_seam_position=position,
    )
    return error, whole, tiled


def with_windows(network: ESC, window_size: int) -> ESC:
    """The same weights with larger windows: the position bias is continued by its border."""
    other = ESC(replace(network.config, window_size=window_size)).eval()
    margin = window_size - network.config.window_size
    state = network.state_dict()
    for name, table in state.items():
        if name.endswith("position_bias.table"):
            side = 2 * network.config.window_size - 1
            square = table.reshape(1, -1, side, side)
            wider = torch.nn.functional.pad(square, [margin] * 4, mode="replicate")
            state[name] = wider.reshape(table.shape[0], -1)
    other.load_state_dict(state)
    return other


def seam_picture(
    error: TilingError, whole: Image, tiled: Image, *, gain: float, side: int = 256
) -> npt.NDArray[np.uint8]:
    """Whole, tiled and amplified difference side by side, where the worst seam differs most."""
    difference = np.abs(tiled - whole).mean(axis=2)
    along, across = (0, 1) if error.worst_seam_axis == "column" else (1, 0)
    position = min(error.worst_seam_position, difference.shape[across] - 1)
    centre = int(difference.take(position, axis=across).argmax())
    wanted = {across: position, along: centre}
    tops = [max(0, min(wanted[axis] - side // 2, whole.shape[axis] - side)) for axis in (0, 1)]
    cut = (slice(tops[0], tops[0] + side), slice(tops[1], tops[1] + side))
    amplified = 0.5 + gain * (tiled[cut] - whole[cut])
    row = np.concatenate((whole[cut], tiled[cut], amplified), axis=1)
    return (row.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--model", default="esc-tiny")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--tile", type=int, default=256, help="side in LR pixels")
    parser.add_argument("--overlap", type=int, default=None, help="least, in LR pixels")
    parser.add_argument("--window", type=int, default=None, help="other windows, same weights")
    parser.add_argument("--gain", type=float, default=20.0, help="of the difference in the picture")
    parser.add_argument("--picture", type=Path, default=None, help="where to write the worst seam")
    options = parser.parse_args()
    network = load_model(options.model, scale=options.scale)
    if options.window is not None:
        network = with_windows(network, options.window)
    overlap = max(network.config.window_size, 32)  # the Upscaler's default
    if options.overlap is not None:
        overlap = options.overlap
    pixels = read_image(options.image).pixels[..., :3]
    image = (pixels / np.iinfo(pixels.dtype).max).astype(np.float32)
    image = image if image.shape[2] == 3 else image[..., :1].repeat(3, axis=2)
    error, whole, tiled = tiling_error(network, image, options.tile, overlap, scale=options.scale)
    if options.picture is not None:
        picture = seam_picture(error, whole, tiled, gain=options.gain)
        write_image(options.picture, picture, overwrite=True)
    settings = {
        "image": options.image.name,
        "width": image.shape[1],
        "height": image.shape[0],
        "model": options.model,
        "window_size": network.config.window_size,
        "scale": options.scale,
        "tile_pixels": options.tile,
        "overlap_pixels": overlap,
    }
    print(json.dumps({**settings, **asdict(error)}, indent=2))


def _enlarge(engine: Engine, image: Image, grid: TileGrid) -> Image:
    rows = enlarge_in_bands(
        planes_of(image),
        lambda batch, *views: engine.run(batch, views=views),
        output_size=(image.shape[1] * engine.scale, image.shape[0] * engine.scale),
        grid=grid,
        margins=NO_MARGINS,
    )
    return np.concatenate(list(rows))


def _zones(grid: TileGrid, length: int, scale: int) -> list[tuple[int, int]]:
    """Where neighbouring tiles are blended along one axis, in pixels of the result."""
    spans = grid.cut(length)
    return [(other.start * scale, one.stop * scale) for one, other in pairwise(spans)]


if __name__ == "__main__":
    main()
