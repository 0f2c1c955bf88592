"""NIQE: how natural an image looks, told without a reference.

The pixels of a photograph, less their local mean and divided by their local deviation, follow much
the same distribution in every natural photograph. Blur, noise and compression change its shape.
NIQE describes the patches of an image by that shape and measures how far they lie from those of
good photographs.

Legend, beside ``escsr.shapes``: P patches of an image, N samples of one of them.

Source: Mittal, Soundararajan, Bovik, "Making a completely blind image quality analyzer", 2013.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from escsr.errors import ImageSizeError, ImageValueError
from escsr.evaluation.niqe_parameters import NiqeParameters
from escsr.images.resize import resize_bicubic
from escsr.shapes import ImageBatch

PATCH_PIXELS = 96
"""Side of a patch; what is left over at the right and bottom is not looked at."""

LEAST_PATCHES = 2
"""Of an image: one alone has no covariance."""

_WINDOW_PIXELS = 7
_WINDOW_SIGMA = 7 / 6
_ROUNDING_REST = 1e-9
"""In levels of 255: less than any difference of pixels leaves under the window, more than float64
rounds away."""

_GREY_WEIGHTS = (0.298936021293776, 0.587043074451121, 0.114020904255103)
"""Of R, G and B in the luma of BT.601 over the full range, as MATLAB's ``rgb2gray`` has them."""

_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Steps (down, right) between the two coefficients of a pair."""


@dataclass(frozen=True, slots=True)
class PatchStatistics:
    """What an image's patches look like, row by row of the image."""

    features: Tensor
    """(P, 36) float64: 18 at full size, then 18 at half. NaN in patches without texture."""
    sharpness: Tensor
    """(P,) float64: mean local deviation, in levels of 255."""


def niqe(image: ImageBatch, parameters: NiqeParameters) -> float:
    """Measure how far an image lies from natural photographs; 0 is nearest.

    The luma of BT.601 over the full range 0 to 255 is rounded to integers, as in the authors'
    program. (BasicSR's is from 16 to 235; pyiqa's weights have three digits, which rounds 1 % of
    the pixels differently and moved values by up to 0.03.) Borders are extended by repeating the
    edge pixel; the half size is MATLAB's bicubic with antialiasing. All is float64 on the CPU.

    Args:
        image: (1, 3, H, W) in [0, 1], rounded to 8 bits where the protocol asks for it; at least
            192x96 or 96x192 pixels.
        parameters: what natural photographs look like. Values measured with different parameters
            cannot be compared; published values use the authors' own.
    Returns:
        The distance, at least 0; low is good.
    Raises:
        ImageSizeError: fewer than two patches of 96x96.
        ImageValueError: another shape or type, NaN, or hardly any texture (a constant image).
    """
    mean, covariance = fit_gaussian(describe_patches(image).features)
    difference = mean - parameters.mean
    # An image has fewer patches than features, so the inverse may not exist.
    inverse = torch.linalg.pinv((covariance + parameters.covariance) / 2, hermitian=True)
    return float((difference @ inverse @ difference).clamp(min=0).sqrt())


def fit_gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a multivariate Gaussian to patches.

    As in the authors' program, a patch where only some features are numbers counts for the mean of
    those, and not for the covariance.

    Args:
        features: (P, 36), with NaN where a patch has no texture.
    Returns:
        Mean (36,) and covariance (36, 36).
    Raises:
        ImageValueError: fewer than two patches have texture.
    """
    complete = features[features.isfinite().all(dim=1)]
    if len(complete) < LEAST_PATCHES:
        raise ImageValueError(
            f"NIQE needs texture in at least {LEAST_PATCHES} patches of {PATCH_PIXELS}x"
            f"{PATCH_PIXELS} pixels; here {len(complete)} of {len(features)} have it, and the "
            "others are constant. Leave the image out."
        )
    return features.nanmean(dim=0), complete.T.cov()


def describe_patches(image: ImageBatch) -> PatchStatistics:
    """Cut an image into patches and describe each by its natural-scene statistics.

    Args and errors as in :func:`niqe`.
    """
    grey = _whole_patches(_grey_levels(image))
    coefficients, deviation = normalize_contrast(grey)
    half_coefficients, _ = normalize_contrast(
        torch.from_numpy(resize_bicubic(grey.numpy(), scale=0.5))
    )
    full = _scene_statistics(_cut_patches(coefficients, PATCH_PIXELS))
    half = _scene_statistics(_cut_patches(half_coefficients, PATCH_PIXELS // 2))
    sharpness = _cut_patches(deviation, PATCH_PIXELS).mean(dim=(1, 2))
    return PatchStatistics(torch.cat((full, half), dim=1), sharpness)


def normalize_contrast(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract the local mean and divide by the local deviation plus 1 (MSCN coefficients).

    Differs: what rounding leaves of a constant area is set to 0, since the fit counts signs, and
    the sign of such a rest depends on the machine (test_niqe.py::test_a_constant_area_is_zero).

    Args:
        grey: (1, 1, H, W) float64, 0 to 255.
    Returns:
        The coefficients and the local deviation, both (1, 1, H, W).
    """
    mean = _local_mean(grey)
    # Rounding can leave a constant area a little below zero.
    deviation = (_local_mean(grey * grey) - mean * mean).abs().sqrt()
    return F.hardshrink(grey - mean, _ROUNDING_REST) / (deviation + 1.0), deviation


