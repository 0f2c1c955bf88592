"""One step of training: forward, loss, backward, optimiser, average; then the discriminator's."""

from collections.abc import Sequence

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor, nn

from escsr.errors import TrainingError
from escsr.shapes import ImageBatch
from escsr.training.adversarial.perceptual import PerceptualLoss
from escsr.training.adversarial.step import DISCRIMINATOR_LOSSES, DiscriminatorStep
from escsr.training.arbitrary_scale.query_batch import QueryBatch
from escsr.training.arbitrary_scale.query_network import trained_module
from escsr.training.batch import TrainingBatch
from escsr.training.objective import Objective
from escsr.training.recipe import Recipe
from escsr.training.schedule import learning_rate_at
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

    def __call__(self, batch: TrainingBatch | QueryBatch) -> Tensor:
        """Train on this process's part of a batch and count the step.

        Args:
            batch: on any device.
        Returns:
            The loss, then a number for each of ``loss_names``; (1 + names,), without gradient, on
            the device.
        """
        recipe, state = self._recipe, self.state
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate_at(recipe, state.step)
        parts = list(batch.to(self._fabric.device).parts(recipe.optimizer.micro_batches))
        self._optimizer.zero_grad(set_to_none=True)
        terms, sr_parts = self._accumulate_gradients(parts)
        if recipe.optimizer.clip_norm is not None:
            # float16's scaler skips a step whose gradient is not finite; else the loop says so.
            self._fabric.clip_gradients(
                self._network,
                self._optimizer,
                max_norm=recipe.optimizer.clip_norm,
                error_if_nonfinite=False,
            )
        self._optimizer.step()
        losses = [terms.sum()[None]]
        if self.loss_names:
            losses.append(terms)
        if self._discriminator is not None:
            losses.append(self._discriminator([part.real for part in parts], sr_parts, state.step))
        state.average(recipe.ema_decay)
        state.step += 1
        return torch.cat(losses)

    def _accumulate_gradients(
        self, parts: Sequence[TrainingBatch | QueryBatch]
    ) -> tuple[Tensor, list[ImageBatch]]:
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
