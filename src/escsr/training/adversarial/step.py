"""The discriminator's half of a step."""

from collections.abc import Sequence

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor
from torch.func import functional_call

from escsr.shapes import ImageBatch
from escsr.training.adversarial.adversary import Adversary
from escsr.training.adversarial.gan_losses import fake_loss, real_loss
from escsr.training.recipe import Recipe
from escsr.training.schedule import learning_rate_at

DISCRIMINATOR_LOSSES = ("discriminator_real", "discriminator_fake")
"""Names of its losses in the log."""


class DiscriminatorStep:
    """Trains the discriminator of a state, on the device and with the processes of a fabric.

    Args:
        recipe: what to do.
        adversary: its network and optimiser move to the device.
        fabric: launched.
    """

    def __init__(self, recipe: Recipe, adversary: Adversary, fabric: Fabric) -> None:
        self._recipe, self._adversary, self._fabric = recipe, adversary, fabric
        self._discriminator: _FabricModule
        self._optimizer: _FabricOptimizer
        self._discriminator, self._optimizer = fabric.setup(
            adversary.discriminator, adversary.optimizer
        )

    def judge(self, sr_batch: ImageBatch) -> Tensor:
        """The judgement of results, by weights that take no gradient.

        It goes around what exchanges the gradients of processes, which would wait for some.

        Args:
            sr_batch: (B, 3, H, W) on the device; the gradient reaches it.
        Returns:
            (B, 1, H, W).
        """
        discriminator = self._adversary.discriminator
        frozen = {name: weight.detach() for name, weight in discriminator.named_parameters()}
        with self._fabric.autocast():
            return functional_call(discriminator, frozen, (sr_batch,))

    def __call__(
        self,
        real_parts: Sequence[ImageBatch],
        fake_parts: Sequence[ImageBatch],
        step: int,
    ) -> Tensor:
        """Train on this process's part of a batch.

        Args:
            real_parts: photographs, a tensor (B, 3, H, W) on the device for each micro-batch.
            fake_parts: results of the same shapes, without gradient.
            step: counted from 0; gives the learning rate.
        Returns:
            The losses on photographs and on results, (2,), without gradient.
        """
        recipe = self._recipe
        share = learning_rate_at(recipe, step) / recipe.optimizer.learning_rate
        for group in self._adversary.optimizer.param_groups:
            group["lr"] = recipe.gan.learning_rate * share
        self._optimizer.zero_grad(set_to_none=True)
        losses = self._accumulate_gradients(real_parts, fake_parts)
        if recipe.gan.clip_norm is not None:
            self._fabric.clip_gradients(
                self._discriminator,
                self._optimizer,
                max_norm=recipe.gan.clip_norm,
                error_if_nonfinite=False,
            )
        self._optimizer.step()
        self._adversary.discriminator.follow_spectral_norms()
        return losses

    def _accumulate_gradients(
        self, real_parts: Sequence[ImageBatch], fake_parts: Sequence[ImageBatch]
    ) -> Tensor:
        kind, count = self._recipe.gan.kind, len(real_parts)
        losses = torch.zeros(2, device=self._fabric.device)
        for number, (real, fake) in enumerate(zip(real_parts, fake_parts, strict=True), start=1):
            # One after the other: both at once would need twice the memory.
            with self._fabric.no_backward_sync(self._discriminator):
                loss_on_real = real_loss(kind, self._discriminator(real)) / count
                self._fabric.backward(loss_on_real)
            with self._fabric.no_backward_sync(self._discriminator, enabled=number < count):
                loss_on_fake = fake_loss(kind, self._discriminator(fake)) / count
                self._fabric.backward(loss_on_fake)
            losses += torch.stack((loss_on_real, loss_on_fake)).detach()
        return losses
