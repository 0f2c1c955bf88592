"""What training makes small: the distance of the result from the truth."""

import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.shapes import ImageBatch
from escsr.training.recipe import LossRecipe

_CHARBONNIER_EPSILON = 1e-3


def weighted_loss(sr_batch: ImageBatch, hr_batch: ImageBatch, recipe: LossRecipe) -> Tensor:
    """The weighted sum of a recipe's terms.

    Args:
        sr_batch: (B, 3, H, W) in [0, 1] but for errors; half precision is widened first.
        hr_batch: likewise, float32.
        recipe: the weight of each term.
    Returns:
        A scalar, float32.
    """
    sr_batch = sr_batch.float()
    terms = (
        (recipe.l1, l1_loss),
        (recipe.l2, l2_loss),
        (recipe.charbonnier, charbonnier_loss),
        (recipe.fft, fft_loss),
    )
    used = [weight * term(sr_batch, hr_batch) for weight, term in terms if weight > 0]
    return torch.stack(used).sum()


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
