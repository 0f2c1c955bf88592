"""MATLAB's ``imresize`` with its default bicubic kernel and antialiasing.

An axis is resampled by a banded matrix (few neighbours per output pixel). It is applied in
blocks, each a small dense matrix product, which is the fastest way a CPU knows to do it and
which works alike for every factor.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from escsr.errors import ImageSizeError, ImageValueError

_BLOCK = 16
"""Output pixels per matrix product: larger wastes products with zeros, smaller wastes calls."""


def resize_bicubic(
    image: Tensor, *, scale: float | None = None, output_size: tuple[int, int] | None = None
) -> Tensor:
    """Resize as MATLAB's ``imresize(image, scale)`` does on floating-point images.

    Cubic kernel with a = -0.5, widened when shrinking, borders mirrored with the edge pixel
    repeated.

    Args:
        image: (B, C, H, W), floating point, any range.
        scale: factor > 0; the result is (ceil(H * scale), ceil(W * scale)).
        output_size: (height, width) instead of ``scale``; each axis gets its own factor.
    Returns:
        (B, C, H', W'), same dtype and device, not clamped.
    Raises:
        ImageValueError: not a floating-point (B, C, H, W) tensor, or not exactly one of
            ``scale`` and ``output_size``.
        ImageSizeError: a side, the factor or the result is not positive.
    """
    if image.ndim != 4 or not image.is_floating_point():
        raise ImageValueError(
            f"resize_bicubic needs a floating-point tensor (B, C, H, W); came {image.dtype} of "
            f"shape {tuple(image.shape)}."
        )
    height, width = int(image.shape[2]), int(image.shape[3])
    rows, columns = _plan(height, width, scale, output_size)
    # MATLAB starts with the axis that shrinks most, and with the first one where both are equal.
    if rows[1] <= columns[1]:
        return _resample(_resample(image, 2, rows), 3, columns)
    return _resample(_resample(image, 3, columns), 2, rows)


def resize_bicubic_uint8(
    pixels: npt.NDArray[np.uint8] | Tensor, *, scale: float
) -> npt.NDArray[np.uint8]:
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
    values = pixels if isinstance(pixels, Tensor) else torch.tensor(pixels)
    if values.dtype != torch.uint8 or values.ndim not in (2, 3):
        raise ImageValueError(
            f"resize_bicubic_uint8 needs uint8 pixels (H, W, C); came {values.dtype} of shape "
            f"{tuple(values.shape)}. Use resize_bicubic for floating point."
        )
    values = values.cpu()
    rows, columns = _plan(int(values.shape[0]), int(values.shape[1]), scale, None)
    vertical = _resample_rows_uint8(values, rows)
    # Columns are resampled as rows of the transposed image: long rows make fast products.
    result = _resample_rows_uint8(vertical.transpose(0, 1), columns).transpose(0, 1)
    return np.ascontiguousarray(result.numpy())


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


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel, a = -0.5."""
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))


def _contributions(length: int, plan: _AxisPlan) -> tuple[Tensor, Tensor]:
    """Return which input pixels make each output pixel, and by how much.

    Returns:
        indices (out, taps) in 0..length-1 and weights (out, taps), float64, rows summing to 1.
    """
    out_length, scale = plan
    shrink = min(scale, 1.0)
    support = 4.0 / shrink
    position = torch.arange(1, out_length + 1, dtype=torch.float64)
    centre = position / scale + 0.5 * (1.0 - 1.0 / scale)
    taps = math.ceil(support) + 2
    left = torch.floor(centre - support / 2.0)
    source = left[:, None] + torch.arange(taps, dtype=torch.float64)
    weights = shrink * _cubic(shrink * (centre[:, None] - source))
    weights = weights / weights.sum(dim=1, keepdim=True)
    mirrored = torch.remainder(source.long() - 1, 2 * length)
    indices = torch.where(mirrored < length, mirrored, 2 * length - 1 - mirrored)
    used = (weights != 0).any(dim=0)
    return indices[:, used], weights[:, used]


def _blocks(length: int, plan: _AxisPlan) -> list[tuple[int, int, Tensor]]:
    """Cut the banded matrix of an axis into dense blocks of output pixels.

    Returns:
        Per block: first and last-plus-one input pixel, and its (outputs, inputs) float64 matrix.
    """
    indices, weights = _contributions(length, plan)
    blocks: list[tuple[int, int, Tensor]] = []
    for start in range(0, plan[0], _BLOCK):
        index, weight = indices[start : start + _BLOCK], weights[start : start + _BLOCK]
        first, last = int(index.min()), int(index.max()) + 1
        matrix = torch.zeros(index.shape[0], last - first, dtype=torch.float64)
        # Mirroring can name an input pixel twice, so weights add up instead of overwriting.
        blocks.append((first, last, matrix.scatter_add_(1, index - first, weight)))
    return blocks


def _resample(image: Tensor, axis: int, plan: _AxisPlan) -> Tensor:
    """Resample axis 2 (rows) or 3 (columns) of a (B, C, H, W) tensor."""
    parts: list[Tensor] = []
    for first, last, matrix in _blocks(int(image.shape[axis]), plan):
        weights = matrix.to(dtype=image.dtype, device=image.device)
        part = image.narrow(axis, first, last - first)
        parts.append(weights @ part if axis == 2 else part @ weights.T)
    return torch.cat(parts, dim=axis)


def _resample_rows_uint8(pixels: Tensor, plan: _AxisPlan) -> Tensor:
    """Resample axis 0 of (H, W, ...) uint8 and round halves up, as MATLAB's uint8() does.

    float64, since a float32 product may be computed in bfloat16 where a program allows that.
    """
    flat = pixels.reshape(pixels.shape[0], -1)
    result = torch.empty(plan[0], flat.shape[1], dtype=torch.uint8)
    start = 0
    for first, last, weights in _blocks(int(flat.shape[0]), plan):
        values = weights @ flat[first:last].to(torch.float64)
        stop = start + weights.shape[0]
        # The conversion truncates, which rounds a value that is never negative.
        result[start:stop] = values.add_(0.5).clamp_(0, 255)
        start = stop
    return result.reshape(plan[0], *pixels.shape[1:])
