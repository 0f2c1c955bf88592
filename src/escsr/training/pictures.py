"""Pictures of a training run: samples while it trains, and a preview of its degradation."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.errors import ConfigurationError
from escsr.evaluation.protocol import TestPair, read_pair
from escsr.images.lettering import render_text
from escsr.images.writer import write_image
from escsr.shapes import ImageBatch
from escsr.training.batches import PhotographBatch
from escsr.training.data import open_training_data
from escsr.training.degradation import degrade, sharpen
from escsr.training.recipe import Recipe

_MOST_ROWS = 4
_LARGEST_LR_PIXELS = 64


class SampleSheet:
    """One row per image: the LR enlarged by nearest neighbour, the result, the truth.

    Args:
        out: folder of the run; gets ``samples/step-00001000.png``.
        pairs: at least one; the middle of the first few is shown.
        scale: upscaling factor per side.
    """

    def __init__(self, out: Path, pairs: Sequence[TestPair], *, scale: int) -> None:
        self._folder = out / "samples"
        self._scale = scale
        self._pairs = pairs
        self._rows: list[tuple[Tensor, Tensor]] = []

    def write(self, network: nn.Module, step: int) -> npt.NDArray[np.uint8]:
        """Write the sheet of a step.

        Args:
            network: (1, 3, H, W) -> (1, 3, scale*H, scale*W), on any device.
            step: named in the file.
        Returns:
            The sheet, (H, W, 3).
        Raises:
            ImageWriteError: it cannot be written.
        """
        self._rows = self._rows or self._choose_rows()
        with torch.inference_mode():
            rows = [self._draw(network, lr_image, hr_image) for lr_image, hr_image in self._rows]
        width = max(row.shape[-1] for row in rows)
        sheet = torch.cat([F.pad(row, (0, width - row.shape[-1])) for row in rows], dim=-2)
        pixels = _to_pixels(sheet)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_image(self._folder / f"step-{step:08d}.png", pixels, overwrite=True)
        return pixels

    def _choose_rows(self) -> list[tuple[Tensor, Tensor]]:
        pairs = (read_pair(pair, scale=self._scale) for pair in self._pairs[:_MOST_ROWS])
        return [self._middle(*map(torch.from_numpy, images)) for images in pairs]

    def _middle(self, lr_image: Tensor, hr_image: Tensor) -> tuple[Tensor, Tensor]:
        height, width = (min(side, _LARGEST_LR_PIXELS) for side in lr_image.shape[-2:])
        top, left = (lr_image.shape[-2] - height) // 2, (lr_image.shape[-1] - width) // 2
        s = self._scale
        return (
            lr_image[..., top : top + height, left : left + width],
            hr_image[..., top * s : (top + height) * s, left * s : (left + width) * s],
        )

    def _draw(self, network: nn.Module, lr_image: Tensor, hr_image: Tensor) -> Tensor:
        enlarged = F.interpolate(lr_image, scale_factor=self._scale, mode="nearest")
        device = next(network.parameters()).device
        return torch.cat((enlarged, network(lr_image.to(device)).cpu(), hr_image), dim=-1)


def _to_pixels(image: Tensor) -> npt.NDArray[np.uint8]:
    levels = (image[0].clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous().numpy()


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
    if recipe.data.kind != "photographs":
        raise ConfigurationError(
            f"The recipe {recipe.name} has data.degradation = {recipe.data.degradation!r}; a "
            'preview shows what "second-order" does.'
        )
    few = recipe.model_copy(update={"data": recipe.data.model_copy(update={"batch_size": rows})})
    with closing(open_training_data(few, data, cache_bytes=0)) as source:
        batch = source.batch(0)
    assert isinstance(batch, PhotographBatch)
    write_image(path, degradation_picture(recipe, batch.photographs), overwrite=True)


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
