"""MATLAB's ``imresize`` with its default bicubic kernel and antialiasing.

An axis is resampled by a banded matrix (few neighbours per output pixel). It is applied in
blocks, each a small dense matrix product, which is the fastest way a CPU knows to do it and
which works alike for every factor.
"""

import math
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from escsr.errors import ImageSizeError, ImageValueError

_Float = TypeVar("_Float", bound=np.floating[Any])
_Float64 = npt.NDArray[np.float64]

_BLOCK = 16
"""Output pixels per matrix product: larger wastes products with zeros, smaller wastes calls."""

_PRODUCTS_AT_ONCE = 1 << 19
"""Multiplications per matrix product: operands stay in the cache, and BLAS uses one thread, which
is done sooner than several could agree on so little."""


def resize_bicubic(
    image: npt.NDArray[_Float],
    *,
    scale: float | None = None,
    output_size: tuple[int, int] | None = None,
) -> npt.NDArray[_Float]:
    """Resize as MATLAB's ``imresize(image, scale)`` does on floating-point images.

    Cubic kernel with a = -0.5, widened when shrinking, borders mirrored with the edge pixel
    repeated.

    Args:
        image: (B, C, H, W), floating point, any range.
        scale: factor > 0; the result is (ceil(H * scale), ceil(W * scale)).
        output_size: (height, width) instead of ``scale``; each axis gets its own factor.
    Returns:
        (B, C, H', W'), same dtype, not clamped.
    Raises:
        ImageValueError: not a floating-point (B, C, H, W) array, or not exactly one of
            ``scale`` and ``output_size``.
        ImageSizeError: a side, the factor or the result is not positive.
    """
    if image.ndim != 4 or image.dtype.kind != "f":
        raise ImageValueError(
            f"resize_bicubic needs a floating-point array (B, C, H, W); came {image.dtype} of "
            f"shape {image.shape}."
        )
    height, width = image.shape[2:]
    rows, columns = _plan(height, width, scale, output_size)
    # MATLAB starts with the axis that shrinks most, and with the first one where both are equal.
    if rows[1] <= columns[1]:
        return _resample_columns(_resample_rows(image, rows), columns)
    return _resample_rows(_resample_columns(image, columns), rows)


def resize_bicubic_uint8(pixels: npt.NDArray[np.uint8], *, scale: float) -> npt.NDArray[np.uint8]:
    """Resize 8-bit pixels as MATLAB does: axis 0, round to uint8, axis 1, round to uint8.

    The rounding in the middle is what common ports leave out; with it, the LR images of the
    field's test sets come out pixel-identical.

    Args:
        pixels: (H, W, C) or (H, W), uint8.
        scale: factor > 0.
    Returns:
        (ceil(H * scale), ceil(W * scale), C) uint8; without C if it came without.
    Raises:
        ImageValueError: not uint8, or not two or three axes.
        ImageSizeError: a side or the factor is not positive.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ImageValueError(
            f"resize_bicubic_uint8 needs uint8 pixels (H, W, C); came {pixels.dtype} of shape "
            f"{pixels.shape}. Use resize_bicubic for floating point."
        )
    rows, columns = _plan(pixels.shape[0], pixels.shape[1], scale, None)
    vertical = _resample_rows_uint8(pixels, rows)
    # Columns are resampled as rows of the transposed image: long rows make fast products.
    result = _resample_rows_uint8(vertical.swapaxes(0, 1), columns).swapaxes(0, 1)
    return np.ascontiguousarray(result)


_AxisPlan = tuple[int, float]
"""Output length in pixels, and the factor."""


def _plan(
    height: int, width: int, scale: float | None, output_size: tuple[int, int] | None
) -> tuple[_AxisPlan, _AxisPlan]:
    if (scale is None) == (output_size is None):
        raise ImageValueError("Give either scale or output_size (height, width), not both or none.")
    if height < 1 or width < 1:
        raise ImageSizeError(f"Cannot resize an image of {width}x{height} pixels; it is empty.")
    if output_size is not None:
        if min(output_size) < 1:
            raise ImageSizeError(f"output_size is {output_size}; both sides must be at least 1.")
        return (output_size[0], output_size[0] / height), (output_size[1], output_size[1] / width)
    factor = float(scale or 0.0)
    if not (math.isfinite(factor) and factor > 0):
        raise ImageSizeError(f"scale is {scale}; it must be a positive number.")
    # Differs: MATLAB makes ceil(0.1 * 30) = 4 of 3.0000000000000004; a rounding error is no pixel
    # here (test_resize.py::test_a_rounding_error_of_the_factor_adds_no_pixel).
    out_height, out_width = (math.ceil(round(side * factor, 9)) for side in (height, width))
    return (out_height, factor), (out_width, factor)


def _cubic(distance: _Float64) -> _Float64:
    """Keys' cubic convolution kernel, a = -0.5."""
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _contributions(length: int, plan: _AxisPlan) -> tuple[npt.NDArray[np.int64], _Float64]:
    """Return which input pixels make each output pixel, and by how much.

    Returns:
        indices (out, taps) in 0..length-1 and weights (out, taps), rows summing to 1.
    """
    out_length, scale = plan
    shrink = min(scale, 1.0)
    support = 4.0 / shrink
    position = np.arange(1, out_length + 1, dtype=np.float64)
    centre = position / scale + 0.5 * (1.0 - 1.0 / scale)
    taps = math.ceil(support) + 2
    left = np.floor(centre - support / 2.0)
    source = left[:, None] + np.arange(taps)
    weights = shrink * _cubic(shrink * (centre[:, None] - source))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = (source.astype(np.int64) - 1) % (2 * length)
    indices = np.where(mirrored < length, mirrored, 2 * length - 1 - mirrored)
    used = weights.any(axis=0)
    return indices[:, used], weights[:, used]


