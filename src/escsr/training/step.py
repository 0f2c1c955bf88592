"""One optimiser step: forward, loss, backward, AdamW, moving average."""

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor, nn

from escsr.errors import TrainingError
from escsr.shapes import ImageBatch
from escsr.training.losses import weighted_loss
from escsr.training.recipe import Recipe
from escsr.training.schedule import learning_rate_at
from escsr.training.state import TrainingState


class TrainingStep:
    """Trains the network of a state, on the device and with the processes of a fabric.

    Args:
        recipe: what to do.
        state: its network, average and optimiser move to the device.
        fabric: launched.
    Raises:
        TrainingError: a batch cannot be divided among the processes and micro-batches.
    """

    def __init__(self, recipe: Recipe, state: TrainingState, fabric: Fabric) -> None:
        parts = fabric.world_size * recipe.optimizer.micro_batches
        if recipe.data.batch_size % parts:
            raise TrainingError(
                f"A batch of {recipe.data.batch_size} cannot be divided among {fabric.world_size} "
                f"processes with {recipe.optimizer.micro_batches} micro-batches each; set "
                "data.batch_size to a multiple."
            )
        self.state = state
        self._recipe, self._fabric = recipe, fabric
        network: nn.Module = torch.compile(state.network) if recipe.compile else state.network  # pyright: ignore[reportAssignmentType]
        state.averaged_network.to(fabric.device)
        state.precision = fabric.strategy.precision
        self._network: _FabricModule
        self._optimizer: _FabricOptimizer
        self._network, self._optimizer = fabric.setup(network, state.optimizer)

    def __call__(self, lr_batch: ImageBatch, hr_batch: ImageBatch) -> Tensor:
        """Train on this process's part of a batch and count the step.

        Args:
            lr_batch: (B, 3, h, w) in [0, 1], on any device.
            hr_batch: (B, 3, scale*h, scale*w).
        Returns:
            The loss, a scalar without gradient, on the device.
        """
        recipe, state = self._recipe, self.state
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate_at(recipe, state.step)
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._accumulate_gradients(lr_batch, hr_batch)
        if recipe.optimizer.clip_norm is not None:
            # float16's scaler skips a step whose gradient is not finite; else the loop says so.
            self._fabric.clip_gradients(
                self._network,
                self._optimizer,
                max_norm=recipe.optimizer.clip_norm,
                error_if_nonfinite=False,
            )
        self._optimizer.step()
        state.average(recipe.ema_decay)
        state.step += 1
        return loss

    def _accumulate_gradients(self, lr_batch: ImageBatch, hr_batch: ImageBatch) -> Tensor:
        count = self._recipe.optimizer.micro_batches
        total = torch.zeros((), device=self._fabric.device)
        parts = zip(lr_batch.chunk(count), hr_batch.chunk(count), strict=True)
        for number, (lr_part, hr_part) in enumerate(parts, start=1):
            lr_part, hr_part = (
                part.to(self._fabric.device, non_blocking=True) for part in (lr_part, hr_part)
            )
            with self._fabric.no_backward_sync(self._network, enabled=number < count):
                loss = weighted_loss(self._network(lr_part), hr_part, self._recipe.loss) / count
                self._fabric.backward(loss)
            total += loss.detach()
        return total
