"""Pairs of LR and HR patches: choice of images and places, degradation by resizing, batches."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from escsr.errors import MissingExtraError, TrainingError
from escsr.images.resize import resize_bicubic_uint8
from escsr.training.batches import PairBatch, PhotographBatch
from escsr.training.recipe import Recipe

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ImagePair:
    """One photograph and, where patches are cut from it, its small version."""

    hr_pixels: Pixels
    """(H, W, 3); multiples of the scale if there is an LR version."""
    lr_pixels: Pixels | None
    """(H / scale, W / scale, 3); None where LR is made of each patch."""

    @property
    def size_bytes(self) -> int:
        """Memory that the pixels take."""
        return self.hr_pixels.nbytes + (0 if self.lr_pixels is None else self.lr_pixels.nbytes)


@dataclass(frozen=True, slots=True)
class PatchPlace:
    """Where a patch is cut and how it is turned."""

    top: int
    """In HR pixels."""
    left: int
    """In HR pixels."""
    quarter_turns: int
    """Counter-clockwise, 0 to 3."""
    mirrored: bool
    """Left and right are exchanged after turning."""


def draw_place(
    generator: np.random.Generator, height: int, width: int, recipe: Recipe
) -> PatchPlace:
    """Draw a place at random; patches of whole shrunken images start at whole LR pixels.

    Args:
        generator: gives the same sequence of draws in every version: runs depend on it.
        height: of the HR image; what is smaller than the cut starts at 0.
        width: of the HR image, likewise.
        recipe: says the side of the cut, and what may be done to it.
    """
    grid = recipe.scale if recipe.data.shrinks_whole_images else 1
    side, augmentation = recipe.cut_pixels, recipe.data.augmentation
    top = int(generator.integers(max(0, height - side) // grid + 1)) * grid
    left = int(generator.integers(max(0, width - side) // grid + 1)) * grid
    turns = int(generator.integers(4)) if augmentation == "flips-rotations" else 0
    mirrored = augmentation != "none" and bool(generator.integers(2))
    return PatchPlace(top, left, turns, mirrored)


def make_pair(hr_pixels: Pixels, recipe: Recipe) -> ImagePair:
    """Make what patches are cut from: the photograph, with its LR version if LR is made whole.

    Args:
        hr_pixels: (H, W, 3) uint8; cropped at the bottom and right to multiples of the scale
            where LR is made of the whole.
        recipe: says how LR is made.
    """
    if not recipe.data.shrinks_whole_images:
        return ImagePair(hr_pixels, None)
    height, width = (side // recipe.scale * recipe.scale for side in hr_pixels.shape[:2])
    hr_pixels = np.ascontiguousarray(hr_pixels[:height, :width])
    return ImagePair(hr_pixels, resize_bicubic_uint8(hr_pixels, scale=1 / recipe.scale))


def cut_patches(pair: ImagePair, place: PatchPlace, recipe: Recipe) -> tuple[Pixels | None, Pixels]:
    """Cut a pair of patches.

    Returns:
        LR (h, h, 3), or None where it is made later, and HR of ``cut_pixels`` per side, uint8.
    """
    hr_patch = _cut(pair.hr_pixels, place.top, place.left, recipe.cut_pixels)
    if recipe.data.kind != "pairs":
        return None, _orient(_extended(hr_patch, recipe.cut_pixels), place)
    hr_patch = _orient(hr_patch, place)
    if pair.lr_pixels is None:
        return _shrink(hr_patch, recipe), hr_patch
    top, left = place.top // recipe.scale, place.left // recipe.scale
    return _orient(_cut(pair.lr_pixels, top, left, recipe.data.patch_pixels), place), hr_patch


def stack_patches(
    patches: Iterable[tuple[Pixels | None, Pixels]],
) -> PairBatch | PhotographBatch:
    """Stack what ``cut_patches`` gives: (B, 3, side, side) float32 in [0, 1], channels_last."""
    lr_patches, hr_patches = zip(*patches, strict=True)
    hr_batch = to_float(hr_patches)
    if lr_patches[0] is None:
        return PhotographBatch(hr_batch)
    return PairBatch.of_patches(to_float(lr_patches), hr_batch)


def positions_of_rank(batch_size: int, rank: int, world_size: int) -> range:
    """Which pairs of a batch one of several processes makes.

    Raises:
        TrainingError: the batch cannot be shared out evenly.
    """
    if batch_size % world_size:
        raise TrainingError(
            f"A batch of {batch_size} pairs cannot be shared evenly by {world_size} processes; "
            f"choose a batch_size that is a multiple of {world_size}."
        )
    share = batch_size // world_size
    return range(rank * share, (rank + 1) * share)


def shrink_by_pillow(pixels: Pixels, side: int) -> Pixels:
    """Shrink a square by Pillow's bicubic filter, antialiased.

    Args:
        pixels: (S, S, 3) uint8, one row after the other in memory.
        side: of the result.
    Returns:
        (side, side, 3) uint8.
    Raises:
        MissingExtraError: Pillow is not installed.
    """
    image_module = pillow_image_module()
    return np.asarray(
        image_module.fromarray(pixels).resize((side, side), image_module.Resampling.BICUBIC)
    )


def pillow_image_module() -> Any:
    """Pillow's module ``PIL.Image``.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtraError("LR made by Pillow needs it: pip install 'escsr[train]'") from error
    return Image


