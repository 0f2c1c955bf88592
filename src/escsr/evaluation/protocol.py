"""The field's protocol for classic super-resolution: one image in, its figures out."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from escsr.engines.engine import Floats, padded_to_multiple
from escsr.errors import ImageReadError, ImageSizeError, ImageValueError
from escsr.evaluation.metrics import LUMA_METRICS, PSNR_Y, SSIM_Y, Metric
from escsr.evaluation.test_sets import TestPair, find_test_pairs
from escsr.images.colour import to_rgb_uint8
from escsr.images.files import read_image
from escsr.images.metrics import round_to_8_bit
from escsr.images.resize import resize_bicubic_uint8

if TYPE_CHECKING:
    from escsr.model.network import ESC

__all__ = [
    "PROTOCOL",
    "Enlarge",
    "ImageQuality",
    "TestPair",
    "evaluate",
    "evaluate_officially",
    "find_test_pairs",
    "mean_quality",
    "measure_quality",
    "read_pair",
    "to_batch",
    "to_pixels",
    "upscale_rounded",
]

Enlarge = Callable[[Floats], Floats]
"""(B, 3, H, W) RGB in [0, 1] -> (B, 3, scale*H, scale*W), both float32, the result not clamped."""

PROTOCOL = (
    "Images are read as 8-bit RGB (grey becomes RGB) and HR is cropped at the bottom and right to "
    "a multiple of the scale; LR images that are no files are made of it by MATLAB's imresize "
    "(bicubic, antialiasing, uint8 after each axis). The result is rounded to 8 bits and `scale` "
    "pixels are cropped at each border. Y is the luma of BT.601 (16 to 235), not rounded. SSIM has "
    "an 11x11 Gaussian window of sigma 1.5, where it fits wholly. Figures of a test set are the "
    "mean over its images."
)
"""In words, for reports. The official tester of ESC, arXiv:2503.06671, does the same on Y."""

_LEAST_SIDE_PIXELS = 11
"""Of an HR image without its border: the window of SSIM must fit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageQuality:
    """How near one result came to the truth."""

    name: str
    """Of the test pair."""
    values: Mapping[str, float]
    """The figure of each metric, by its key."""

    @property
    def psnr_y_db(self) -> float:
        """On the luma; infinite where the result is the truth."""
        return self.values[PSNR_Y.key]

    @property
    def ssim_y(self) -> float:
        """On the luma, at most 1."""
        return self.values[SSIM_Y.key]


def evaluate(
    enlarge: Enlarge,
    pairs: Iterable[TestPair],
    *,
    scale: int,
    pad_to_multiple: int = 1,
    metrics: Sequence[Metric] = LUMA_METRICS,
) -> Iterator[ImageQuality]:
    """Upscale every LR image and compare with the truth, one result at a time.

    Args:
        enlarge: what is judged, such as ``run`` of an engine.
        pairs: what to judge with, from ``find_test_pairs``.
        scale: upscaling factor per side.
        pad_to_multiple: extend the LR image by reflection to a multiple of this many pixels and
            crop the result; the window size gives the reference's own tester, 1 the plain image.
        metrics: what to measure; the luma's two must be among them for ``mean_quality``.
    Raises:
        ImageReadError, ImageSizeError: a pair cannot be used; see ``read_pair``.
        ImageValueError: a result has the wrong size, or NaN.
    Source: ``PROTOCOL``.
    """

    def padded(lr_image: Floats) -> Floats:
        height, width = lr_image.shape[2:]
        sr_image = enlarge(padded_to_multiple(lr_image, pad_to_multiple))
        return sr_image[..., : scale * height, : scale * width]

    for pair in pairs:
        lr_image, hr_image = read_pair(pair, scale=scale)
        sr_image = upscale_rounded(padded, lr_image, scale=scale)
        values = measure_quality(sr_image, hr_image, scale=scale, metrics=metrics)
        yield ImageQuality(name=pair.name, values=values)


def evaluate_officially(network: "ESC", pairs: Iterable[TestPair]) -> Iterator[ImageQuality]:
    """``evaluate``, extended to whole windows as by the reference's tester: what is published.

    Args:
        network: in eval mode, float32; it is run by torch where its parameters are.
        pairs: what to judge with, from ``find_test_pairs``.
    """
    import torch

    device = next(network.parameters()).device

    def enlarge(lr_image: Floats) -> Floats:
        with torch.inference_mode():
            return network(torch.from_numpy(lr_image).to(device)).float().cpu().numpy()

    window = network.config.window_pixels
    return evaluate(enlarge, pairs, scale=network.scale, pad_to_multiple=window)


