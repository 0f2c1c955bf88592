"""What one optimiser step of a network for any scale is given."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from escsr.shapes import ImageBatch
from escsr.training.arbitrary_scale.queries import QUERY_VALUES


@dataclass(frozen=True, slots=True)
class QueryBatch:
    """LR patches and pixels to predict; used where others use ``TrainingBatch``."""

    lr_image: ImageBatch
    """(B, 3, h, h) in [0, 1]."""
    coordinates: Tensor
    """(B, Q, 2): row and column of each query, [-1, 1] from edge to edge of the patch."""
    cell: Tensor
    """(B, 2): height and width of a query's pixel, in the same unit."""
    target: Tensor
    """(B, Q, 3) in [-1, 1]: the pixels' colours, normalised as the loss compares them."""

    @classmethod
    def of_pairs(cls, lr_batch: ImageBatch, queries: Tensor) -> Self:
        """Take a batch of ``QuerySource`` apart: (B, 3, h, h) and (B, Q, 7)."""
        assert queries.shape[-1] == QUERY_VALUES
        return cls(lr_batch, queries[..., :2], queries[:, 0, 2:4], queries[..., 4:] * 2 - 1)

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """What ``QueryNetwork`` takes."""
        return self.lr_image, self.coordinates, self.cell

    @property
    def real(self) -> Tensor:
        """The target: no discriminator judges single pixels."""
        return self.target

    def to(self, device: torch.device) -> "QueryBatch":
        """The same on a device; page-locked memory is copied while the program goes on."""
        lr_image, coordinates, cell, target = (
            values.to(device, non_blocking=True) for values in self._columns
        )
        return QueryBatch(lr_image, coordinates, cell, target)

    def parts(self, count: int) -> Iterator["QueryBatch"]:
        """Cut the batch into parts of equal size."""
        columns = (values.chunk(count) for values in self._columns)
        return (QueryBatch(*values) for values in zip(*columns, strict=True))

    @property
    def _columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.lr_image, self.coordinates, self.cell, self.target
