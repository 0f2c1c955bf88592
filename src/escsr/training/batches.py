"""Batches of training: what a training set yields, and what a step computes with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Protocol, Self, TypeAlias

import torch
from torch import Tensor

from escsr.shapes import ImageBatch


class _TensorBatch:
    """What all batches can do: a dataclass of tensors whose first dimension is the batch."""

    def to(self, device: torch.device) -> Self:
        """The same on a device; page-locked memory is copied while the program goes on."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The same in page-locked memory, from which a CUDA device copies faster."""
        return self._each(lambda tensor: tensor.pin_memory())

    def parts(self, count: int) -> Iterator[Self]:
        """Cut the batch into parts of equal size."""
        columns = (tensor.chunk(count) for tensor in self.tensors)
        return (type(self)(*tensors) for tensors in zip(*columns, strict=True))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))  # pyright: ignore[reportArgumentType]

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        different = {id(tensor): tensor for tensor in self.tensors}  # one may have two roles
        changed = {key: change(tensor) for key, tensor in different.items()}
        return type(self)(*(changed[id(tensor)] for tensor in self.tensors))


@dataclass(frozen=True, slots=True)
class PairBatch(_TensorBatch):
    """LR and HR patches; the target and the real images differ only in real-world training."""

    lr_image: ImageBatch
    """(B, 3, h, w) in [0, 1]: what the network gets."""
    target: ImageBatch
    """(B, 3, scale*h, scale*w) in [0, 1]: what losses compare its result with."""
    real: ImageBatch
    """Of the same shape: what a discriminator takes for real, which is not sharpened."""

    @classmethod
    def of_patches(cls, lr_batch: ImageBatch, hr_batch: ImageBatch) -> Self:
        """The HR patches are both target and real."""
        return cls(lr_batch, hr_batch, hr_batch)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the network is called with."""
        return (self.lr_image,)


@dataclass(frozen=True, slots=True)
class QueryBatch(_TensorBatch):
    """LR patches and pixels to predict, for a network for any scale."""

    lr_image: ImageBatch
    """(B, 3, h, h) in [0, 1]."""
    coordinates: Tensor
    """(B, Q, 2): row and column of each query, [-1, 1] from edge to edge of the patch."""
    cell: Tensor
    """(B, 2): height and width of a query's pixel, in the same unit."""
    target: Tensor
    """(B, Q, 3) in [-1, 1]: the pixels' colours, normalised as the loss compares them."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What ``QueryNetwork`` takes."""
        return self.lr_image, self.coordinates, self.cell

    @property
    def real(self) -> Tensor:
        """The target: no discriminator judges single pixels."""
        return self.target


@dataclass(frozen=True, slots=True)
class PhotographBatch(_TensorBatch):
    """Photographs of which ``DegradedBatches`` makes pairs, on the device."""

    photographs: ImageBatch
    """(B, 3, S, S) in [0, 1]."""


StepBatch: TypeAlias = PairBatch | QueryBatch
"""What a training step computes with."""

Batch: TypeAlias = StepBatch | PhotographBatch
"""What a training set gives."""


class BatchSource(Protocol):
    """Makes the batch of any step, from the seed and the step alone; threads may share it.

    So a run that is stopped goes on as if it had not been, whatever is cached and however many
    threads or processes make the batches.
    """

    @property
    def image_count(self) -> int:
        """Images in use, as far as is known."""
        ...

    def batch(self, step: int, *, rank: int = 0, world_size: int = 1) -> Batch:
        """The batch of a step, or one process's share of it.

        Those of all ranks, one after the other, are the batch of ``world_size=1``.

        Args:
            step: counted from 0.
            rank: which of the processes this is.
            world_size: number of processes; must divide the batch size.
        Returns:
            B / world_size images of each tensor, float32, channels_last, on the CPU.
        Raises:
            TrainingError: a file is gone or has changed, or the batch cannot be shared evenly.
        """
        ...

    def close(self) -> None:
        """Let go of what is in memory; there are no batches after this."""
        ...
