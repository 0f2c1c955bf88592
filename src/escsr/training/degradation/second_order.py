"""Real-ESRGAN's second-order degradation: blur, resize, noise and JPEG, twice."""

import numpy as np
import torch

from escsr.shapes import ImageBatch
from escsr.training.degradation.blur import blur
from escsr.training.degradation.degradation_recipe import DegradationRecipe, DegradationStageRecipe
from escsr.training.degradation.jpeg import jpeg_round_trip
from escsr.training.degradation.kernels import draw_blur_kernels, draw_final_kernels
from escsr.training.degradation.noise import add_drawn_noise
from escsr.training.degradation.resizing import draw_factor, draw_mode, resize

Size = tuple[int, int]


@torch.no_grad()
def degrade(
    images: ImageBatch, random: np.random.Generator, settings: DegradationRecipe, *, scale: int
) -> ImageBatch:
    """Make the LR images of a batch, each with its own kernels, noise and JPEG quality.

    One for the whole batch, since it shapes the tensor or the order of work: resizes, the kind of
    noise, whether the second blur takes place, and what comes last.

    Args:
        images: (B, 3, H, W) in [0, 1], sharpened, on any device; sides are multiples of ``scale``.
        random: of every choice: the same state makes the same images on the same device.
        settings: of every stage.
        scale: HR pixels per LR pixel, per side.
    Returns:
        (B, 3, H / scale, W / scale), every value k/255.
    Source: Wang et al., arXiv:2107.10833, section 3; its figures as the ESC paper gives them.
    """
    height, width = (int(side) for side in images.shape[-2:])
    small = (height // scale, width // scale)
    first, second = settings.first, settings.second
    images = _blur(images.contiguous(), random, settings, first)
    images = _resize(images, (height, width), random, first)
    images = add_drawn_noise(images, random, first)
    images = _compress(images, random, first)
    images = _blur(images, random, settings, second)
    images = _resize(images, small, random, second)
    images = add_drawn_noise(images, random, second)
    if random.random() < 0.5:
        images = _finish(images, small, random, settings)
        images = _compress(images, random, second)
    else:
        images = _compress(images, random, second)
        images = _finish(images, small, random, settings)
    return (images.clamp(0, 1) * 255).round() / 255


def _blur(
    images: ImageBatch,
    random: np.random.Generator,
    settings: DegradationRecipe,
    stage: DegradationStageRecipe,
) -> ImageBatch:
    if random.random() >= stage.blur_chance:
        return images
    return blur(images, draw_blur_kernels(random, len(images), settings, stage))


def _resize(
    images: ImageBatch, whole: Size, random: np.random.Generator, stage: DegradationStageRecipe
) -> ImageBatch:
    factor = draw_factor(random, stage)
    height, width = (max(1, int(side * factor)) for side in whole)
    return resize(images, (height, width), draw_mode(random))


def _compress(
    images: ImageBatch, random: np.random.Generator, stage: DegradationStageRecipe
) -> ImageBatch:
    return jpeg_round_trip(images, random.uniform(*stage.jpeg_quality, len(images)))


def _finish(
    images: ImageBatch, small: Size, random: np.random.Generator, settings: DegradationRecipe
) -> ImageBatch:
    """To the size of LR, then the ringing of a last sharpening."""
    images = resize(images, small, draw_mode(random))
    return blur(images, draw_final_kernels(random, len(images), settings))