def mean_quality(results: Iterable[ImageQuality]) -> tuple[float, float]:
    """PSNR-Y in dB and SSIM-Y, averaged over the images of a test set; at least one."""
    pairs = [(result.psnr_y_db, result.ssim_y) for result in results]
    return sum(psnr for psnr, _ in pairs) / len(pairs), sum(ssim for _, ssim in pairs) / len(pairs)


def read_pair(pair: TestPair, *, scale: int) -> tuple[Floats, Floats]:
    """Read a test image and its small version, or make that.

    Args:
        pair: what to read.
        scale: upscaling factor per side.
    Returns:
        LR (1, 3, H, W) and HR (1, 3, scale*H, scale*W), float32 in [0, 1], every value k/255.
    Raises:
        ImageReadError: a file cannot be read, or has 16 bits per channel.
        ImageSizeError: too small to judge with, or LR is not HR made ``scale`` times smaller.
    """
    hr_pixels = _read_rgb(pair.hr_path)
    height, width = (side // scale * scale for side in hr_pixels.shape[:2])
    if min(height, width) - 2 * scale < _LEAST_SIDE_PIXELS:
        raise ImageSizeError(
            f"{pair.hr_path} has {hr_pixels.shape[1]}x{hr_pixels.shape[0]} pixels; to judge "
            f"x{scale}, {_LEAST_SIDE_PIXELS} a side must be left when {scale} are cropped at each "
            "border. Leave it out."
        )
    hr_pixels = hr_pixels[:height, :width]
    if pair.lr_path is None:
        lr_pixels = resize_bicubic_uint8(hr_pixels, scale=1 / scale)
    else:
        lr_pixels = _read_rgb(pair.lr_path)
    if lr_pixels.shape[:2] != (height // scale, width // scale):
        raise ImageSizeError(
            f"{pair.lr_path} has {lr_pixels.shape[1]}x{lr_pixels.shape[0]} pixels, but of "
            f"{pair.hr_path}, cropped to {width}x{height}, x{scale} needs "
            f"{width // scale}x{height // scale}. Take LR images of this scale, or remove them to "
            "have them made."
        )
    return to_batch(lr_pixels), to_batch(hr_pixels)


def upscale_rounded(enlarge: Enlarge, lr_image: Floats, *, scale: int) -> Floats:
    """Run a network and round its result to 8 bits.

    Args:
        enlarge: runs it.
        lr_image: (1, 3, H, W) in [0, 1].
        scale: upscaling factor per side.
    Returns:
        (1, 3, scale*H, scale*W) float32, every value k/255.
    Raises:
        ImageValueError: the result has another size, or holds NaN.
    """
    result = enlarge(lr_image)
    expected = (1, 3, scale * lr_image.shape[2], scale * lr_image.shape[3])
    if result.shape != expected:
        raise ImageValueError(
            f"The network made {result.shape} of {lr_image.shape}; at x{scale} it "
            f"must make {expected}. Check its scale."
        )
    if np.isnan(result).any():
        raise ImageValueError("The network's result holds NaN; its weights are broken.")
    return round_to_8_bit(result)


def measure_quality(
    sr_image: Floats, hr_image: Floats, *, scale: int, metrics: Sequence[Metric]
) -> dict[str, float]:
    """Compare a rounded result with the truth, ``scale`` pixels cropped at each border.

    Returns:
        The figure of each metric, by its key.
    """
    return {metric.key: metric.measure(sr_image, hr_image, scale) for metric in metrics}


def to_pixels(image: Floats) -> npt.NDArray[np.uint8]:
    """(1, 3, H, W) in [0, 1] -> (H, W, 3), rounded to the nearest level."""
    return np.ascontiguousarray(np.rint(image[0] * 255).astype(np.uint8).transpose(1, 2, 0))


def _read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    pixels = read_image(path).pixels
    if pixels.dtype != np.uint8:
        raise ImageReadError(
            f"{path} has 16 bits per channel; the protocol is for 8-bit images. Convert it first."
        )
    return to_rgb_uint8(pixels)


def to_batch(pixels: npt.NDArray[np.uint8]) -> Floats:
    """(H, W, 3) -> (1, 3, H, W) float32 in [0, 1], every value k/255."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None].astype(np.float32) / np.float32(
        255
    )
