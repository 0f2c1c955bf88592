"""A rectangle of a feature map that knows where it lies, and how far its pixels can be trusted."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from escsr.shapes import FeatureMap


@dataclass(frozen=True, kw_only=True, slots=True)
class Rectangle:
    """Rows and columns of a map, in its pixels."""

    top: int
    """First row."""
    bottom: int
    """One past the last row."""
    left: int
    """First column."""
    right: int
    """One past the last column."""

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def num_pixels(self) -> int:
        """Pixels covered."""
        return self.height * self.width

    def grown(self, pixels: int, size: tuple[int, int]) -> "Rectangle":
        """More on all sides, as far as a map of (height, width) goes."""
        return Rectangle(
            top=max(0, self.top - pixels),
            bottom=min(size[0], self.bottom + pixels),
            left=max(0, self.left - pixels),
            right=min(size[1], self.right + pixels),
        )

    def shrunk(self, pixels: int, size: tuple[int, int]) -> "Rectangle":
        """Less on those sides that are not borders of a map of (height, width)."""
        return Rectangle(
            top=self.top + pixels * (self.top > 0),
            bottom=self.bottom - pixels * (self.bottom < size[0]),
            left=self.left + pixels * (self.left > 0),
            right=self.right - pixels * (self.right < size[1]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Patch:
    """A rectangle cut out of a feature map.

    A module is run on the patch as if it were a whole map, and as many pixels as the module looks
    to its sides are dropped afterwards where the patch was cut. Where it ends with the map nothing
    is dropped: there the zeros or reflections beyond the border are the map's own.
    """

    features: FeatureMap
    """(1, C, height, width)."""
    place: Rectangle
    """Where it lies."""
    size: tuple[int, int]
    """(height, width) of the map."""

    def apply(self, compute: Callable[[FeatureMap], FeatureMap], *, radius: int = 0) -> "Patch":
        """Run a module that keeps the size and looks ``radius`` pixels to each side."""
        result = Patch(features=compute(self.features), place=self.place, size=self.size)
        return result.crop(self.place.shrunk(radius, self.size)) if radius else result

    def crop(self, place: Rectangle) -> "Patch":
        """A part of it; ``place`` lies within."""
        if place == self.place:
            return self
        top, left = place.top - self.place.top, place.left - self.place.left
        assert min(top, left, self.place.bottom - place.bottom, self.place.right - place.right) >= 0
        cut = self.features[:, :, top : top + place.height, left : left + place.width]
        return Patch(features=cut, place=place, size=self.size)

    def plus(self, other: "Patch") -> "Patch":
        """The sum, where ``other`` lies, which is within this one."""
        return Patch(
            features=self.crop(other.place).features + other.features,
            place=other.place,
            size=self.size,
        )

    def channels(self, chosen: slice) -> "Patch":
        """Some of its channels."""
        return Patch(features=self.features[:, chosen], place=self.place, size=self.size)

    def total(self) -> Tensor:
        """The sum of each channel over all pixels: (1, C, 1, 1) float64 on the CPU."""
        return self.features.double().sum(dim=(-2, -1), keepdim=True).cpu()
