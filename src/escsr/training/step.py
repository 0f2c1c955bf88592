"""One step of training: forward, loss, backward, optimiser, average; then the discriminator's."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor, nn

from escsr.errors import ConfigurationError, TrainingError
from escsr.model.autocast import at_least_float32
from escsr.shapes import ImageBatch
from escsr.training.adversarial import DISCRIMINATOR_LOSSES, DiscriminatorStep, generator_loss
from escsr.training.arbitrary_scale import trained_module
from escsr.training.batches import StepBatch
from escsr.training.optimisation import learning_rate_at, set_learning_rate, take_step
from escsr.training.perceptual import PerceptualLoss
from escsr.training.recipe import LossRecipe, Recipe
from escsr.training.state import TrainingState


class TrainingStep:
    """Trains the network of a state, on the device and with the processes of a fabric.

    Args:
        recipe: what to do.
        state: its network, average and optimiser move to the device.
        fabric: launched.
        perceptual: needed where ``loss.perceptual`` has a weight.
    Raises:
        TrainingError: a batch cannot be divided among the processes and micro-batches.
        ConfigurationError: ``perceptual`` is missing.
    """

    def __init__(
        self,
        recipe: Recipe,
        state: TrainingState,
        fabric: Fabric,
        *,
        perceptual: PerceptualLoss | None = None,
    ) -> None:
        parts = fabric.world_size * recipe.optimizer.micro_batches
        if recipe.data.batch_size % parts:
            raise TrainingError(
                f"A batch of {recipe.data.batch_size} cannot be divided among {fabric.world_size} "
                f"processes with {recipe.optimizer.micro_batches} micro-batches each; set "
                "data.batch_size to a multiple."
            )
        self.state = state
        self._recipe, self._fabric = recipe, fabric
        trained = trained_module(recipe, state.network)
        network: nn.Module = torch.compile(trained) if recipe.compile else trained  # pyright: ignore[reportAssignmentType]
        state.averaged_network.to(fabric.device)
        state.precision = fabric.strategy.precision
        self._network: _FabricModule
        self._optimizer: _FabricOptimizer
        self._network, self._optimizer = fabric.setup(network, state.optimizer)
        adversary = state.adversary
        self._discriminator = DiscriminatorStep(recipe, adversary, fabric) if adversary else None
        judge = self._discriminator.judge if self._discriminator else None
        self._objective = Objective(recipe, fabric, perceptual=perceptual, judge=judge)

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Of the terms of the loss, then of the discriminator's; none if the loss has one term."""
        terms = self._objective.names
        own = DISCRIMINATOR_LOSSES if self._discriminator else ()
        return (*terms, *own) if len(terms) > 1 or own else ()

    def __call__(self, batch: StepBatch) -> Tensor:
        """Train on this process's part of a batch and count the step.

        Args:
            batch: on any device.
        Returns:
            The loss, then a number for each of ``loss_names``; (1 + names,), without gradient, on
            the device.
        """
        recipe, state = self._recipe, self.state
        set_learning_rate(state.optimizer, learning_rate_at(recipe, state.step))
        parts = list(batch.to(self._fabric.device).parts(recipe.optimizer.micro_batches))
        self._optimizer.zero_grad(set_to_none=True)
        terms, sr_parts = self._accumulate_gradients(parts)
        clip_norm = recipe.optimizer.clip_norm
        take_step(self._fabric, self._network, self._optimizer, clip_norm=clip_norm)
        losses = [terms.sum()[None]]
        if self.loss_names:
            losses.append(terms)
        if self._discriminator is not None:
            losses.append(self._discriminator([part.real for part in parts], sr_parts, state.step))
        state.average(recipe.ema_decay)
        state.step += 1
        return torch.cat(losses)

    def _accumulate_gradients(self, parts: Sequence[StepBatch]) -> tuple[Tensor, list[ImageBatch]]:
        """The terms of the loss, (terms,), and for a discriminator the results; no gradients."""
        terms = torch.zeros(len(self._objective.names), device=self._fabric.device)
        sr_parts: list[ImageBatch] = []
        for number, part in enumerate(parts, start=1):
            with self._fabric.no_backward_sync(self._network, enabled=number < len(parts)):
                sr_part = self._network(*part.inputs)
                part_terms = self._objective(sr_part, part) / len(parts)
                self._fabric.backward(part_terms.sum())
            terms += part_terms.detach()
            if self._discriminator is not None:
                sr_parts.append(sr_part.detach())
        return terms, sr_parts


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

    def __call__(self, sr_batch: ImageBatch, batch: StepBatch) -> Tensor:
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
