"""The stages together: sizes, ranges, and the same again from the same seed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.training.degradation import degrade, draw_factor, draw_mode, resize
from escsr.training.recipe import DegradationRecipe, DegradationStageRecipe
from tests.training.images import psnr_db, smooth_images

NOTHING = {
    "blur_chance": 0,
    "resize_chances": (0, 0, 1),
    "gaussian_chance": 1,
    "noise_sigma": (0, 0),
    "jpeg_quality": (100, 100),
}
"""A stage that leaves an image as it is, but for the rounding of JPEG."""

ONLY_SHRINKS = DegradationRecipe.model_validate(
    {"first": NOTHING, "second": NOTHING, "final_sinc_chance": 0, "pool_pairs": 0}
)


def degraded(images: Tensor, seed: int, *, scale: int = 4) -> Tensor:
    """By the paper's figures."""
    return degrade(images, np.random.default_rng(seed), DegradationRecipe(), scale=scale)


def test_every_draw_makes_8_bit_images_of_the_lr_size() -> None:
    """Sixty draws go through every mode and order; a photograph of 96 pixels becomes 24."""
    images = smooth_images(2, side=96)
    for seed in range(60):
        lr_images = degraded(images, seed)
        assert lr_images.shape == (2, 3, 24, 24)
        levels = lr_images * 255
        assert torch.equal(levels.round() / 255, lr_images)
        assert 0 <= float(levels.min()) <= float(levels.max()) <= 255


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_any_scale_is_degraded(scale: int) -> None:
    """1 is restoration: the same size."""
    lr_images = degraded(smooth_images(1, side=48), 0, scale=scale)
    assert lr_images.shape[-2:] == (48 // scale, 48 // scale)


def test_the_same_seed_makes_the_same_images() -> None:
    """Whatever was drawn elsewhere; another seed makes others, and images are left alone."""
    images = smooth_images(2)
    before = images.clone()
    first = degraded(images, 5)
    torch.manual_seed(123)
    torch.rand(3)
    state = torch.get_rng_state()
    assert torch.equal(degraded(images, 5), first)
    assert not torch.equal(degraded(images, 6), first)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_images_of_a_batch_are_degraded_differently() -> None:
    """The same image twice: other kernels, noise and quality."""
    images = smooth_images(1).expand(2, -1, -1, -1)
    lr_images = degraded(images, 0)
    assert not torch.equal(lr_images[0], lr_images[1])


def test_without_all_that_hurts_an_image_is_only_shrunk() -> None:
    """By one of the three modes; grey, since JPEG halves the chroma even at quality 100."""
    images = smooth_images(1).mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    for seed in range(6):
        lr_image = degrade(images, np.random.default_rng(seed), ONLY_SHRINKS, scale=4)
        shrunk = [
            F.interpolate(images, size=(16, 16), mode=m) for m in ("area", "bicubic", "bilinear")
        ]
        assert max(psnr_db(lr_image, candidate) for candidate in shrunk) > 45


def test_factors_are_drawn_up_down_and_kept_as_often_as_the_settings_say() -> None:
    """0.2 up to 1.5, 0.7 down to 0.15, 0.1 kept; 3000 draws leave 2.5 % of doubt."""
    random = np.random.default_rng(0)
    factors = np.array([draw_factor(random, DegradationStageRecipe()) for _ in range(3000)])
    assert np.mean(factors > 1) == pytest.approx(0.2, abs=0.025)
    assert np.mean(factors < 1) == pytest.approx(0.7, abs=0.025)
    assert factors.min() > 0.15
    assert factors.max() < 1.5
    assert factors.max() > 1.45
    assert factors.min() < 0.2


def test_modes_are_drawn_alike() -> None:
    """A third each."""
    random = np.random.default_rng(0)
    modes = [draw_mode(random) for _ in range(900)]
    for mode in ("area", "bilinear", "bicubic"):
        assert modes.count(mode) == pytest.approx(300, abs=50)


def test_area_is_the_mean_of_what_a_pixel_covers() -> None:
    """Four pixels become one; at their own size images are not touched."""
    images = torch.tensor([[[[0.0, 1.0], [2.0, 5.0]]]])
    assert resize(images, (1, 1), "area").item() == 2
    assert resize(images, (2, 2), "bicubic") is images
