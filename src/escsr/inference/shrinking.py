"""Bring what the networks made down to the size asked for."""

import numpy as np
import torch
from torch import Tensor

from escsr.images.resize import resize_bicubic
from escsr.images.writer import resize_pixels
from escsr.inference.planes import Pixels


def shrink_pixels(pixels: Pixels, *, width: int, height: int) -> Pixels:
    """Resize with antialiasing: Lanczos for integers, bicubic for floating point.

    Args:
        pixels: (H, W, C) uint8, uint16 or float32 in [0, 1]; each channel by itself, since the
            colours that networks make go on where opacity ends.
        width: of the result.
        height: of the result.
    """
    if pixels.dtype != np.float32:
        return resize_pixels(pixels, width=width, height=height, weighs_opacity=False)
    planes = torch.as_tensor(pixels).permute(2, 0, 1)[None]
    small = shrink_tensor(planes, width=width, height=height)
    return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())


def shrink_tensor(image: Tensor, *, width: int, height: int) -> Tensor:
    """Resize with an antialiased bicubic kernel, to (B, C, height, width) in [0, 1]."""
    return resize_bicubic(image, output_size=(height, width)).clamp(0, 1)