def _blocks(length: int, plan: _AxisPlan) -> Iterator[tuple[slice, slice, _Float64]]:
    """Cut the banded matrix of an axis into dense blocks of output pixels.

    Yields:
        Per block: its output pixels, its input pixels, and its (outputs, inputs) matrix.
    """
    indices, weights = _contributions(length, plan)
    for start in range(0, plan[0], _BLOCK):
        index, weight = indices[start : start + _BLOCK], weights[start : start + _BLOCK]
        first, last = int(index.min()), int(index.max()) + 1
        matrix = np.zeros((len(index), last - first))
        # Mirroring can name an input pixel twice, so weights add up instead of overwriting.
        np.add.at(matrix, (np.arange(len(index))[:, None], index - first), weight)
        yield slice(start, start + len(index)), slice(first, last), matrix


def _resample_rows(image: npt.NDArray[_Float], plan: _AxisPlan) -> npt.NDArray[_Float]:
    """Resample axis 2 of a (B, C, H, W) array."""
    result = np.empty((*image.shape[:2], plan[0], image.shape[3]), image.dtype)
    for made, needed, matrix in _blocks(image.shape[2], plan):
        weights = matrix.astype(image.dtype)
        for strip in _strips(image.shape[3], matrix):
            np.matmul(weights, image[:, :, needed, strip], out=result[:, :, made, strip])
    return result


def _resample_columns(image: npt.NDArray[_Float], plan: _AxisPlan) -> npt.NDArray[_Float]:
    """Resample axis 3 of a (B, C, H, W) array."""
    result = np.empty((*image.shape[:3], plan[0]), image.dtype)
    for made, needed, matrix in _blocks(image.shape[3], plan):
        weights = matrix.T.astype(image.dtype)
        for strip in _strips(image.shape[2], matrix):
            np.matmul(image[:, :, strip, needed], weights, out=result[:, :, strip, made])
    return result


def _resample_rows_uint8(pixels: npt.NDArray[np.uint8], plan: _AxisPlan) -> npt.NDArray[np.uint8]:
    """Resample axis 0 of (H, W, ...) and round halves up, as MATLAB's uint8() does."""
    flat = pixels.reshape(pixels.shape[0], -1)
    result = np.empty((plan[0], flat.shape[1]), np.uint8)
    for made, needed, matrix in _blocks(len(flat), plan):
        for strip in _strips(flat.shape[1], matrix):
            values = matrix @ flat[needed, strip].astype(np.float64)
            values += 0.5
            # The conversion truncates, which rounds a value that is never negative.
            result[made, strip] = np.clip(values, 0, 255, out=values)
    return result.reshape(plan[0], *pixels.shape[1:])


def _strips(length: int, matrix: _Float64) -> Iterator[slice]:
    """Cut the axis that is not resampled so that each matrix product is small."""
    step = max(1, _PRODUCTS_AT_ONCE // matrix.size)
    return (slice(start, start + step) for start in range(0, length, step))
