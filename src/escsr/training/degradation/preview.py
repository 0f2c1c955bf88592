"""A picture of what the degradation does to photographs."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from escsr.errors import ConfigurationError
from escsr.images.lettering import render_text
from escsr.images.writer import write_image
from escsr.shapes import ImageBatch
from escsr.training.degradation.second_order import degrade
from escsr.training.degradation.sharpening import sharpen
from escsr.training.recipe import Recipe
from escsr.training.recipe_pairs import open_recipe_pairs

_LARGEST_SHOWN_PIXELS = 256
_GAP_PIXELS = 6
_LINE_PIXELS = 24


def write_preview(
    recipe: Recipe, data: Path | str | Sequence[Path | str], path: Path, *, rows: int = 5
) -> None:
    """Draw what a recipe does to its first photographs into a file, which is replaced.

    Args:
        recipe: one whose ``data.degradation`` is "second-order".
        data: photographs, as for training.
        path: of the picture, such as preview.png.
        rows: photographs.
    Raises:
        ConfigurationError: the recipe has another degradation.
        TrainingError: there are no usable photographs.
        ImageWriteError, ImageFormatError: the picture cannot be written.
    """
    if recipe.data.degradation != "second-order":
        raise ConfigurationError(
            f"The recipe {recipe.name} has data.degradation = {recipe.data.degradation!r}; a "
            'preview shows what "second-order" does.'
        )
    few = recipe.model_copy(update={"data": recipe.data.model_copy(update={"batch_size": rows})})
    with closing(open_recipe_pairs(few, data, cache_bytes=0)) as source:
        _, photographs = source.batch(0)
    write_image(path, degradation_picture(recipe, photographs), overwrite=True)


def degradation_picture(
    recipe: Recipe, photographs: ImageBatch, *, versions: int = 5
) -> npt.NDArray[np.uint8]:
    """Draw one row per photograph: itself, sharpened, and degraded in several ways.

    Degraded versions are enlarged by whole pixels. Those of a column were made as one batch, so
    they share their resizes and the kind of noise, as while training.

    Args:
        recipe: its ``[degradation]``, scale and seed.
        photographs: (B, 3, S, S) in [0, 1]; the middle is shown.
        versions: columns of degraded images.
    Returns:
        (H, W, 3), white around the images, each column under its title.
    """
    chosen, scale = recipe.degradation, recipe.scale
    photographs = photographs.contiguous()
    sharp = sharpen(photographs, weight=chosen.usm_weight, threshold=chosen.usm_threshold)
    columns = {"HR": photographs, "sharpened": sharp}
    for number in range(1, versions + 1):
        random = np.random.default_rng((recipe.seed, number))
        lr_images = degrade(sharp, random, chosen, scale=scale)
        enlarged = lr_images.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)
        columns[f"degraded, {number}"] = enlarged
    drawn = [_column(title, images, grid=scale) for title, images in columns.items()]
    return np.concatenate([drawn[0][:, :_GAP_PIXELS] * 0 + 255, *drawn], axis=1)


def _column(title: str, images: ImageBatch, *, grid: int) -> npt.NDArray[np.uint8]:
    """Titled images below one another, white to the right of each and below."""
    middles = _middle(images, grid=grid)
    pixels = (middles.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    frame = ((0, 0), (0, _GAP_PIXELS), (0, _GAP_PIXELS), (0, 0))
    framed = np.pad(pixels, frame, constant_values=255)
    rows = framed.reshape(-1, *framed.shape[2:])
    line = np.full((_LINE_PIXELS, rows.shape[1], 3), 255, dtype=np.uint8)
    ink = render_text(title, height_pixels=_LINE_PIXELS, max_width_pixels=pixels.shape[2])
    left = (pixels.shape[2] - ink.shape[1]) // 2
    line[:, left : left + ink.shape[1]] -= ink[..., None]
    return np.concatenate([line, rows])


def _middle(images: ImageBatch, *, grid: int) -> Tensor:
    side = int(images.shape[-1])
    shown = min(side, _LARGEST_SHOWN_PIXELS) // grid * grid
    start = (side - shown) // 2 // grid * grid
    return images[..., start : start + shown, start : start + shown]
