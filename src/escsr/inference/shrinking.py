"""Bring what the networks made down to the size asked for."""

import numpy as np
import torch
from torch import Tensor

from escsr.images.lanczos import repeat_for_resizing
from escsr.images.resize import resize_bicubic
from escsr.images.writer import resize_pixels
from escsr.inference.planes import Pixels


def shrink_pixels(pixels: Pixels, *, width: int, height: int, wraps: bool = False) -> Pixels:
    """Resize with antialiasing: Lanczos for integers, bicubic for floating point.

    Args:
        pixels: (H, W, C) uint8, uint16 or float32 in [0, 1]; each channel by itself, since the
            colours that networks make go on where opacity ends.
        width: of the result.
        height: of the result.
        wraps: whether beyond a border lies the other end, else the border's own pixels.
    """
    if pixels.dtype != np.float32:
        return resize_pixels(pixels, width=width, height=height, weighs_opacity=False, wraps=wraps)
    planes = torch.as_tensor(pixels).permute(2, 0, 1)[None]
    small = shrink_tensor(planes, width=width, height=height, wraps=wraps)
    return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())


def shrink_tensor(image: Tensor, *, width: int, height: int, wraps: bool = False) -> Tensor:
    """Resize with an antialiased bicubic kernel, to (B, C, height, width) in [0, 1]."""
    if wraps:
        for dim, target in ((2, height), (3, width)):
            image = _shrink_repeated(image, dim, target)
        return image.clamp(0, 1)
    return resize_bicubic(image, output_size=(height, width)).clamp(0, 1)


def _shrink_repeated(image: Tensor, dim: int, target: int) -> Tensor:
    """Resize one axis of an image that repeats along it."""
    length = image.shape[dim]
    around = repeat_for_resizing(length, target)
    places = torch.arange(-around, length + around, device=image.device) % length
    before = around * target // length
    size = list(image.shape[2:])
    size[dim - 2] = target + 2 * before
    larger = resize_bicubic(image.index_select(dim, places), output_size=(size[0], size[1]))
    return larger.narrow(dim, before, target)
