"""What the network's part of training makes small: terms with weights, each with its name."""

from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import Tensor

from escsr.errors import ConfigurationError
from escsr.model.autocast import at_least_float32
from escsr.shapes import ImageBatch
from escsr.training.adversarial.gan_losses import generator_loss
from escsr.training.adversarial.perceptual import PerceptualLoss
from escsr.training.arbitrary_scale.query_batch import QueryBatch
from escsr.training.batch import TrainingBatch
from escsr.training.losses import pixel_terms
from escsr.training.recipe import Recipe


class Objective:
    """The terms of a recipe's ``[loss]``, and of ``[gan]`` where there is a discriminator.

    Args:
        recipe: the weight of each term.
        fabric: gives device and precision; the perceptual network moves there.
        perceptual: needed where ``loss.perceptual`` has a weight.
        judge: the discriminator, with weights that take no gradient.
    Raises:
        ConfigurationError: there is no perceptual network for ``loss.perceptual``.
    """

    def __init__(
        self,
        recipe: Recipe,
        fabric: Fabric,
        *,
        perceptual: PerceptualLoss | None,
        judge: Callable[[ImageBatch], Tensor] | None,
    ) -> None:
        if recipe.loss.perceptual and perceptual is None:
            raise ConfigurationError(
                "No perceptual network was given, and loss.perceptual is "
                f"{recipe.loss.perceptual:g}; give one, or set it to 0."
            )
        self._recipe, self._fabric = recipe, fabric
        self._pixel_terms = pixel_terms(recipe.loss)
        self._perceptual = (
            perceptual.to(fabric.device) if perceptual and recipe.loss.perceptual else None
        )
        self._judge = judge
        self.names: tuple[str, ...] = (
            *self._pixel_terms,
            *(["perceptual"] if self._perceptual else []),
            *(["gan"] if judge else []),
        )
        """Of the terms, in their order."""

    def __call__(self, sr_batch: ImageBatch, batch: TrainingBatch | QueryBatch) -> Tensor:
        """The terms, multiplied by their weights; their sum is what is made small.

        Args:
            sr_batch: the network's result but for errors, (B, 3, H, W) in [0, 1], or (B, Q, 3) in
                [-1, 1] for a ``QueryBatch``; half precision is widened first.
            batch: what it was made from and is compared with, on the device.
        Returns:
            (terms,), float32 at least.
        """
        sr_batch = at_least_float32(sr_batch)
        terms = [
            weight * distance(sr_batch, batch.target)
            for weight, distance in self._pixel_terms.values()
        ]
        if self._perceptual is not None:
            with self._fabric.autocast():
                distance = self._perceptual(sr_batch, batch.target)
            terms.append(self._recipe.loss.perceptual * distance)
        if self._judge is not None:
            loss = generator_loss(self._recipe.gan.kind, self._judge(sr_batch))
            terms.append(self._recipe.loss.gan * loss)
        return torch.stack(terms)
