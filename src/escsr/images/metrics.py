"""PSNR and SSIM as the super-resolution field computes them.

The protocol: round the result to 8 bits (``round_to_8_bit``), convert both images to the luma of
BT.601 without rounding it, crop ``scale`` pixels at each border. Everything is computed in float64,
in strips of rows that stay in a processor's cache: memory does not grow with the image.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from escsr.errors import ImageSizeError, ImageValueError
from escsr.images.colour import rgb_to_luma

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_STRIP_PIXELS = 1 << 15
_LEAST_STRIP_ROWS = 16
"""Below this, rows that two strips of SSIM share would be most of the work."""


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
    return _psnr_db(a, b, border_pixels, _luma)


def ssim_y(a: Tensor, b: Tensor, *, border_pixels: int = 0) -> Tensor:
    """Return the structural similarity of the luma of two RGB images.

    Args and errors as in :func:`psnr_y_db`; both sides must be at least 11 pixels after cropping.

    Returns:
        (B,) float64, at most 1.
    """
    return _ssim(a, b, border_pixels, _luma)


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
    return _psnr_db(a, b, border_pixels, Tensor.double)


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
    return _ssim(a, b, border_pixels, Tensor.double)


def round_to_8_bit(image: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to the 256 levels of an 8-bit file.

    Args:
        image: any shape, floating point.
    Returns:
        Same shape and dtype; every value is k/255.
    """
    return torch.floor(image.clamp(0.0, 1.0) * 255.0 + 0.5) / 255.0


_ToPlanes = Callable[[Tensor], Tensor]
"""(B, C, h, w) floating point -> the planes that are compared, float64."""


def _psnr_db(a: Tensor, b: Tensor, border_pixels: int, to_planes: _ToPlanes) -> Tensor:
    a, b = _comparable(a, b, border_pixels, smallest=1)
    total = torch.zeros(a.shape[0], dtype=torch.float64, device=a.device)
    num_values = 0
    for strip_a, strip_b in _strips(a, b, shared_rows=0):
        difference = to_planes(strip_a) - to_planes(strip_b)
        total += difference.square().sum(dim=(1, 2, 3))
        num_values += difference[0].numel()
    return -10.0 * torch.log10(total / num_values)


def _ssim(a: Tensor, b: Tensor, border_pixels: int, to_planes: _ToPlanes) -> Tensor:
    a, b = _comparable(a, b, border_pixels, smallest=_SSIM_WINDOW)
    total = torch.zeros(a.shape[0], dtype=torch.float64, device=a.device)
    num_values = 0
    for strip_a, strip_b in _strips(a, b, shared_rows=_SSIM_WINDOW - 1):
        likeness = _likeness(to_planes(strip_a), to_planes(strip_b))
        total += likeness.sum(dim=(1, 2, 3))
        num_values += likeness[0].numel()
    return total / num_values


def _likeness(a: Tensor, b: Tensor) -> Tensor:
    """SSIM at every position where the window fits wholly: (B, C, H, W) -> (B, C, H-10, W-10)."""
    maps = torch.stack((a, b, a * a + b * b, a * b))
    mean_a, mean_b, mean_squares, mean_product = _windowed_mean(_windowed_mean(maps, -2), -1)
    product, squares = mean_a * mean_b, mean_a * mean_a + mean_b * mean_b
    c1, c2 = 0.01**2, 0.03**2
    # The formula has the two variances as a sum alone, so that one map is enough for both.
    covariance, variances = mean_product - product, mean_squares - squares
    return (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))


def _windowed_mean(maps: Tensor, axis: int) -> Tensor:
    """Filter one axis with the Gaussian window, keeping only positions where it fits wholly.

    The two-dimensional window is the product of two such. A sum of shifted maps, since
    convolutions in float64 have no fast kernel: they copy every map eleven times.
    """
    centre, length = _SSIM_WINDOW // 2, maps.shape[axis] - _SSIM_WINDOW + 1
    gauss = [math.exp(-((k - centre) ** 2) / (2 * _SSIM_SIGMA**2)) for k in range(_SSIM_WINDOW)]
    weights = [value / sum(gauss) for value in gauss]
    result = maps.narrow(axis, centre, length) * weights[centre]
    for step, weight in enumerate(weights[:centre]):
        opposite = maps.narrow(axis, _SSIM_WINDOW - 1 - step, length)
        result.add_(maps.narrow(axis, step, length) + opposite, alpha=weight)
    return result


def _strips(a: Tensor, b: Tensor, *, shared_rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut two images into strips of rows alike; neighbours have ``shared_rows`` in common."""
    rows = max(_LEAST_STRIP_ROWS, _STRIP_PIXELS // int(a.shape[3]))
    for top in range(0, int(a.shape[2]) - shared_rows, rows):
        bottom = top + rows + shared_rows
        yield a[:, :, top:bottom], b[:, :, top:bottom]


def _luma(image: Tensor) -> Tensor:
    return rgb_to_luma(image.double())


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
    return a[window], b[window]
