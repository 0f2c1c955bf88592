"""PSNR and SSIM as the super-resolution field computes them.

The protocol: round the result to 8 bits (``round_to_8_bit``), convert both images to the luma of
BT.601 without rounding it, crop ``scale`` pixels at each border. Everything is computed in float64.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from escsr.errors import ImageSizeError, ImageValueError
from escsr.images.colour import rgb_to_luma

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5


def psnr_y_db(a: Tensor, b: Tensor, *, border_pixels: int = 0) -> Tensor:
    """Return the peak signal-to-noise ratio of the luma of two RGB images.

    Args:
        a: (B, 3, H, W) RGB in [0, 1], already rounded to 8 bits where the protocol asks for it.
        b: same shape.
        border_pixels: cropped on each side before comparing; the field crops ``scale``.
    Returns:
        (B,) float64, in dB relative to a peak of 1; infinite for equal images.
    Raises:
        ImageValueError: shapes differ, or the tensors are not (B, 3, H, W) floating point.
        ImageSizeError: nothing is left after cropping.
    """
    return psnr_db(_luma(a), _luma(b), border_pixels=border_pixels)


def ssim_y(a: Tensor, b: Tensor, *, border_pixels: int = 0) -> Tensor:
    """Return the structural similarity of the luma of two RGB images.

    Args and errors as in :func:`psnr_y_db`; both sides must be at least 11 pixels after cropping.

    Returns:
        (B,) float64, at most 1.
    """
    return ssim(_luma(a), _luma(b), border_pixels=border_pixels)


def psnr_db(a: Tensor, b: Tensor, *, border_pixels: int = 0) -> Tensor:
    """Return the peak signal-to-noise ratio over all channels.

    Args:
        a: (B, C, H, W) in [0, 1], floating point.
        b: same shape.
        border_pixels: cropped on each side before comparing.
    Returns:
        (B,) float64, in dB relative to a peak of 1; infinite for equal images.
    Raises:
        ImageValueError: shapes differ, or the tensors are not (B, C, H, W) floating point.
        ImageSizeError: nothing is left after cropping.
    """
    a, b = _comparable(a, b, border_pixels, smallest=1)
    return -10.0 * torch.log10((a - b).square().mean(dim=(1, 2, 3)))


def ssim(a: Tensor, b: Tensor, *, border_pixels: int = 0) -> Tensor:
    """Return the structural similarity, the mean over channels and valid window positions.

    Args:
        a: (B, C, H, W) in [0, 1], floating point.
        b: same shape.
        border_pixels: cropped on each side before comparing.
    Returns:
        (B,) float64, at most 1.
    Raises:
        ImageValueError: shapes differ, or the tensors are not (B, C, H, W) floating point.
        ImageSizeError: a side is shorter than the 11-pixel window after cropping.
    Source: Wang et al. 2004: Gaussian window 11x11, sigma 1.5, K1 = 0.01, K2 = 0.03.
    """
    a, b = _comparable(a, b, border_pixels, smallest=_SSIM_WINDOW)
    mean_a, mean_b = _windowed_mean(a), _windowed_mean(b)
    variance_a = _windowed_mean(a * a) - mean_a * mean_a
    variance_b = _windowed_mean(b * b) - mean_b * mean_b
    covariance = _windowed_mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    norm = (mean_a * mean_a + mean_b * mean_b + c1) * (variance_a + variance_b + c2)
    return (likeness / norm).mean(dim=(1, 2, 3))


def round_to_8_bit(image: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to the 256 levels of an 8-bit file.

    Args:
        image: any shape, floating point.
    Returns:
        Same shape and dtype; every value is k/255.
    """
    return torch.floor(image.clamp(0.0, 1.0) * 255.0 + 0.5) / 255.0


def _luma(image: Tensor) -> Tensor:
    return rgb_to_luma(image.double() if image.is_floating_point() else image)


def _comparable(
    a: Tensor, b: Tensor, border_pixels: int, *, smallest: int
) -> tuple[Tensor, Tensor]:
    if a.shape != b.shape or a.ndim != 4:
        raise ImageValueError(
            f"Two images can be compared if both are (B, C, H, W) of one shape; came "
            f"{tuple(a.shape)} and {tuple(b.shape)}."
        )
    if not (a.is_floating_point() and b.is_floating_point()):
        raise ImageValueError(
            f"Images to compare are floating point in [0, 1]; came {a.dtype} and {b.dtype}. "
            "Divide uint8 by 255 first."
        )
    height, width = int(a.shape[2]) - 2 * border_pixels, int(a.shape[3]) - 2 * border_pixels
    if border_pixels < 0 or min(height, width) < smallest:
        raise ImageSizeError(
            f"{a.shape[3]}x{a.shape[2]} pixels less {border_pixels} at each border leave "
            f"{width}x{height}; this metric needs at least {smallest}x{smallest}."
        )
    window = (..., slice(border_pixels, border_pixels + height))
    window = (*window, slice(border_pixels, border_pixels + width))
    return a[window].double(), b[window].double()


def _windowed_mean(image: Tensor) -> Tensor:
    """Filter with the Gaussian window, keeping only positions where it fits wholly."""
    offsets = torch.arange(_SSIM_WINDOW, dtype=image.dtype, device=image.device)
    gauss = torch.exp(-((offsets - _SSIM_WINDOW // 2) ** 2) / (2 * _SSIM_SIGMA**2))
    gauss = gauss / gauss.sum()
    planes = image.reshape(-1, 1, image.shape[2], image.shape[3])
    planes = F.conv2d(F.conv2d(planes, gauss.view(1, 1, -1, 1)), gauss.view(1, 1, 1, -1))
    return planes.reshape(*image.shape[:2], *planes.shape[2:])
