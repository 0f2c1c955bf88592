"""Unsharp masking, which makes the targets of real-world training a little sharper than photos."""

import torch
from torch import Tensor

from escsr.model.padding import reflected_positions
from escsr.shapes import ImageBatch

_SIDE_PIXELS = 51
_SIGMA = 0.3 * ((_SIDE_PIXELS - 1) * 0.5 - 1) + 0.8
"""OpenCV's rule for a Gaussian of a given side: here 8 pixels."""


def sharpen(images: ImageBatch, *, weight: float = 0.5, threshold: float = 10.0) -> ImageBatch:
    """Add ``weight`` times what a wide Gaussian takes away, where that is more than noise.

    The mask of places that differ from the blurred image by more than ``threshold`` is blurred
    itself, so that sharpening fades in.

    Args:
        images: (B, 3, H, W) in [0, 1].
        weight: 0 changes nothing.
        threshold: of a range of 255.
    Returns:
        (B, 3, H, W) in [0, 1].
    Source: Real-ESRGAN, arXiv:2107.10833, section 3.4.
    """
    if weight == 0:
        return images
    residual = images - _softened(images)
    mask = _softened((residual.abs() * 255 > threshold).to(images.dtype))
    sharp = (images + weight * residual).clamp(0, 1)
    return torch.lerp(images, sharp, mask).clamp(0, 1)


def usm_weights() -> Tensor:
    """A row of the Gaussian of unsharp masking, (51,) float64, summing to 1."""
    distances = torch.arange(_SIDE_PIXELS, dtype=torch.float64) - _SIDE_PIXELS // 2
    row = torch.exp(-distances.square() / (2 * _SIGMA**2))
    return row / row.sum()


def _softened(images: ImageBatch) -> ImageBatch:
    """Blur columns, then rows, each by one product: for patches faster than any transform."""
    rows, columns = (
        _blur_matrix(int(side)).to(images.dtype).to(images.device) for side in images.shape[-2:]
    )
    return rows @ images @ columns.T


def _blur_matrix(side: int) -> Tensor:
    """(side, side) float64: what each pixel of an axis gives to each, its ends reflected."""
    reach = _SIDE_PIXELS // 2
    positions = torch.arange(side)[:, None] + torch.arange(-reach, reach + 1)
    sources = reflected_positions(positions.abs(), side)
    weights = usm_weights().expand(side, -1)
    return torch.zeros(side, side, dtype=torch.float64).scatter_add(1, sources, weights)
