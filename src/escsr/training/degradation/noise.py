"""Noise of sensors: Gaussian, or Poisson as light itself has it, in colour or in grey."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from escsr.shapes import ImageBatch
from escsr.training.degradation.degradation_recipe import DegradationStageRecipe
from escsr.training.degradation.jpeg import LUMA_WEIGHTS


def add_drawn_noise(
    images: ImageBatch, random: np.random.Generator, stage: DegradationStageRecipe
) -> ImageBatch:
    """Add the noise of a stage: one kind for the batch, strength and colour for each image.

    Args:
        images: (B, 3, H, W) in [0, 1] but for overshoot.
        random: of every choice, the noise itself among them.
        stage: chances, and ranges of the strength.
    Returns:
        (B, 3, H, W) in [0, 1].
    """
    count = len(images)
    is_gaussian = random.random() < stage.gaussian_chance
    strengths = random.uniform(*(stage.noise_sigma if is_gaussian else stage.poisson_scale), count)
    is_grey = random.random(count) < stage.grey_chance
    generator = torch.Generator(images.device).manual_seed(int(random.integers(2**62)))
    add = add_gaussian_noise if is_gaussian else add_poisson_noise
    return add(images, strengths, is_grey, generator)


def add_gaussian_noise(
    images: ImageBatch, sigmas: np.ndarray, is_grey: np.ndarray, generator: torch.Generator
) -> ImageBatch:
    """Add white noise.

    Args:
        images: (B, 3, H, W).
        sigmas: (B,), standard deviation, of a range of 255.
        is_grey: (B,) of bool; all channels of such an image get the same noise.
        generator: on the device of the images.
    Returns:
        (B, 3, H, W), clamped to [0, 1].
    """

    def noise(clean: Tensor) -> Tensor:
        return torch.randn(clean.shape, generator=generator, device=clean.device)

    return _add(images, sigmas / 255, is_grey, noise)


def add_poisson_noise(
    images: ImageBatch, scales: np.ndarray, is_grey: np.ndarray, generator: torch.Generator
) -> ImageBatch:
    """Add the noise of counted light, multiplied by a scale.

    The brightest pixel counts L photons, where L is the number of 8-bit levels that the image
    has, rounded up to a power of 2.

    Args:
        images: (B, 3, H, W).
        scales: (B,); 1 leaves the noise as it is.
        is_grey: (B,) of bool; such an image gets the noise of its luma in all channels.
        generator: on the device of the images.
    Returns:
        (B, 3, H, W), clamped to [0, 1].
    """

    def noise(clean: Tensor) -> Tensor:
        levels = (clean.clamp(0, 1) * 255).round()
        photons = _photons(levels)[:, None, None, None]
        exact = levels / 255
        return torch.poisson(exact * photons, generator=generator) / photons - exact

    return _add(images, scales, is_grey, noise)


def _add(
    images: ImageBatch,
    strengths: np.ndarray,
    is_grey: np.ndarray,
    noise: Callable[[Tensor], Tensor],
) -> ImageBatch:
    """Add noise made of the colours of some images, and of the luma of others."""
    total = torch.empty_like(images)
    luma_weights = torch.tensor(LUMA_WEIGHTS, device=images.device)[:, None, None]
    for chosen, is_luma in ((np.flatnonzero(~is_grey), False), (np.flatnonzero(is_grey), True)):
        if not len(chosen):
            continue
        index = torch.from_numpy(chosen).to(images.device)
        clean = images[index]
        if is_luma:
            clean = (clean * luma_weights).sum(dim=1, keepdim=True)
        total[index] = noise(clean).expand(-1, 3, -1, -1)
    factors = torch.from_numpy(strengths).to(images.dtype).to(images.device)
    return torch.addcmul(images, total, factors[:, None, None, None]).clamp(0, 1)


def _photons(levels: Tensor) -> Tensor:
    """(B, C, H, W) whole numbers of 0 to 255 -> (B,) powers of 2 from the number of them."""
    is_present = torch.zeros(len(levels), 256, dtype=torch.bool, device=levels.device)
    is_present.scatter_(1, levels.flatten(1).long(), value=True)
    return torch.exp2(torch.log2(is_present.sum(dim=1).float()).ceil())
