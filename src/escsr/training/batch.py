"""What one optimiser step is given."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from escsr.shapes import ImageBatch


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """The images of a step; of classic recipes, target and real are one and the same."""

    lr_image: ImageBatch
    """(B, 3, h, w) in [0, 1]: what the network gets."""
    target: ImageBatch
    """(B, 3, scale*h, scale*w) in [0, 1]: what losses compare its result with."""
    real: ImageBatch
    """Of the same shape: what a discriminator takes for real, which is not sharpened."""

    @classmethod
    def of_pairs(cls, lr_batch: ImageBatch, hr_batch: ImageBatch) -> Self:
        """The batch of a classic recipe."""
        return cls(lr_batch, hr_batch, hr_batch)

    @property
    def inputs(self) -> tuple[ImageBatch, ...]:
        """What the network is called with."""
        return (self.lr_image,)

    def to(self, device: torch.device) -> "TrainingBatch":
        """The same on a device; page-locked memory is copied while the program goes on."""
        return self._mapped(lambda images: images.to(device, non_blocking=True))

    def parts(self, count: int) -> Iterator["TrainingBatch"]:
        """Cut the batch into parts of equal size."""
        columns = (images.chunk(count) for images in (self.lr_image, self.target, self.real))
        return (TrainingBatch(*images) for images in zip(*columns, strict=True))

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> "TrainingBatch":
        target = function(self.target)
        real = target if self.real is self.target else function(self.real)
        return TrainingBatch(function(self.lr_image), target, real)
