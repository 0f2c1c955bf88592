"""ESC+LTE's own protocol, for networks that enlarge to any size; comparable with no other figures.

Differs from ``evaluation.protocol`` in how LR is made, in what Y is, and in what is rounded.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from escsr.errors import ConfigurationError, ImageSizeError, ImageValueError, MissingExtraError
from escsr.evaluation.test_sets import TestPair
from escsr.images.colour import to_rgb_uint8
from escsr.images.files import read_image
from escsr.model.network import ESC
from escsr.shapes import ImageBatch

LTE_PROTOCOL = (
    "LR has floor(side / s) pixels and is made by Pillow's bicubic filter, on 8-bit RGB, of HR "
    "cropped at the bottom and right to round(s x LR side). The whole LR image goes through the "
    "network, without padding; the result is clamped to [0, 1] and not rounded. Y is (65.738 R + "
    "129.057 G + 25.064 B) / 256, and s pixels (rounded up) are cropped at each border. Figures of "
    "a test set are the mean over its images."
)
"""In words, for reports. It is that of LTE's and LIIF's published tables, and of ESC+LTE's."""

_LUMA_WEIGHTS = (65.738 / 256, 129.057 / 256, 25.064 / 256)


@dataclass(frozen=True, kw_only=True, slots=True)
class LteQuality:
    """How near one result came to the truth, by ``LTE_PROTOCOL``."""

    name: str
    """Of the test image."""
    psnr_y_db: float
    """Infinite where the result is the truth."""


def evaluate_lte(network: ESC, pairs: Iterable[TestPair], *, scale: float) -> Iterator[LteQuality]:
    """Shrink every HR image, enlarge it again, and compare, one result at a time.

    Args:
        network: whose ``upsampler`` is "lte", in eval mode; run on the device where its weights
            are.
        pairs: what to judge with, from ``find_test_pairs``; their own LR images are not used.
        scale: factor per side, 1 or more, whole or not.
    Raises:
        ConfigurationError: the network makes one size only, or the scale is below 1.
        ImageReadError, ImageValueError, ImageSizeError: an image cannot be used.
        MissingExtraError: Pillow is not installed.
    Source: ``LTE_PROTOCOL``.
    """
    if not network.config.is_arbitrary_scale:
        raise ConfigurationError(
            "ESC+LTE's protocol judges networks that enlarge to any size; this one enlarges by "
            f"{network.scale} alone. Judge it with `escsr.evaluation.evaluate`."
        )
    device = next(network.parameters()).device
    for pair in pairs:
        pixels = to_rgb_uint8(read_image(pair.hr_path).pixels)
        lr_image, hr_image = make_lte_pair(pixels, scale=scale)
        with torch.inference_mode():
            size = (hr_image.shape[2], hr_image.shape[3])
            sr_image = network(lr_image.to(device), size).float().cpu()
        psnr_y_db = lte_psnr_y_db(sr_image, hr_image, scale=scale)
        yield LteQuality(name=pair.name, psnr_y_db=psnr_y_db)


def make_lte_pair(
    hr_pixels: npt.NDArray[np.uint8], *, scale: float
) -> tuple[ImageBatch, ImageBatch]:
    """Make the LR image of a test image, and crop the test image to what LR shows.

    Args:
        hr_pixels: (H, W, 3) uint8.
        scale: factor per side, 1 or more.
    Returns:
        LR (1, 3, h, w) with h = floor(H / scale), and HR (1, 3, round(h * scale), …), float32 in
        [0, 1], every value k/255.
    Raises:
        ConfigurationError: the scale is below 1.
        ImageSizeError: no LR pixel would be left.
        MissingExtraError: Pillow is not installed.
    """
    if not (math.isfinite(scale) and scale >= 1):
        raise ConfigurationError(f"scale is {scale}; it must be a number of 1 or more.")
    # A rounding error is no pixel: 30 / 0.1 may be a little below 300.
    height, width = (math.floor(side / scale + 1e-9) for side in hr_pixels.shape[:2])
    if min(height, width) < 1:
        raise ImageSizeError(
            f"An image of {hr_pixels.shape[1]}x{hr_pixels.shape[0]} pixels cannot be made {scale} "
            "times smaller; leave it out."
        )
    cropped = np.ascontiguousarray(hr_pixels[: round(height * scale), : round(width * scale)])
    image_module = _pillow_image_module()
    shrunk = image_module.fromarray(cropped).resize(
        (width, height), image_module.Resampling.BICUBIC
    )
    return _to_batch(np.array(shrunk)), _to_batch(cropped)


def lte_psnr_y_db(sr_image: Tensor, hr_image: Tensor, *, scale: float) -> float:
    """PSNR of Y by ``LTE_PROTOCOL``, in dB.

    Args:
        sr_image: (1, 3, H, W), clamped to [0, 1] here, not rounded.
        hr_image: (1, 3, H, W) in [0, 1].
        scale: this many pixels, rounded up, are cropped at each border.
    Raises:
        ImageValueError: the shapes differ.
        ImageSizeError: nothing is left after cropping.
    """
    if sr_image.shape != hr_image.shape:
        raise ImageValueError(
            f"Two images can be compared if they have one shape; came {tuple(sr_image.shape)} and "
            f"{tuple(hr_image.shape)}."
        )
    border = math.ceil(scale)
    height, width = sr_image.shape[-2:]
    if min(height, width) <= 2 * border:
        raise ImageSizeError(
            f"{width}x{height} pixels less {border} at each border leave nothing to judge; leave "
            "the image out."
        )
    difference = sr_image.double().clamp(0, 1) - hr_image.double()
    weights = torch.tensor(_LUMA_WEIGHTS, dtype=torch.float64).view(1, 3, 1, 1)
    luma = (difference * weights).sum(dim=1)[:, border:-border, border:-border]
    return float(-10 * torch.log10(luma.square().mean()))


def _to_batch(pixels: npt.NDArray[np.uint8]) -> ImageBatch:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def _pillow_image_module() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "ESC+LTE's protocol makes LR by Pillow: pip install 'escsr[train]'"
        ) from error
    return Image
