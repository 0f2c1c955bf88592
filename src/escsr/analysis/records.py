"""The questions of an analysis, and the answer where one does not apply."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Part = Literal["similarity", "receptive-field", "attribution", "kernels", "spectrum"]
PARTS: tuple[Part, ...] = get_args(Part)
"""The questions, in the order of the report."""

DEFAULT_CROP_PIXELS = 128
"""Side of the part of an image that is looked at, unless another is asked for."""
DEFAULT_STEPS = 50
"""Pieces of the attribution's path, as in its publication."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A question that makes no sense of a network or an image, and why."""

    reason: str
    """A clause that ends with a full stop."""

    def as_dict(self) -> dict[str, Any]:
        """In place of the figures, as plain JSON values."""
        return {"skipped": self.reason}


def plain_numbers(values: "Tensor", digits: int) -> list[Any]:
    """A tensor as nested lists of rounded numbers, row by row."""
    if values.ndim > 1:
        return [plain_numbers(row, digits) for row in values]
    return [plain_number(value, digits) for value in values.tolist()]


def plain_number(value: float, digits: int) -> float | None:
    """A rounded number as JSON knows it: None for NaN and infinity."""
    return round(value, digits) if math.isfinite(value) else None
