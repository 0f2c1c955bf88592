"""Where queries at any place fall among the pixels of an LR image, along one axis.

Coordinates are those of the Local Texture Estimator: an axis runs from -1 to 1, pixel i of n has
its centre at ``-1 + (2i+1)/n``. All is computed in float64, so that rounding never decides which
pixel is the nearest, and narrowed at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from escsr.family.axis_view import AxisView

_SHIFT = 1e-6
"""Added to a shifted coordinate; it decides where a query lies halfway between two pixels."""
_EDGE = 1 - 1e-6
"""Shifted coordinates are clamped to plus or minus this."""


@dataclass(frozen=True, slots=True)
class AxisNeighbours:
    """The pixels of one axis that answer each query; every tensor has the queries' shape."""

    nearest: tuple[Tensor, Tensor]
    """The pixel nearest to the query shifted by half a pixel to the front, and to the back."""
    offset: tuple[Tensor, Tensor]
    """From the centre of that pixel to the query, in half pixels; floating point."""
    between: tuple[Tensor, Tensor]
    """The pixels to interpolate between, at the front and at the back; alike at a border."""
    share: Tensor
    """Of the pixel at the back in the interpolation, 0 to 1; floating point."""

    def part(self, chosen: slice) -> "AxisNeighbours":
        """Those of some queries of a row of them."""
        return self._each(lambda values: values[chosen])

    def as_column(self) -> "AxisNeighbours":
        """A row of queries as a column: broadcast with another axis's row, they make a grid."""
        return self._each(lambda values: values[:, None])

    def to(self, device: torch.device) -> "AxisNeighbours":
        """The same on a device."""
        return self._each(lambda values: values.to(device))

    def counted_from(self, first: int) -> "AxisNeighbours":
        """The same with pixels counted from ``first``, as in a window cut out of the image."""
        (near_front, near_back), (front, back) = self.nearest, self.between
        return AxisNeighbours(
            (near_front - first, near_back - first),
            self.offset,
            (front - first, back - first),
            self.share,
        )

    def span(self) -> tuple[int, int]:
        """The first pixel that any of the queries needs, and the one after the last."""
        pixels = torch.stack((*self.nearest, *self.between))
        return int(pixels.min()), int(pixels.max()) + 1

    def _each(self, change: Callable[[Tensor], Tensor]) -> "AxisNeighbours":
        return AxisNeighbours(
            (change(self.nearest[0]), change(self.nearest[1])),
            (change(self.offset[0]), change(self.offset[1])),
            (change(self.between[0]), change(self.between[1])),
            change(self.share),
        )


def pixel_centres(length: int) -> Tensor:
    """The centres of an axis's pixels, from front to back: (length,), float64, in (-1, 1)."""
    return (2 * torch.arange(length, dtype=torch.float64) + 1) / length - 1


def find_neighbours(coordinates: Tensor, length: int, dtype: torch.dtype) -> AxisNeighbours:
    """Find the pixels that answer queries along one axis.

    Args:
        coordinates: of the queries, any shape, in [-1, 1].
        length: number of pixels.
        dtype: of the offsets and shares.
    Source: Lee and Jin, "Local Texture Estimator for Implicit Representation Function", CVPR 2022,
    and its official code: shift by plus or minus 1/n, add 1e-6, clamp, take the nearest.
    """
    if coordinates.device.type != "mps":  # which has no float64; patches are small enough there
        coordinates = coordinates.double()
    nearest = (
        _nearest(coordinates - 1 / length, length),
        _nearest(coordinates + 1 / length, length),
    )
    offset = (
        _offset(coordinates, nearest[0], length).to(dtype),
        _offset(coordinates, nearest[1], length).to(dtype),
    )
    position = ((coordinates + 1) * (length / 2) - 0.5).clamp(0, length - 1)
    front = position.floor().long()
    between = (front, (front + 1).clamp(max=length - 1))
    return AxisNeighbours(nearest, offset, between, (position - front).to(dtype))


def neighbours_of(view: AxisView, num_features: int, dtype: torch.dtype) -> AxisNeighbours:
    """The pixels at hand that answer each pixel of a part of the result: on the CPU.

    Args:
        view: the part.
        num_features: pixels at hand, from ``view.start`` on; more than the image has where it was
            extended.
        dtype: of offsets and shares.
    """
    position = 2 * torch.arange(view.first, view.stop, dtype=torch.float64) + 1
    share = view.length / num_features
    coordinates = position / view.output_length * share - 2 * view.start / num_features - 1
    return find_neighbours(coordinates, num_features, dtype)


def cell_in_half_pixels(output_length: int, length: int, *, trained_scale: float) -> float:
    """The size of an output pixel in half pixels of the input, as the phase is told.

    It is 2 / scale; beyond the trained scale the cell is multiplied by scale / trained_scale and
    so stays as it was there.
    """
    return 2.0 / min(output_length / length, trained_scale)


def interpolate(
    pixels: Tensor, width: int, first: Tensor | int, axes: tuple[AxisNeighbours, AxisNeighbours]
) -> Tensor:
    """Sample images bilinearly; beyond the outermost centres the border is repeated.

    Args:
        pixels: (n, C), rows of width ``width`` one after another.
        width: of the image that the columns are counted in.
        first: place of an image's first pixel in ``pixels``, broadcast with the queries.
        axes: rows and columns of the queries, which broadcast to (…).
    Returns:
        (…, C).
    """
    rows, columns = axes
    front, back = (
        torch.lerp(
            rows_at(pixels, row * width + columns.between[0] + first),
            rows_at(pixels, row * width + columns.between[1] + first),
            columns.share[..., None],
        )
        for row in rows.between
    )
    return torch.lerp(front, back, rows.share[..., None])


def rows_at(table: Tensor, index: Tensor) -> Tensor:
    """Look rows of a table up: (n, C) at (…) -> (…, C)."""
    return table.index_select(0, index.flatten()).reshape(*index.shape, -1)


def _nearest(shifted: Tensor, length: int) -> Tensor:
    clamped = (shifted + _SHIFT).clamp(-_EDGE, _EDGE)
    return ((clamped + 1) * (length / 2)).floor().long().clamp(0, length - 1)


def _offset(coordinates: Tensor, pixel: Tensor, length: int) -> Tensor:
    centre = (2 * pixel.to(coordinates.dtype) + 1) / length - 1
    return (coordinates - centre) * length
