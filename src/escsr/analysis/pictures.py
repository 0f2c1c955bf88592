"""The images of an analysis: read, cropped to what fits into memory, with a patch to attribute."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.engines.devices import available_memory_bytes, is_out_of_memory
from escsr.errors import ConfigurationError
from escsr.images.colour import rgb_to_luma, to_rgb_uint8
from escsr.images.files import read_image
from escsr.shapes import ImageBatch

DEFAULT_PATCH_PIXELS = 8
"""Side of the patch that is chosen where none is asked for, in pixels of the LR image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patch:
    """A square of an LR image."""

    x: int
    """Its left column, in pixels of the image."""
    y: int
    """Its top row."""
    side: int
    """In pixels, >= 1."""

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.side}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """The part of an image file that networks are shown."""

    path: Path
    width: int
    """Of the whole image, in pixels."""
    height: int
    """Likewise."""
    left: int
    """Where the part begins."""
    top: int
    image: ImageBatch
    """The part: (1, 3, h, w) RGB in [0, 1], float32."""

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem


def read_picture(path: Path, *, crop_pixels: int, patch: Patch | None = None) -> Picture:
    """Read an image and keep the middle of it, or what lies around a patch.

    Args:
        path: any file that ``escsr upscale`` reads; grey becomes RGB, alpha is dropped.
        crop_pixels: longest side of what is kept.
        patch: what must lie inside; None keeps the middle.
    Raises:
        ImageReadError, ImageSizeError: as ``read_image``.
        ConfigurationError: the patch is not inside the image, or larger than what is kept.
    """
    pixels = to_rgb_uint8(read_image(path).pixels)
    height, width = pixels.shape[:2]
    centre = (height / 2, width / 2)
    if patch is not None:
        require_inside(patch, width=width, height=height, crop_pixels=crop_pixels, name=str(path))
        centre = (patch.y + patch.side / 2, patch.x + patch.side / 2)
    top, bottom = _around(centre[0], height, crop_pixels)
    left, right = _around(centre[1], width, crop_pixels)
    part = torch.from_numpy(pixels[top:bottom, left:right].copy())
    image = part.permute(2, 0, 1)[None].float() / 255
    return Picture(path=path, width=width, height=height, left=left, top=top, image=image)


def require_inside(patch: Patch, *, width: int, height: int, crop_pixels: int, name: str) -> None:
    """Refuse a patch that an image does not hold.

    Raises:
        ConfigurationError: it has no pixels, reaches outside, or is larger than what is looked at.
    """
    if patch.side < 1 or min(patch.x, patch.y) < 0:
        raise ConfigurationError(
            f"The patch is {patch}; X and Y must be 0 or more, and SIDE 1 or more, in pixels of "
            "the image."
        )
    if patch.x + patch.side > width or patch.y + patch.side > height:
        raise ConfigurationError(
            f"The patch {patch} reaches outside {name}, which is {width}x{height} pixels: X + SIDE "
            f"may be at most {width}, Y + SIDE at most {height}."
        )
    if patch.side > crop_pixels:
        raise ConfigurationError(
            f"The patch {patch} is larger than the {crop_pixels} pixels per side that are looked "
            "at; choose a smaller patch, or raise --crop."
        )


def most_detailed_patch(image: ImageBatch, side: int = DEFAULT_PATCH_PIXELS) -> Patch:
    """The patch with the strongest edges in the middle of an image, where surroundings are left.

    Args:
        image: (1, 3, H, W).
        side: of the patch; less where the image is smaller.
    Returns:
        In pixels of ``image``; its centre lies in the middle half of both sides.
    """
    height, width = image.shape[-2:]
    side = min(side, height, width)
    strength = F.avg_pool2d(
        _edge_strength(torch.from_numpy(rgb_to_luma(image.numpy()))), side, stride=1
    )
    rows, columns = strength.shape[-2:]
    top, left = rows // 4, columns // 4
    middle = strength[..., top : rows - top, left : columns - left]
    best = int(middle.flatten().argmax())
    return Patch(x=left + best % middle.shape[-1], y=top + best // middle.shape[-1], side=side)


def _edge_strength(luma: Tensor) -> Tensor:
    """(1, 1, H, W) -> the same: how much a pixel differs from its right and lower neighbours."""
    padded = F.pad(luma, (0, 1, 0, 1), mode="replicate")
    right = (padded[..., :-1, 1:] - luma).abs()
    return right + (padded[..., 1:, :-1] - luma).abs()


def _around(centre: float, length: int, crop_pixels: int) -> tuple[int, int]:
    """First and last + 1 of at most ``crop_pixels`` around a centre, moved to lie inside."""
    kept = min(length, crop_pixels)
    first = min(max(0, round(centre - kept / 2)), length - kept)
    return first, first + kept


SMALLEST_CROP_PIXELS = 32
"""Memory is not asked for less than this."""
_PROBE_PIXELS = 64
_SHARE_OF_MEMORY = 0.5
"""Of what is free; the rest is for what comes and goes between layers."""


def affordable_side(network: nn.Module, device: torch.device, *, wanted_pixels: int) -> int:
    """The side of the largest square whose gradient fits into memory, but no more than wanted.

    Args:
        network: on ``device``, its parameters without gradients.
        device: where it runs.
        wanted_pixels: what was asked for.
    Returns:
        ``wanted_pixels``, or less: a multiple of 16, at least ``SMALLEST_CROP_PIXELS``.
    """
    free_bytes = available_memory_bytes(str(device))
    if free_bytes is None or wanted_pixels <= SMALLEST_CROP_PIXELS:
        return wanted_pixels
    try:
        per_pixel = kept_bytes_per_pixel(network, device)
    except RuntimeError as error:  # a foreign network; each question will tell why
        return SMALLEST_CROP_PIXELS if is_out_of_memory(error) else wanted_pixels
    side = int(math.sqrt(_SHARE_OF_MEMORY * free_bytes / max(per_pixel, 1.0)))
    if side >= wanted_pixels:
        return wanted_pixels
    return max(SMALLEST_CROP_PIXELS, side // 16 * 16)


def kept_bytes_per_pixel(network: nn.Module, device: torch.device) -> float:
    """What a network keeps of each pixel of its input until the gradient has been computed."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    image = torch.full((1, 3, _PROBE_PIXELS, _PROBE_PIXELS), 0.5, device=device)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(image.requires_grad_())
    return sum(kept.values()) / _PROBE_PIXELS**2
