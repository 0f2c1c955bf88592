"""What an image is extended with at its borders, so that a network sees something there.

Beyond the image a network's convolutions see zeros, which it has learnt to expect beside
photographs. Beside a flat, saturated border they show as a frame. Extended by its mirror image, the
border comes out as right as the interior; photographs gain and lose nothing by it, so only sides
that are flat somewhere are extended, which costs time. A texture that repeats is extended by what
lies at its other end.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from escsr.upscaling.tiles import AxisScale

Edges = Literal["auto", "wrap"]
"""What lies beyond the borders: "auto" is nothing, or a mirror image beside flat borders; "wrap" is
the other end of an image that repeats."""

MIRROR_PIXELS = 16
"""Of a mirror image. A window of attention, so that windows stay where they are; the network's
zeros show in the outer four at most."""
WRAP_PIXELS = 32
"""Of a texture's other end; as much as tiles overlap."""
_FLAT_PIXELS = 8
"""A border is flat where as many of its pixels in a row are alike."""
_FLAT_SHARE = 1 / 4
"""A side that is flat in more of its places is extended."""
_FLAT_LEVELS = 1.5 / 255
"""Alike are values that differ by less; JPEG leaves flat regions uneven by a level."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Margins:
    """Pixels that an image is extended by, and with what."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
    wraps: bool = False
    """With the other end of the image, else with its mirror image."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is added."""
        return not (self.top or self.bottom or self.left or self.right)

    def extended_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of an image with its margins."""
        return width + self.left + self.right, height + self.top + self.bottom

    def scales(
        self, extended_size: tuple[int, int], output_size: tuple[int, int]
    ) -> tuple[AxisScale, AxisScale]:
        """How rows and columns of an extended image grow.

        Args:
            extended_size: (width, height) with margins.
            output_size: (width, height) of the result without them.
        """
        return (
            AxisScale(
                length=extended_size[1] - self.top - self.bottom,
                output_length=output_size[1],
                before=self.top,
                after=self.bottom,
            ),
            AxisScale(
                length=extended_size[0] - self.left - self.right,
                output_length=output_size[0],
                before=self.left,
                after=self.right,
            ),
        )

    def extend(self, pixels: np.ndarray) -> np.ndarray:
        """Add the margins to an array (H, W, C)."""
        if self.is_empty:
            return pixels
        widths = ((self.top, self.bottom), (self.left, self.right), (0, 0))
        return np.pad(pixels, widths, mode="wrap" if self.wraps else "symmetric")


NO_MARGINS = Margins()

WRAP_MARGINS = Margins(
    top=WRAP_PIXELS, bottom=WRAP_PIXELS, left=WRAP_PIXELS, right=WRAP_PIXELS, wraps=True
)
"""Of a texture that repeats."""


def mirror_margins(groups: list[np.ndarray]) -> Margins:
    """Choose which sides of an image are extended: those that are flat.

    Args:
        groups: (H, W, C) each, uint8, uint16 or float32: the colours, and what lies beside them.
    """
    lines_of_sides = zip(*(_border_lines(pixels) for pixels in groups), strict=True)
    top, bottom, left, right = (
        MIRROR_PIXELS * any(_is_flat(line) for line in lines) for lines in lines_of_sides
    )
    return Margins(top=top, bottom=bottom, left=left, right=right)


def cropped(
    bands: Iterator[np.ndarray], scales: tuple[AxisScale, AxisScale]
) -> Iterator[np.ndarray]:
    """Cut the margins' part off rows of a result, (rows, W', C), as they come."""
    down, across = scales
    left = across.output_before
    top = -down.output_before
    for band in bands:
        rows = slice(max(0, -top), max(0, min(band.shape[0], down.output_length - top)))
        top += band.shape[0]
        part = band[rows, left : left + across.output_length]
        if part.shape[0]:
            yield np.ascontiguousarray(part)


def _border_lines(pixels: np.ndarray) -> tuple[np.ndarray, ...]:
    """The outermost pixels of the four sides, (length, C) each."""
    return pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]


def _is_flat(line: np.ndarray) -> bool:
    """Whether many neighbours of a line (length, C) are alike."""
    allowed = _FLAT_LEVELS * (np.iinfo(line.dtype).max if line.dtype.kind == "u" else 1)
    windows = np.lib.stride_tricks.sliding_window_view(
        line, min(_FLAT_PIXELS, line.shape[0]), axis=0
    )
    ranges = windows.max(axis=-1).astype(np.float32) - windows.min(axis=-1)
    return bool((ranges.max(axis=-1) < allowed).mean() > _FLAT_SHARE)
