"""Unsharp masking follows its formula."""

import math

import pytest
import torch

from escsr.training.degradation import sharpen, usm_weights
from tests.training.degradation.test_blur import slowly_blurred
from tests.training.images import smooth_images


def test_the_kernel_is_opencvs_gaussian_of_51_pixels() -> None:
    """Sigma 0.3 x (25 - 1) + 0.8 = 8: one pixel off, exp(-1/128) of the middle."""
    weights = usm_weights()
    assert weights.shape == (51,)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    assert float(weights[26] / weights[25]) == pytest.approx(math.exp(-1 / 128), abs=1e-12)


def test_an_image_is_sharpened_as_the_formula_says() -> None:
    """Image + mask x 0.5 x residual, clamped before mixing, worked by loops on 30 x 20 pixels."""
    image = smooth_images(1, side=30)[0, :, :, :20]
    image[:, 10:20, 10:15] = 1.0  # so that clamping shows
    kernel = torch.outer(usm_weights(), usm_weights())
    residual = image - slowly_blurred(image, kernel)
    mask = slowly_blurred((residual.abs() * 255 > 10).float(), kernel)
    sharp = (image + 0.5 * residual).clamp(0, 1)
    expected = mask * sharp + (1 - mask) * image
    # A difference within float32's rounding of the threshold would flip a pixel of the mask.
    torch.testing.assert_close(sharpen(image[None])[0], expected, rtol=0, atol=1e-5)
    assert float((expected - image).abs().max()) > 0.02


def test_small_differences_are_taken_for_noise() -> None:
    """Grain of 2/255 around grey stays: no place differs by more than 10/255."""
    grain = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    image = 0.5 + (grain - 0.5) * 4 / 255
    torch.testing.assert_close(sharpen(image), image, rtol=0, atol=1e-6)


def test_a_weight_of_0_sharpens_nothing() -> None:
    """Recipes switch it off so."""
    images = smooth_images(1)
    assert torch.equal(sharpen(images, weight=0), images)
