"""What the two networks of a GAN make small, given the discriminator's judgement."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from escsr.model.autocast import at_least_float32

GanKind = Literal["vanilla", "lsgan", "hinge"]
"""Cross entropy; squared distance from 1 (real) and 0 (fake); or distance beyond a margin of 1."""


def generator_loss(kind: GanKind, fake_logits: Tensor) -> Tensor:
    """How far a discriminator is from taking results for photographs.

    Args:
        kind: of the GAN.
        fake_logits: the judgement of results, of any shape; half precision is widened first.
    Returns:
        A scalar. With "hinge" there is no lower bound: it is minus the mean.
    """
    fake_logits = at_least_float32(fake_logits)
    if kind == "vanilla":
        return F.softplus(-fake_logits).mean()
    if kind == "lsgan":
        return (fake_logits - 1).square().mean()
    return -fake_logits.mean()


def real_loss(kind: GanKind, real_logits: Tensor) -> Tensor:
    """How far the discriminator is from knowing photographs as such; as ``generator_loss``."""
    if kind == "hinge":
        return F.relu(1 - at_least_float32(real_logits)).mean()
    return generator_loss(kind, real_logits)  # both ask for "real"


def fake_loss(kind: GanKind, fake_logits: Tensor) -> Tensor:
    """How far the discriminator is from knowing results as such; as ``generator_loss``.

    Sources: Goodfellow et al., arXiv:1406.2661 (vanilla, with the generator's part that does not
    fade); Mao et al., arXiv:1611.04076 (LSGAN); Lim and Ye, arXiv:1705.02894 (hinge).
    """
    fake_logits = at_least_float32(fake_logits)
    if kind == "vanilla":
        return F.softplus(fake_logits).mean()
    if kind == "lsgan":
        return fake_logits.square().mean()
    return F.relu(1 + fake_logits).mean()
