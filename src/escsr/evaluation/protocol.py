"""The field's protocol for classic super-resolution: data sets in, PSNR and SSIM on Y out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from escsr.errors import ImageReadError
from escsr.images.files import READABLE_SUFFIXES, read_image
from escsr.images.metrics import psnr_y_db, round_to_8_bit, ssim_y
from escsr.images.resize import resize_bicubic_uint8
from escsr.model.network import ESC
from escsr.model.padding import reflect_pad_to_multiple
from escsr.shapes import ImageBatch

_HR_FOLDERS = ("HR", "HR_jpg", "GTmod12", "GT")


@dataclass(frozen=True, kw_only=True, slots=True)
class TestPair:
    """One picture to judge with: the truth, and the small version of it if there is a file."""

    __test__ = False  # the name is the field's; it is no test case of pytest

    name: str
    """File name of the HR image, without suffix."""
    hr_path: Path
    lr_path: Path | None
    """None: the LR image is made by MATLAB's uint8 bicubic rule."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageQuality:
    """How near one result came to the truth."""

    name: str
    psnr_y_db: float
    ssim_y: float


def find_test_pairs(folder: Path, *, scale: int) -> list[TestPair]:
    """Find the HR images of a test set and their LR versions, in the field's usual layouts.

    Args:
        folder: holds images, or ``HR``/``HR_jpg`` and perhaps ``LR_bicubic/X2`` with names that
            end in ``x2`` or not.
        scale: upscaling factor per side.
    Raises:
        ImageReadError: no image is there.
    """
    hr_folder = next((folder / name for name in _HR_FOLDERS if (folder / name).is_dir()), folder)
    files = hr_folder.iterdir() if hr_folder.is_dir() else ()
    paths = sorted(p for p in files if p.suffix.lower() in READABLE_SUFFIXES)
    if not paths:
        raise ImageReadError(
            f"No images in {hr_folder}. A test set is a folder of HR images, or a folder with "
            "HR/ and LR_bicubic/X2, X3, X4 inside."
        )
    lr_folder = folder / "LR_bicubic" / f"X{scale}"
    return [
        TestPair(name=path.stem, hr_path=path, lr_path=_lr_path(lr_folder, path.stem, scale))
        for path in paths
    ]


def evaluate(
    network: nn.Module, pairs: Iterable[TestPair], *, scale: int, pad_to_multiple: int = 1
) -> Iterator[ImageQuality]:
    """Upscale every LR image and compare with the truth, one result at a time.

    The result is rounded to 8 bits, the luma is not rounded, ``scale`` pixels are cropped at each
    border, and HR is cropped at the bottom and right to a multiple of ``scale``.

    Args:
        network: (1, 3, H, W) in [0, 1] -> (1, 3, scale*H, scale*W), in eval mode, float32, CPU.
        pairs: what to judge with, from ``find_test_pairs``.
        scale: upscaling factor per side.
        pad_to_multiple: extend the LR image by reflection to a multiple of this many pixels and
            crop the result; the window size gives the reference's own tester, 1 the plain image.
    Source: the official tester of ESC, arXiv:2503.06671.
    """
    for pair in pairs:
        hr_pixels = _read_rgb(pair.hr_path)
        height, width = (side // scale * scale for side in hr_pixels.shape[:2])
        hr_pixels = hr_pixels[:height, :width]
        lr_pixels = (
            resize_bicubic_uint8(hr_pixels, scale=1 / scale)
            if pair.lr_path is None
            else _read_rgb(pair.lr_path)
        )
        lr_image, hr_image = _to_batch(lr_pixels), _to_batch(hr_pixels)
        with torch.inference_mode():
            padded = reflect_pad_to_multiple(lr_image, pad_to_multiple)
            sr_image = round_to_8_bit(network(padded)[..., :height, :width])
        yield ImageQuality(
            name=pair.name,
            psnr_y_db=float(psnr_y_db(sr_image, hr_image, border_pixels=scale)),
            ssim_y=float(ssim_y(sr_image, hr_image, border_pixels=scale)),
        )


def mean_quality(results: Iterable[ImageQuality]) -> tuple[float, float]:
    """PSNR-Y in dB and SSIM-Y, averaged over the images of a test set; at least one."""
    pairs = [(result.psnr_y_db, result.ssim_y) for result in results]
    return sum(psnr for psnr, _ in pairs) / len(pairs), sum(ssim for _, ssim in pairs) / len(pairs)


def evaluate_officially(network: ESC, pairs: Iterable[TestPair]) -> Iterator[ImageQuality]:
    """``evaluate``, extended to whole windows as by the reference's tester: what is published."""
    window_size = network.config.window_size
    return evaluate(network, pairs, scale=network.scale, pad_to_multiple=window_size)


def _lr_path(lr_folder: Path, stem: str, scale: int) -> Path | None:
    candidates = (lr_folder / name for name in (f"{stem}x{scale}.png", f"{stem}.png"))
    return next((path for path in candidates if path.is_file()), None)


def _read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """Read as 8-bit RGB, as the protocol does: grey becomes three equal channels."""
    pixels = read_image(path).pixels
    if pixels.dtype != np.uint8:
        raise ImageReadError(f"{path} has 16 bits per channel; the protocol is for 8-bit images.")
    colour = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    return np.ascontiguousarray(colour)


def _to_batch(pixels: npt.NDArray[np.uint8]) -> ImageBatch:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
