"""Changes of size by the means that ordinary software has: area, bilinear and bicubic."""

from typing import Literal

import numpy as np
import torch.nn.functional as F

from escsr.shapes import ImageBatch
from escsr.training.degradation.degradation_recipe import DegradationStageRecipe

ResizeMode = Literal["area", "bilinear", "bicubic"]
RESIZE_MODES: tuple[ResizeMode, ...] = ("area", "bilinear", "bicubic")


def draw_factor(random: np.random.Generator, stage: DegradationStageRecipe) -> float:
    """Draw by how much a stage resizes: up, down or not at all, then how much."""
    lowest, highest = stage.resize_range
    choice = random.choice(3, p=stage.resize_chances)
    bounds = ((1.0, highest), (lowest, 1.0), (1.0, 1.0))[choice]
    return float(random.uniform(*bounds))


def draw_mode(random: np.random.Generator) -> ResizeMode:
    """Draw one of the modes; all are alike likely."""
    return RESIZE_MODES[int(random.integers(len(RESIZE_MODES)))]


def resize(images: ImageBatch, size: tuple[int, int], mode: ResizeMode) -> ImageBatch:
    """Resize as PyTorch does without antialiasing: bilinear and bicubic leave jagged edges.

    Args:
        images: (B, 3, H, W).
        size: height and width of the result, at least 1 each.
        mode: area is the mean of the pixels that a result covers.
    Returns:
        (B, 3, *size); bicubic leaves [0, 1] a little.
    """
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size=size, mode=mode)