def fit_asymmetric_gaussian(samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit generalised Gaussians whose two sides differ in width, by matching moments.

    The density is proportional to exp(-(|x| / scale)^shape), with another scale left of zero.

    Args:
        samples: (P, N) float64, one row per fit.
    Returns:
        Shape (2 is Gaussian, 1 Laplacian; 0.2 to 10 in steps of 0.001), left scale and right
        scale, each (P,); the scales are NaN where a side has no samples.
    Source: Lasmar, Stitou, Berthoumieu, "Multiscale skewed heavy tailed model", 2009.
    """
    squares = samples * samples
    left = _root_mean(squares, where=samples < 0)
    right = _root_mean(squares, where=samples > 0)
    ratio = left / right
    peakedness = samples.abs().mean(dim=1) ** 2 / squares.mean(dim=1)
    moment_ratio = peakedness * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, midpoints = _moment_ratios_by_shape()
    shape = shapes[torch.searchsorted(midpoints, moment_ratio)]
    scale_of_deviation = ((1 / shape).lgamma() - (3 / shape).lgamma()).mul(0.5).exp()
    return shape, left * scale_of_deviation, right * scale_of_deviation


def _scene_statistics(patches: Tensor) -> Tensor:
    """Describe patches of coefficients, (P, side, side), by (P, 18) numbers."""
    shape, left, right = fit_asymmetric_gaussian(patches.flatten(1))
    columns = [shape, (left + right) / 2]
    for step in _NEIGHBOURS:
        # Around the patch's edge, as the authors do.
        products = patches * patches.roll(step, dims=(1, 2))
        shape, left, right = fit_asymmetric_gaussian(products.flatten(1))
        mean = (right - left) * ((2 / shape).lgamma() - (1 / shape).lgamma()).exp()
        columns += [shape, mean, left, right]
    return torch.stack(columns, dim=1)


@cache
def _moment_ratios_by_shape() -> tuple[Tensor, Tensor]:
    """Shapes, and the ratios of moments halfway between two neighbouring ones, ascending."""
    shapes = torch.arange(200, 10_001, dtype=torch.float64) / 1000
    ratios = (2 * (2 / shapes).lgamma() - (1 / shapes).lgamma() - (3 / shapes).lgamma()).exp()
    return shapes, (ratios[1:] + ratios[:-1]) / 2


def _root_mean(squares: Tensor, *, where: Tensor) -> Tensor:
    return ((squares * where).sum(dim=1) / where.sum(dim=1)).sqrt()


def _local_mean(plane: Tensor) -> Tensor:
    offsets = torch.arange(_WINDOW_PIXELS, dtype=plane.dtype) - _WINDOW_PIXELS // 2
    gauss = torch.exp(-(offsets**2) / (2 * _WINDOW_SIGMA**2))
    gauss = gauss / gauss.sum()
    padded = F.pad(plane, (_WINDOW_PIXELS // 2,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, gauss.view(1, 1, -1, 1)), gauss.view(1, 1, 1, -1))


def _cut_patches(plane: Tensor, side: int) -> Tensor:
    """(1, 1, H, W) -> (P, side, side), row-major; H and W are multiples of ``side``."""
    _, _, height, width = plane.shape
    grid = plane.reshape(height // side, side, width // side, side)
    return grid.transpose(1, 2).reshape(-1, side, side)


def _whole_patches(grey: Tensor) -> Tensor:
    height, width = int(grey.shape[2]), int(grey.shape[3])
    rows, columns = height // PATCH_PIXELS, width // PATCH_PIXELS
    if rows * columns < LEAST_PATCHES:
        raise ImageSizeError(
            f"NIQE needs at least {LEAST_PATCHES} patches of {PATCH_PIXELS}x{PATCH_PIXELS} pixels; "
            f"{width}x{height} pixels hold {rows * columns}. Leave the image out, or judge a "
            "larger one."
        )
    return grey[..., : rows * PATCH_PIXELS, : columns * PATCH_PIXELS]


def _grey_levels(image: ImageBatch) -> Tensor:
    if image.ndim != 4 or tuple(image.shape[:2]) != (1, 3) or not image.is_floating_point():
        raise ImageValueError(
            f"NIQE judges one floating-point RGB image (1, 3, H, W); came {image.dtype} of shape "
            f"{tuple(image.shape)}."
        )
    levels = image.detach().cpu().double() * 255
    if not bool(levels.isfinite().all()):
        raise ImageValueError("The image holds NaN or infinity; NIQE needs values in [0, 1].")
    weights = torch.tensor(_GREY_WEIGHTS, dtype=levels.dtype).view(1, 3, 1, 1)
    return ((levels * weights).sum(dim=1, keepdim=True) + 0.5).floor()