def _cut(pixels: Pixels, top: int, left: int, side: int) -> Pixels:
    return pixels[top : top + side, left : left + side]


def _extended(pixels: Pixels, side: int) -> Pixels:
    """Extend what is too small at the bottom and right, by reflection."""
    height, width = pixels.shape[:2]
    if height == width == side:
        return pixels
    return np.pad(pixels, ((0, side - height), (0, side - width), (0, 0)), mode="reflect")


def _orient(pixels: Pixels, place: PatchPlace) -> Pixels:
    turned = np.rot90(pixels, place.quarter_turns)
    return turned[:, ::-1] if place.mirrored else turned


def _shrink(hr_patch: Pixels, recipe: Recipe) -> Pixels:
    hr_patch = np.ascontiguousarray(hr_patch)
    if recipe.data.needs_pillow:
        return shrink_by_pillow(hr_patch, recipe.data.patch_pixels)
    return resize_bicubic_uint8(hr_patch, scale=1 / recipe.scale)


def to_float(patches: Sequence[Pixels]) -> Tensor:
    """Patches (h, h, 3) uint8 -> (B, 3, h, h) float32, as channels_last lies in memory.

    By numpy, which takes one core: torch would take those that the network is computed on.
    """
    values = np.empty((len(patches), *patches[0].shape), np.float32)
    for position, patch in enumerate(patches):
        values[position] = patch
    values /= np.float32(255)
    return torch.from_numpy(values).permute(0, 3, 1, 2)


class RandomStream(IntEnum):
    """Tells the random streams of one seed apart, as the last word of what a generator starts from.

    The words before it say where in the stream. The patches of image files have streams of other
    lengths: (seed, step), and four words where an image is drawn again. Runs depend on the numbers.
    """

    SHARE = 1
    """Which images are used."""
    SHARD_ORDER = 2
    IMAGE_ORDER = 3
    """Within a shard."""
    SHARD_PATCH = 4
    """Where a patch is cut from an image of a shard."""
    DEGRADATION = 5
    POOL = 6
    """Which pairs of the pool are used."""
    QUERY = 7
    """Scales, crops and pixels of training at any scale."""


def random_share(number: int, recipe: Recipe) -> list[int]:
    """Choose ``data.share`` of ``range(number)``, rounded up, in ascending order.

    With the same seed a smaller share is part of a larger one, as experiments on the amount of
    data want it.
    """
    share = recipe.data.share
    if share == 1:
        return list(range(number))
    order = np.random.default_rng((recipe.seed, 0, RandomStream.SHARE)).permutation(number)
    # 0.1 * 30 is a little above 3: a rounding error is no image.
    kept = math.ceil(round(number * share, 9))
    return sorted(order[:kept].tolist())
