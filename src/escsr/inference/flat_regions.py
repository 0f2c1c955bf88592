"""Flat regions keep their value, whatever ripples a network leaves in them.

Where the pixels around one are all alike the right result is known: that value. A network misses
it by a level or two some way off an edge, and by up to 25 levels beside the image's border, where
its convolutions see zeros. So results are blended towards the value of the source, from nothing
beside the nearest change of value to wholly where there is none within ``COLOUR_STEPS``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COLOUR_STEPS = ("cross", "square", "cross", "square")
"""How the surroundings grow in which nothing may change, in LR pixels: to an octagon of 4 pixels to
each side. Bilinear sampling adds one, so 6 pixels off an edge nothing of the network is left."""
OPACITY_STEPS = ("cross",)
"""Nearer to the edge: cut-outs are wholly opaque and wholly transparent 3 pixels off it."""

REACH_PIXELS = len(COLOUR_STEPS) + 1
"""How far a weight looks, in LR pixels."""

_TOLERANCE = 2.0**-17
"""Values in floating point that differ less are alike: half a level of 16 bits."""


def flatness(image: Tensor, steps: Sequence[str] = COLOUR_STEPS) -> Tensor:
    """How far each pixel is from the nearest change of value.

    Args:
        image: (N, C, H, W) of any dtype; a pixel changes if one of its C values does.
        steps: of growing surroundings, "cross" or "square".
    Returns:
        (N, H, W) float32: the share of the surroundings, the smallest first, in which no pixel
        differs from its neighbour, from 0 to 1. Beyond the image nothing changes.
    """
    changed = image.new_zeros((image.shape[0], *image.shape[-2:]), dtype=torch.bool)
    for axis in (1, 2):
        length = changed.shape[axis]
        front, back = changed.narrow(axis, 0, length - 1), changed.narrow(axis, 1, length - 1)
        differs = torch.zeros_like(front)
        for values in image.unbind(dim=1):
            differs |= _differ(
                values.narrow(axis, 1, length - 1), values.narrow(axis, 0, length - 1)
            )
        front |= differs
        back |= differs
    clean = torch.zeros_like(changed, dtype=torch.uint8)
    for step in steps:
        changed = _grown(changed, step)
        clean += ~changed
    return clean.float() / len(steps)


def hold_flat_regions(
    result: Tensor,
    source: Tensor,
    rows: "Samples",
    columns: "Samples",
    *,
    steps: Sequence[str] = COLOUR_STEPS,
) -> Tensor:
    """Give flat regions of a result the value of their source.

    Args:
        result: (N, C, h, w) float32, not clamped; changed in place.
        source: (N, C, H, W) float32 in [0, 1], what it was made of, or a part that holds
            ``REACH_PIXELS`` around the samples where the image goes on.
        rows: where rows of the result lie among those of the source.
        columns: likewise.
        steps: as for ``flatness``.
    Returns:
        ``result``.
    """
    weight = flatness(source, steps)
    if weight.device.type == "cpu":
        # Photographs hardly have flat regions: look only where there are some.
        rows, columns = (
            rows.within(weight.amax((0, 2)) > 0),
            columns.within(weight.amax((0, 1)) > 0),
        )
        if rows.count == 0 or columns.count == 0:
            return result
    weight = columns.interpolated(rows.interpolated(weight, 1), 2)
    values = source.index_select(2, rows.nearest).index_select(3, columns.nearest)
    part = result[:, :, rows.places, columns.places]
    # lerp gives its end itself where the weight is 1.
    part.copy_(torch.lerp(part, values, weight[:, None]))
    return result


@dataclass(frozen=True, slots=True)
class Samples:
    """Where a stretch of a result's axis lies among the pixels of its source."""

    places: slice
    """Of the result."""
    front: Tensor
    """The pixel before each sample, (n,) integers; at a border the outermost."""
    back: Tensor
    """The pixel behind it."""
    share: Tensor
    """Of the latter when interpolating, 0 to 1; float32."""
    nearest: Tensor
    """The pixel in which the sample lies."""

    @classmethod
    def at(cls, positions: Tensor, *, length: int, device: torch.device | None = None) -> "Samples":
        """Find them.

        Args:
            positions: (n,) float64, 0 being the centre of the first pixel.
            length: number of pixels; positions beyond are clamped.
            device: of the result.
        """
        clamped = positions.clamp(0, length - 1)
        front = clamped.floor().long()
        return cls(
            places=slice(0, positions.numel()),
            front=front.to(device),
            back=(front + 1).clamp(max=length - 1).to(device),
            share=(clamped - front).float().to(device),
            nearest=(positions + 0.5).floor().long().clamp(0, length - 1).to(device),
        )

    @property
    def count(self) -> int:
        """Number of samples."""
        return self.nearest.numel()

    def within(self, chosen: Tensor) -> "Samples":
        """From the first to the last sample that touches a chosen pixel: (length,) bool."""
        touched = (chosen[self.front] | chosen[self.back]).nonzero()
        first, stop = (int(touched[0]), int(touched[-1]) + 1) if len(touched) else (0, 0)
        part = slice(first, stop)
        return Samples(
            part, self.front[part], self.back[part], self.share[part], self.nearest[part]
        )

    def interpolated(self, values: Tensor, dim: int) -> Tensor:
        """Sample an axis linearly; equal values give exactly that value."""
        shape = [-1 if axis == dim else 1 for axis in range(values.dim())]
        front, back = values.index_select(dim, self.front), values.index_select(dim, self.back)
        return torch.lerp(front, back, self.share.view(shape))


def _differ(one: Tensor, other: Tensor) -> Tensor:
    if one.is_floating_point():
        return (one - other).abs() > _TOLERANCE
    return one != other


def _grown(mask: Tensor, step: str) -> Tensor:
    """Grow a mask by a pixel: to its four neighbours, or to all eight."""
    by_rows = _grown_along(mask, 1, mask)
    if step == "square":
        return _grown_along(by_rows, 2, by_rows)
    return _grown_along(mask, 2, by_rows)


def _grown_along(mask: Tensor, axis: int, start: Tensor) -> Tensor:
    grown = start.clone()
    length = mask.shape[axis]
    grown.narrow(axis, 1, length - 1).logical_or_(mask.narrow(axis, 0, length - 1))
    grown.narrow(axis, 0, length - 1).logical_or_(mask.narrow(axis, 1, length - 1))
    return grown
