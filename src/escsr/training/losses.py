"""What training makes small: the distance of the result from the truth."""

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.shapes import ImageBatch
from escsr.training.recipe import LossRecipe

PixelDistance: TypeAlias = Callable[[ImageBatch, ImageBatch], Tensor]
"""(result, truth) -> scalar."""

_CHARBONNIER_EPSILON = 1e-3


def pixel_terms(recipe: LossRecipe) -> dict[str, tuple[float, PixelDistance]]:
    """The terms that compare pixels and have a weight: by name, the weight and what computes it."""
    terms = {
        "l1": (recipe.l1, l1_loss),
        "l2": (recipe.l2, l2_loss),
        "charbonnier": (recipe.charbonnier, charbonnier_loss),
        "fft": (recipe.fft, fft_loss),
    }
    return {name: term for name, term in terms.items() if term[0] > 0}


def l1_loss(sr_batch: ImageBatch, hr_batch: ImageBatch) -> Tensor:
    """Mean absolute difference, a scalar."""
    return F.l1_loss(sr_batch, hr_batch)


def l2_loss(sr_batch: ImageBatch, hr_batch: ImageBatch) -> Tensor:
    """Mean squared difference, a scalar."""
    return F.mse_loss(sr_batch, hr_batch)


def charbonnier_loss(sr_batch: ImageBatch, hr_batch: ImageBatch) -> Tensor:
    """Mean of sqrt(d^2 + epsilon^2) with epsilon 1e-3: L1 that is smooth at 0.

    Source: Lai et al., "Deep Laplacian Pyramid Networks", CVPR 2017.
    """
    return ((sr_batch - hr_batch).square() + _CHARBONNIER_EPSILON**2).sqrt().mean()


def fft_loss(sr_batch: ImageBatch, hr_batch: ImageBatch) -> Tensor:
    """Mean absolute difference of the real and imaginary parts of the spectra, not normalised.

    Source: Cho et al., "Rethinking Coarse-to-Fine Approach in Single Image Deblurring", ICCV 2021;
    efficient networks use it beside L1 with a weight of 0.05.
    """
    difference = torch.fft.rfft2(sr_batch - hr_batch)
    return torch.view_as_real(difference).abs().mean()
