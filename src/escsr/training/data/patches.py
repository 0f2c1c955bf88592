"""Pairs of LR and HR patches: where to cut them, how LR is made, and batches of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from escsr.errors import MissingExtraError, TrainingError
from escsr.images.resize import resize_bicubic_uint8

Pixels = npt.NDArray[np.uint8]

Degradation = Literal[
    "matlab", "matlab-after-crop", "pillow-after-crop", "pillow-any-scale", "second-order"
]
"""How LR is made of HR, both 8-bit.

- ``matlab``: the whole image by MATLAB's bicubic rule, then pairs are cut: patches know their
  surroundings as test images do. The field's classic data.
- ``matlab-after-crop``: each HR patch by MATLAB's bicubic rule, after crop and augmentation.
- ``pillow-after-crop``: each HR patch by Pillow's bicubic filter, after crop and augmentation.
  The data of the paper's DFLIP networks.
- ``pillow-any-scale``: later, of crops of random scale (``training.arbitrary_scale``); only squares
  of the largest crop's side are cut here. The data of the paper's ESC+LTE.
- ``second-order``: later, on the device, as Real-ESRGAN does; only photographs are cut here, of
  ``degraded_pixels`` per side. The data of the paper's ESC-Real.
"""

Augmentation = Literal["none", "flips", "flips-rotations"]
"""``flips`` mirrors left and right; ``flips-rotations`` draws from all 8 orientations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchSettings:
    """What a pair of patches is."""

    scale: int
    """HR pixels per LR pixel, per side."""
    patch_pixels: int
    """Side of an LR patch."""
    degradation: Degradation = "matlab"
    augmentation: Augmentation = "flips-rotations"
    degraded_pixels: int = 400
    """Side of what "second-order" cuts; smaller photographs are extended by reflection."""

    @property
    def cut_pixels(self) -> int:
        """Side of what is cut from a photograph."""
        is_degraded = self.degradation == "second-order"
        return self.degraded_pixels if is_degraded else self.hr_patch_pixels

    @property
    def makes_lr_later(self) -> bool:
        """Whether LR is made of the batch: here are only photographs."""
        return self.degradation in ("pillow-any-scale", "second-order")

    @property
    def hr_patch_pixels(self) -> int:
        """Side of an HR patch."""
        return self.patch_pixels * self.scale

    @property
    def smallest_side_pixels(self) -> int:
        """What both sides of a photograph need; "second-order" extends any by reflection."""
        return 1 if self.degradation == "second-order" else self.hr_patch_pixels

    @property
    def shrinks_whole_images(self) -> bool:
        """Whether LR is made before patches are cut."""
        return self.degradation == "matlab"


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
    generator: np.random.Generator, height: int, width: int, settings: PatchSettings
) -> PatchPlace:
    """Draw a place at random; patches of whole shrunken images start at whole LR pixels.

    Args:
        generator: gives the same sequence of draws in every version: runs depend on it.
        height: of the HR image; what is smaller than the cut starts at 0.
        width: of the HR image, likewise.
        settings: side of the patch, and what may be done to it.
    """
    grid = settings.scale if settings.shrinks_whole_images else 1
    side = settings.cut_pixels
    top = int(generator.integers(max(0, height - side) // grid + 1)) * grid
    left = int(generator.integers(max(0, width - side) // grid + 1)) * grid
    turns = int(generator.integers(4)) if settings.augmentation == "flips-rotations" else 0
    mirrored = settings.augmentation != "none" and bool(generator.integers(2))
    return PatchPlace(top, left, turns, mirrored)


def make_pair(hr_pixels: Pixels, settings: PatchSettings) -> ImagePair:
    """Make what patches are cut from: the photograph, with its LR version if LR is made whole.

    Args:
        hr_pixels: (H, W, 3) uint8; cropped at the bottom and right to multiples of the scale
            where LR is made of the whole.
        settings: how LR is made.
    """
    if not settings.shrinks_whole_images:
        return ImagePair(hr_pixels, None)
    height, width = (side // settings.scale * settings.scale for side in hr_pixels.shape[:2])
    hr_pixels = np.ascontiguousarray(hr_pixels[:height, :width])
    return ImagePair(hr_pixels, resize_bicubic_uint8(hr_pixels, scale=1 / settings.scale))


def cut_patches(
    pair: ImagePair, place: PatchPlace, settings: PatchSettings
) -> tuple[Pixels, Pixels]:
    """Cut a pair of patches.

    Returns:
        LR (h, h, 3) and HR (scale*h, scale*h, 3), uint8. Where LR is made later it is empty,
        (0, 0, 3), and HR has ``cut_pixels`` per side.
    """
    hr_patch = _cut(pair.hr_pixels, place.top, place.left, settings.cut_pixels)
    if settings.makes_lr_later:
        hr_patch = _orient(_extended(hr_patch, settings.cut_pixels), place)
        return hr_patch[:0, :0], hr_patch
    hr_patch = _orient(hr_patch, place)
    if pair.lr_pixels is None:
        return _shrink(hr_patch, settings), hr_patch
    top, left = place.top // settings.scale, place.left // settings.scale
    return _orient(_cut(pair.lr_pixels, top, left, settings.patch_pixels), place), hr_patch


def stack_batch(patches: Iterable[tuple[Pixels, Pixels]]) -> tuple[Tensor, Tensor]:
    """Stack pairs of patches.

    Returns:
        LR (B, 3, h, h) and HR (B, 3, scale*h, scale*h), float32 in [0, 1], channels_last.
    """
    lr_patches, hr_patches = zip(*patches, strict=True)
    return _to_float(lr_patches), _to_float(hr_patches)


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


def _shrink(hr_patch: Pixels, settings: PatchSettings) -> Pixels:
    hr_patch = np.ascontiguousarray(hr_patch)
    if settings.degradation == "matlab-after-crop":
        return resize_bicubic_uint8(hr_patch, scale=1 / settings.scale)
    return shrink_by_pillow(hr_patch, settings.patch_pixels)


def _to_float(patches: Sequence[Pixels]) -> Tensor:
    """Patches (h, h, 3) uint8 -> (B, 3, h, h) float32, as channels_last lies in memory.

    By numpy, which takes one core: torch would take those that the network is computed on.
    """
    values = np.empty((len(patches), *patches[0].shape), np.float32)
    for position, patch in enumerate(patches):
        values[position] = patch
    values /= np.float32(255)
    return torch.from_numpy(values).permute(0, 3, 1, 2)
