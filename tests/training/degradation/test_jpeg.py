"""Our JPEG loses what a real encoder loses."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from escsr.training.degradation import jpeg_round_trip
from tests.training.images import psnr_db, smooth_images


def photographs(count: int, *, height: int, width: int) -> Tensor:
    """Waves with grain, (count, 3, height, width), 8 bit."""
    images = smooth_images(count, side=max(height, width))[..., :height, :width]
    grain = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return ((images + 0.04 * grain).clamp(0, 1) * 255).round() / 255


def really_compressed(image: Tensor, quality: int) -> Tensor:
    """One image (3, H, W), by libjpeg through Pillow, chroma halved."""
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=2)
    decoded = np.asarray(Image.open(file))
    return torch.from_numpy(decoded.copy()).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize(("height", "width"), [(96, 96), (61, 83)])
@pytest.mark.parametrize("quality", [30, 50, 75, 95])
def test_an_image_comes_out_as_from_a_real_encoder(height: int, width: int, quality: int) -> None:
    """Sides that are no multiples of 16, too; see the figures below.

    What remains is rounding: where a coefficient lies between two steps, libjpeg's integer
    transform decides otherwise now and then, by a whole step. On photographs the two are 44 to 54
    dB alike, while the loss itself leaves 27 to 38 dB.
    """
    (image,) = photographs(1, height=height, width=width)
    real = really_compressed(image, quality)
    (ours,) = jpeg_round_trip(image[None], np.array([quality]))
    assert psnr_db(ours, real) > 43
    assert psnr_db(ours, real) > psnr_db(image, real) + 10


def test_each_image_has_its_own_quality() -> None:
    """A batch gives what its images give alone."""
    images = photographs(3, height=40, width=40)
    qualities = np.array([30.0, 62.5, 95.0])
    together = jpeg_round_trip(images, qualities)
    for number in range(3):
        alone = jpeg_round_trip(images[number : number + 1], qualities[number : number + 1])
        # A product of another shape may round another way; no coefficient here lies at a half.
        torch.testing.assert_close(together[number : number + 1], alone, rtol=0, atol=1e-5)


def test_a_higher_quality_loses_less() -> None:
    """From 10 to 90, step by step."""
    images = photographs(1, height=64, width=64)
    figures = [psnr_db(images, jpeg_round_trip(images, np.array([q]))) for q in (10, 30, 60, 90)]
    assert figures == sorted(figures)
    assert figures[-1] - figures[0] > 4


def test_grey_and_flat_images_stay() -> None:
    """A flat block is its mean, which quality 100 keeps."""
    images = torch.full((1, 3, 24, 24), 100 / 255)
    torch.testing.assert_close(
        jpeg_round_trip(images, np.array([100])), images, rtol=0, atol=0.6 / 255
    )
