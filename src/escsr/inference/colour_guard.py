"""Hold a network to the colours of its source: what a network invents is detail, never a tint."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from escsr.family.axis_view import AxisView
from escsr.inference.flat_regions import Samples
from escsr.shapes import ImageBatch

BLUR_SIGMA_PIXELS = 4.0
"""Standard deviation of the Gaussian that parts tone from detail, in LR pixels. Narrower ones begin
to correct detail, which costs PSNR; wider ones follow a drift that changes over the image less
closely (``docs/fidelity.md`` has the table, ``benchmarks/measure_fidelity.py`` measures it)."""

REACH_PIXELS = math.ceil(3 * BLUR_SIGMA_PIXELS)
"""How far the Gaussian looks, in LR pixels. Less than the overlap of tiles that is taken unless one
is asked for, so where it is cut off by a tile's border the neighbour's pixels count most."""


def keep_colours(
    sr_image: ImageBatch,
    lr_image: ImageBatch,
    *,
    sigma_pixels: float = BLUR_SIGMA_PIXELS,
    views: tuple[AxisView, ...] | None = None,
) -> ImageBatch:
    """Give a result the low frequencies of its source; its high frequencies stay as they are.

    ``S + up(blur(L - down(S)))``: ``down`` is the mean of each LR pixel's rectangle of what will
    be seen of S, that is within [0, 1]; ``up`` is bilinear. What overshoots [0, 1] stays beyond, so
    that white stays white.

    Args:
        sr_image: S, (B, 3, H', W') float32, not clamped, H' >= H and W' >= W.
        lr_image: L, (B, 3, H, W) float32 in [0, 1], on the same device.
        sigma_pixels: of the Gaussian, in LR pixels.
        views: which rows and columns of a whole result S is, where the factor is not whole and L
            a part of the image; else S covers L from border to border.
    Returns:
        (B, 3, H', W'), not clamped; NaN and Inf stay where they were and spread no
        further than the Gaussian reaches.
    """
    if views is not None and any(view.output_length % view.length for view in views):
        return _keep_colours_of_part(sr_image, lr_image, sigma_pixels, views)
    seen = _mean_per_pixel(sr_image.clamp(0, 1), lr_image)
    drift = blur(lr_image - seen, sigma_pixels)
    if sr_image.is_contiguous(memory_format=torch.channels_last):
        # Interpolating and adding are nearly twice as fast where both lie alike in memory.
        drift = drift.contiguous(memory_format=torch.channels_last)
    size = sr_image.shape[-2:]
    return F.interpolate(drift, size=size, mode="bilinear", align_corners=False).add_(sr_image)


def _keep_colours_of_part(
    sr_image: ImageBatch, lr_image: ImageBatch, sigma_pixels: float, views: tuple[AxisView, ...]
) -> ImageBatch:
    """The same where edges of pixels of both images lie as the whole image says."""
    seen = sr_image.clamp(0, 1)
    for dim, view in zip((2, 3), views, strict=True):
        seen = _mean_of_stretches(seen, dim, view, lr_image.shape[dim])
    drift = blur(lr_image - seen, sigma_pixels)
    for dim, view in zip((2, 3), views, strict=True):
        place = torch.arange(view.first, view.stop, dtype=torch.float64, device="cpu")
        position = (place + 0.5) * (view.length / view.output_length) - 0.5 - view.start
        samples = Samples.at(position, length=lr_image.shape[dim], device=drift.device)
        drift = samples.interpolated(drift, dim)
    return drift + sr_image


def _mean_of_stretches(values: Tensor, dim: int, view: AxisView, length: int) -> Tensor:
    """Means over the pixels of a part of an image, by differences of running sums."""
    pixel = torch.arange(view.start, view.start + length, device="cpu")
    start = pixel * view.output_length // view.length - view.first
    stop = -(-(pixel + 1) * view.output_length // view.length) - view.first
    # At the borders of a part, rounding may leave a pixel less than its own.
    stop = stop.clamp(1, view.num_pixels)
    start = torch.minimum(start.clamp(min=0), stop - 1)
    # Apple's devices have no float64.
    sums = (values if values.device.type == "mps" else values.double()).cumsum(dim)
    sums = torch.cat((torch.zeros_like(sums.narrow(dim, 0, 1)), sums), dim=dim)
    count = (stop - start).reshape([-1 if axis == dim else 1 for axis in range(values.dim())])
    start, stop, count = (index.to(values.device) for index in (start, stop, count))
    return ((sums.index_select(dim, stop) - sums.index_select(dim, start)) / count).float()


def _mean_per_pixel(sr_image: ImageBatch, lr_image: ImageBatch) -> ImageBatch:
    """The mean over each LR pixel; where the factor is not whole, of all pixels that it touches."""
    (height, width), (rows, columns) = sr_image.shape[-2:], lr_image.shape[-2:]
    if height % rows or width % columns:
        return F.adaptive_avg_pool2d(sr_image, (rows, columns))
    return F.avg_pool2d(sr_image, (height // rows, width // columns))


def blur(image: ImageBatch, sigma_pixels: float = BLUR_SIGMA_PIXELS) -> ImageBatch:
    """Average with Gaussian weights those neighbours that exist, so borders are not darkened.

    (B, 3, H, W) -> (B, 3, H, W); it looks ``REACH_PIXELS`` far with ``BLUR_SIGMA_PIXELS``.
    """
    kernel = _gaussian(sigma_pixels, image.device).to(image.dtype)
    planes = image.flatten(0, 1).unsqueeze(1)
    weight = _convolve(torch.ones_like(planes[:1]), kernel)
    return _convolve(planes, kernel).div_(weight).view(image.shape)


def _convolve(planes: Tensor, kernel: Tensor) -> Tensor:
    """Filter rows and columns of (N, 1, H, W) with one kernel; beyond the borders is nothing."""
    reach = kernel.shape[0] // 2
    rows = F.conv2d(planes, kernel.view(1, 1, -1, 1), padding=(reach, 0))
    return F.conv2d(rows, kernel.view(1, 1, 1, -1), padding=(0, reach))


def _gaussian(sigma_pixels: float, device: torch.device) -> Tensor:
    reach = math.ceil(3 * sigma_pixels)
    offset = torch.arange(-reach, reach + 1, dtype=torch.float32, device=device)
    weights = torch.exp(-(offset**2) / (2 * sigma_pixels**2))
    return weights / weights.sum()
