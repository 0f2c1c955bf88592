"""Bring what the networks made down to the size asked for."""

import numpy as np
import torch
from torch import Tensor

from escsr.images.colour import premultiply, unpremultiply
from escsr.images.resize import resize_bicubic
from escsr.images.writer import resize_pixels
from escsr.inference.planes import Pixels


def shrink_pixels(pixels: Pixels, *, width: int, height: int) -> Pixels:
    """Resize with antialiasing: Lanczos for integers, bicubic for floating point.

    Args:
        pixels: (H, W, C) uint8, uint16 or float32 in [0, 1]; C = 2 and 4 end in straight alpha.
        width: of the result.
        height: of the result.
    """
    if pixels.dtype != np.float32:
        return resize_pixels(pixels, width=width, height=height)
    planes = torch.as_tensor(pixels).permute(2, 0, 1)[None]
    if pixels.shape[2] in (2, 4):
        alpha = planes[:, -1:]
        weighed = torch.cat((premultiply(planes[:, :-1], alpha), alpha), dim=1)
        small = shrink_tensor(weighed, width=width, height=height)
        alpha = small[:, -1:]
        small = torch.cat((unpremultiply(small[:, :-1], alpha), alpha), dim=1)
    else:
        small = shrink_tensor(planes, width=width, height=height)
    return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())


def shrink_tensor(image: Tensor, *, width: int, height: int) -> Tensor:
    """Resize with an antialiased bicubic kernel, to (B, C, height, width) in [0, 1]."""
    return resize_bicubic(image, output_size=(height, width)).clamp(0, 1)
