"""Noise has the variance that was asked for, in colour or in grey."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from escsr.training.degradation import add_drawn_noise, add_gaussian_noise, add_poisson_noise
from escsr.training.recipe import DegradationStageRecipe

Adder = Callable[[Tensor, np.ndarray, np.ndarray, torch.Generator], Tensor]

IN_COLOUR, IN_GREY = np.array([False]), np.array([True])


def generator() -> torch.Generator:
    """The same noise for every test."""
    return torch.Generator().manual_seed(7)


def ramps(levels: int, *, height: int = 100, columns_per_level: int = 25) -> Tensor:
    """An image of so many 8-bit levels around the middle, each a stripe of equal width."""
    first = 128 - levels // 2
    row = (torch.arange(levels) + first).repeat_interleave(columns_per_level) / 255
    return row.expand(1, 3, height, -1).contiguous()


def test_gaussian_noise_has_its_sigma_image_by_image() -> None:
    """10 and 20 of 255, in colours that do not know of each other."""
    images = torch.full((2, 3, 100, 100), 0.5)
    noisy = add_gaussian_noise(images, np.array([10.0, 20.0]), np.array([False] * 2), generator())
    noise = (noisy - images) * 255
    # 30,000 samples: 0.4 % of doubt.
    assert noise.std(dim=(1, 2, 3)).tolist() == pytest.approx([10, 20], rel=0.02)
    assert abs(float((noise[0, 0] * noise[0, 1]).mean())) < 0.03 * 100


@pytest.mark.parametrize("add", [add_gaussian_noise, add_poisson_noise])
def test_grey_noise_is_the_same_in_all_channels(add: Adder) -> None:
    """For the images that have it, and for no other of the batch."""
    images = torch.full((2, 3, 50, 50), 0.5)
    noisy = add(images, np.array([2.0, 2.0]), np.array([True, False]), generator())
    assert torch.equal(noisy[0, 0], noisy[0, 2])
    assert not torch.equal(noisy[1, 0], noisy[1, 2])


@pytest.mark.parametrize(("levels", "photons"), [(64, 64), (33, 64), (16, 16)])
def test_poisson_noise_has_the_variance_of_counted_light(levels: int, photons: int) -> None:
    """Value / photons, with as many photons as levels, rounded up to a power of 2."""
    images = ramps(levels)
    scale = 0.2  # small enough that clamping does not show
    noisy = add_poisson_noise(images, np.array([scale]), IN_COLOUR, generator())
    noise = (noisy - images) / scale
    # 3 x 2500 samples per level at least 16 levels: 0.5 % of doubt.
    expected = float(images.mean()) / photons
    assert float(noise.var()) == pytest.approx(expected, rel=0.03)
    assert float(noise.mean()) == pytest.approx(0, abs=0.002)


def test_grey_poisson_noise_counts_the_levels_of_luma() -> None:
    """Of grey images these are the same; its variance is that of colour."""
    images = ramps(64)
    noisy = add_poisson_noise(images, np.array([0.2]), IN_GREY, generator())
    noise = ((noisy - images) / 0.2)[:, 0]
    assert float(noise.var()) == pytest.approx(float(images.mean()) / 64, rel=0.05)


def test_noise_leaves_the_range_nowhere() -> None:
    """Black and white are clamped."""
    images = torch.cat((torch.zeros(1, 3, 20, 20), torch.ones(1, 3, 20, 20)))
    for add in (add_gaussian_noise, add_poisson_noise):
        noisy = add(images, np.array([30.0, 30.0]), np.array([False] * 2), generator())
        assert float(noisy.min()) >= 0
        assert float(noisy.max()) <= 1


def test_half_of_the_batches_get_gaussian_noise_and_two_fifths_of_the_images_grey() -> None:
    """Over 300 batches of 4: black shows the kind, since light that is not there has no noise."""
    images = torch.zeros(4, 3, 4, 4)
    images[:, :, :2] = torch.linspace(0.3, 0.7, 8).reshape(2, 4)
    stage, random = DegradationStageRecipe(), np.random.default_rng(0)
    batches = [add_drawn_noise(images, random, stage) for _ in range(300)]
    is_gaussian = [bool((noisy[:, :, 2:] > 0).any()) for noisy in batches]
    is_grey = [
        bool(((noisy - images)[image, 0, :2] - (noisy - images)[image, 1, :2]).abs().max() < 1e-6)
        for noisy in batches
        for image in range(4)
    ]
    assert np.mean(is_gaussian) == pytest.approx(0.5, abs=0.1)
    assert np.mean(is_grey) == pytest.approx(0.4, abs=0.06)
