"""PSNR and SSIM as the super-resolution field computes them.

The protocol: round the result to 8 bits (``round_to_8_bit``), convert both images to the luma of
BT.601 without rounding it, crop ``scale`` pixels at each border. Everything is computed in float64,
in tiles that stay in a processor's cache: memory does not grow with the image.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from escsr.errors import ImageSizeError, ImageValueError
from escsr.images.colour import rgb_to_luma

_Float = TypeVar("_Float", bound=np.floating[Any])
_Floats = npt.NDArray[np.floating[Any]]
_Float64 = npt.NDArray[np.float64]


def gaussian_window(length: int, sigma: float) -> tuple[float, ...]:
    """Weights of a window of an odd length, which sum to 1."""
    gauss = [math.exp(-((k - length // 2) ** 2) / (2 * sigma**2)) for k in range(length)]
    return tuple(value / sum(gauss) for value in gauss)


_SSIM_WINDOW = gaussian_window(11, 1.5)
_TILE_ROWS, _TILE_COLUMNS = 32, 512
"""So small that BLAS uses one thread, which is done sooner than several could agree."""
_BLOCK_PIXELS = 32
"""Output pixels per matrix product: larger wastes products with zeros, smaller wastes calls."""


def psnr_y_db(a: _Floats, b: _Floats, *, border_pixels: int = 0) -> _Float64:
    """Return the peak signal-to-noise ratio of the luma of two RGB images.

    Args:
        a: (B, 3, H, W) RGB in [0, 1], already rounded to 8 bits where the protocol asks for it.
        b: same shape.
        border_pixels: cropped on each side before comparing; the field crops ``scale``.
    Returns:
        (B,) float64, in dB relative to a peak of 1; infinite for equal images.
    Raises:
        ImageValueError: shapes differ, or the arrays are not (B, 3, H, W) floating point.
        ImageSizeError: nothing is left after cropping.
    """
    return _psnr_db(a, b, border_pixels, _luma)


def ssim_y(a: _Floats, b: _Floats, *, border_pixels: int = 0) -> _Float64:
    """Return the structural similarity of the luma of two RGB images.

    Args and errors as in :func:`psnr_y_db`; both sides must be at least 11 pixels after cropping.

    Returns:
        (B,) float64, at most 1.
    """
    return _ssim(a, b, border_pixels, _luma)


def psnr_db(a: _Floats, b: _Floats, *, border_pixels: int = 0) -> _Float64:
    """Return the peak signal-to-noise ratio over all channels.

    Args:
        a: (B, C, H, W) in [0, 1], floating point.
        b: same shape.
        border_pixels: cropped on each side before comparing.
    Returns:
        (B,) float64, in dB relative to a peak of 1; infinite for equal images.
    Raises:
        ImageValueError: shapes differ, or the arrays are not (B, C, H, W) floating point.
        ImageSizeError: nothing is left after cropping.
    """
    return _psnr_db(a, b, border_pixels, _as_float64)


def ssim(a: _Floats, b: _Floats, *, border_pixels: int = 0) -> _Float64:
    """Return the structural similarity, the mean over channels and valid window positions.

    Args:
        a: (B, C, H, W) in [0, 1], floating point.
        b: same shape.
        border_pixels: cropped on each side before comparing.
    Returns:
        (B,) float64, at most 1.
    Raises:
        ImageValueError: shapes differ, or the arrays are not (B, C, H, W) floating point.
        ImageSizeError: a side is shorter than the 11-pixel window after cropping.
    Source: Wang et al. 2004: Gaussian window 11x11, sigma 1.5, K1 = 0.01, K2 = 0.03.
    """
    return _ssim(a, b, border_pixels, _as_float64)


def round_to_8_bit(image: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
    """Clamp to [0, 1] and round to the 256 levels of an 8-bit file.

    Args:
        image: any shape, floating point.
    Returns:
        Same shape and dtype; every value is k/255.
    """
    levels = np.floor(image.clip(0.0, 1.0) * 255.0 + 0.5)
    return np.divide(levels, 255.0, dtype=image.dtype)


_ToPlanes = Callable[[_Floats], _Float64]
"""(B, C, h, w) floating point -> the planes that are compared."""


def _psnr_db(a: _Floats, b: _Floats, border_pixels: int, to_planes: _ToPlanes) -> _Float64:
    a, b = _comparable(a, b, border_pixels, smallest=1)
    total = np.zeros(a.shape[0])
    num_values = 0
    for tile_a, tile_b in _tiles(a, b, shared_pixels=0):
        difference = to_planes(tile_a)
        difference -= to_planes(tile_b)
        total += np.einsum("bchw,bchw->b", difference, difference)
        num_values += difference[0].size
    with np.errstate(divide="ignore"):
        return -10.0 * np.log10(total / num_values)


def _ssim(a: _Floats, b: _Floats, border_pixels: int, to_planes: _ToPlanes) -> _Float64:
    a, b = _comparable(a, b, border_pixels, smallest=len(_SSIM_WINDOW))
    total = np.zeros(a.shape[0])
    num_values = 0
    for tile_a, tile_b in _tiles(a, b, shared_pixels=len(_SSIM_WINDOW) - 1):
        likeness = _likeness(to_planes(tile_a), to_planes(tile_b))
        total += likeness.sum(axis=(1, 2, 3))
        num_values += likeness[0].size
    return total / num_values


def _likeness(a: _Float64, b: _Float64) -> _Float64:
    """SSIM at every position where the window fits wholly: (B, C, H, W) -> (B, C, H-10, W-10)."""
    maps = np.stack((a, b, a * a + b * b, a * b))
    mean_a, mean_b, mean_squares, mean_product = windowed_mean(maps, _SSIM_WINDOW)
    product, squares = mean_a * mean_b, mean_a * mean_a + mean_b * mean_b
    c1, c2 = 0.01**2, 0.03**2
    # The formula has the two variances as a sum alone, so that one map is enough for both.
    covariance, variances = mean_product - product, mean_squares - squares
    return (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))


def windowed_mean(planes: _Float64, window: tuple[float, ...]) -> _Float64:
    """Filter planes with the outer product of a window with itself, where it fits wholly.

    By products of small dense matrices, which are several times faster than sums of shifted planes.

    Args:
        planes: (..., H, W) float64, both sides at least as long as the window.
        window: weights of one axis.
    Returns:
        (..., H - length + 1, W - length + 1).
    """
    rest = len(window) - 1
    height, width = planes.shape[-2] - rest, planes.shape[-1] - rest
    result = np.empty((*planes.shape[:-2], height, width))
    for top in range(0, height, _BLOCK_PIXELS):
        bottom = min(top + _BLOCK_PIXELS, height)
        rows = _window_matrix(window, bottom - top) @ planes[..., top : bottom + rest, :]
        for left in range(0, width, _BLOCK_PIXELS):
            right = min(left + _BLOCK_PIXELS, width)
            columns = _window_matrix(window, right - left).T
            result[..., top:bottom, left:right] = rows[..., left : right + rest] @ columns
    return result


@lru_cache(maxsize=2 * _BLOCK_PIXELS)
def _window_matrix(window: tuple[float, ...], length: int) -> _Float64:
    """(length, length + window - 1): row i has the window from column i on."""
    matrix = np.zeros((length, length + len(window) - 1))
    for step, weight in enumerate(window):
        matrix[np.arange(length), np.arange(length) + step] = weight
    return matrix


def _tiles(a: _Floats, b: _Floats, *, shared_pixels: int) -> Iterator[tuple[_Floats, _Floats]]:
    """Cut two images into tiles alike; neighbours have ``shared_pixels`` in common."""
    for top in range(0, a.shape[2] - shared_pixels, _TILE_ROWS):
        rows = slice(top, top + _TILE_ROWS + shared_pixels)
        for left in range(0, a.shape[3] - shared_pixels, _TILE_COLUMNS):
            columns = slice(left, left + _TILE_COLUMNS + shared_pixels)
            yield a[:, :, rows, columns], b[:, :, rows, columns]


def _luma(image: _Floats) -> _Float64:
    return rgb_to_luma(_as_float64(image))


def _as_float64(image: _Floats) -> _Float64:
    return image.astype(np.float64)


def _comparable(
    a: _Floats, b: _Floats, border_pixels: int, *, smallest: int
) -> tuple[_Floats, _Floats]:
    if a.shape != b.shape or a.ndim != 4:
        raise ImageValueError(
            f"Two images can be compared if both are (B, C, H, W) of one shape; came "
            f"{a.shape} and {b.shape}."
        )
    if not a.dtype.kind == b.dtype.kind == "f":
        raise ImageValueError(
            f"Images to compare are floating point in [0, 1]; came {a.dtype} and {b.dtype}. "
            "Divide uint8 by 255 first."
        )
    height, width = (side - 2 * border_pixels for side in a.shape[2:])
    if border_pixels < 0 or min(height, width) < smallest:
        raise ImageSizeError(
            f"{a.shape[3]}x{a.shape[2]} pixels less {border_pixels} at each border leave "
            f"{width}x{height}; this metric needs at least {smallest}x{smallest}."
        )
    window = (..., slice(border_pixels, border_pixels + height))
    window = (*window, slice(border_pixels, border_pixels + width))
    return a[window], b[window]
