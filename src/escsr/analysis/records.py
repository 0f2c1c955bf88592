"""What an analysis is asked for, and what stands where a question makes no sense."""

from dataclasses import dataclass
from typing import Literal, get_args

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
