"""BT.601 luma, and colour multiplied by its opacity."""

import torch
from torch import Tensor

from escsr.errors import ImageValueError

_LUMA_WEIGHTS = (65.481, 128.553, 24.966)
"""Weights of R, G, B in [0, 1] that give Y of BT.601 in 16..235, before the offset of 16."""


def rgb_to_luma(image: Tensor) -> Tensor:
    """Convert RGB to the luma (Y) of BT.601 in studio range, without rounding it.

    Args:
        image: (B, 3, H, W) RGB in [0, 1], floating point.
    Returns:
        (B, 1, H, W) in [16/255, 235/255]; same dtype and device.
    Raises:
        ImageValueError: not floating point, or not three channels.
    Source: ITU-R BT.601, as MATLAB's ``rgb2ycbcr`` computes it.
    """
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise ImageValueError(
            f"Luma needs a floating-point tensor (B, 3, H, W); came {image.dtype} of shape "
            f"{tuple(image.shape)}. Repeat a grey channel three times first."
        )
    weights = torch.tensor(_LUMA_WEIGHTS, dtype=image.dtype, device=image.device)
    return ((image * weights.view(1, 3, 1, 1)).sum(dim=1, keepdim=True) + 16.0) / 255.0


def premultiply(colour: Tensor, alpha: Tensor) -> Tensor:
    """Weigh colour by its opacity, so that hidden colours cannot bleed into visible ones.

    Args:
        colour: (B, C, H, W), straight (not premultiplied), floating point.
        alpha: (B, 1, H, W) in [0, 1].
    Returns:
        (B, C, H, W), premultiplied.
    """
    return colour * alpha


def unpremultiply(colour: Tensor, alpha: Tensor) -> Tensor:
    """Divide colour by its opacity again.

    Args:
        colour: (B, C, H, W), premultiplied, floating point.
        alpha: (B, 1, H, W) in [0, 1].
    Returns:
        (B, C, H, W), straight and in [0, 1]; 0 where alpha is 0, since nothing is to be seen there.
    """
    visible = alpha > 0
    straight = colour / torch.where(visible, alpha, torch.ones_like(alpha))
    return torch.where(visible, straight, torch.zeros_like(straight)).clamp(0.0, 1.0)
