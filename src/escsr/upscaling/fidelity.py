"""Hold a result to its source: what a network adds is detail, never a tint, a shade or a ripple.

``keep_colours`` gives a result the low frequencies of its source. ``hold_flat_regions`` gives
regions where nothing changes the value of the source: a network misses it by a level or two some
way off an edge, and by up to 25 levels beside the image's border, where its convolutions see zeros.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from escsr.family.axis_view import AxisView
from escsr.upscaling.tiles import AxisScale, Floats

BLUR_SIGMA_PIXELS = 4.0
"""Standard deviation of the Gaussian that parts tone from detail, in LR pixels. Narrower ones begin
to correct detail, which costs PSNR; wider ones follow a drift that changes over the image less
closely (``docs/fidelity.md`` has the table, ``benchmarks/measure_fidelity.py`` measures it)."""

BLUR_REACH_PIXELS = math.ceil(3 * BLUR_SIGMA_PIXELS)
"""How far the Gaussian looks, in LR pixels. Less than the overlap of tiles that is taken unless one
is asked for, so where it is cut off by a tile's border the neighbour's pixels count most."""

_VALUES_AT_ONCE = 1 << 15
"""Of arrays that should stay in the cache."""

COLOUR_STEPS = ("cross", "square", "cross", "square")
"""How the surroundings grow in which nothing may change, in LR pixels: to an octagon of 4 pixels to
each side. Bilinear sampling adds one, so 6 pixels off an edge nothing of the network is left."""
OPACITY_STEPS = ("cross",)
"""Nearer to the edge: cut-outs are wholly opaque and wholly transparent 3 pixels off it."""

FLATNESS_REACH_PIXELS = len(COLOUR_STEPS) + 1
"""How far the weight of ``hold_flat_regions`` looks, in LR pixels."""

_TOLERANCE = 2.0**-17
"""Values in floating point that differ less are alike: half a level of 16 bits."""


def keep_colours(
    sr_image: Floats,
    lr_image: Floats,
    *,
    sigma_pixels: float = BLUR_SIGMA_PIXELS,
    views: tuple[AxisView, ...] | None = None,
) -> Floats:
    """Give a result the low frequencies of its source; its high frequencies stay as they are.

    ``S + up(blur(L - down(S)))``: ``down`` is the mean of each LR pixel's rectangle of what will
    be seen of S, that is within [0, 1]; ``up`` is bilinear. What overshoots [0, 1] stays beyond, so
    that white stays white. The Gaussian averages those neighbours that exist, so that borders are
    not darkened.

    Args:
        sr_image: S, (B, 3, H', W') not clamped, H' >= H and W' >= W.
        lr_image: L, (B, 3, H, W) in [0, 1].
        sigma_pixels: of the Gaussian, in LR pixels.
        views: which rows and columns of a whole result S is, and where L begins in the image; else
            S covers L from border to border.
    Returns:
        (B, 3, H', W'), not clamped.
    """
    if views is None:
        views = tuple(
            AxisView.whole(length=length, output_length=output_length)
            for length, output_length in zip(lr_image.shape[2:], sr_image.shape[2:], strict=True)
        )
    rows, columns = (
        _Axis.of_view(view, length) for view, length in zip(views, lr_image.shape[2:], strict=True)
    )
    drift = lr_image - _mean_per_pixel(sr_image, rows, columns)
    return _add_smoothed(drift, sr_image, rows, columns, sigma_pixels)


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of an LR image, or of a part of it, beside that of its result."""

    length: int
    """LR pixels at hand."""
    first: int
    """Pixel of the whole result that the result at hand begins with."""
    stop: int
    """One past the last."""
    numerator: int
    """The factor, as a fraction: of the whole result's length …"""
    denominator: int
    """… over the whole image's."""
    start: int
    """Place of the first LR pixel at hand in the whole image; negative in a margin."""

    @classmethod
    def of_view(cls, view: AxisView, length: int) -> "_Axis":
        return cls(length, view.first, view.stop, view.output_length, view.length, view.start)

    @classmethod
    def of_stretch(cls, axis: AxisScale, start: int, stop: int, first: int, last: int) -> "_Axis":
        """LR pixels ``start`` to ``stop`` and result ``first`` to ``last``, margins included."""
        return cls(
            stop - start,
            first - axis.output_before,
            last - axis.output_before,
            axis.output_length,
            axis.length,
            start - axis.before,
        )

    @property
    def factor(self) -> int | None:
        """The factor, where it is whole and both begin together."""
        whole = self.numerator // self.denominator
        is_whole = whole * self.denominator == self.numerator
        begins = self.first == self.start * whole
        return (
            whole if is_whole and begins and self.stop - self.first == whole * self.length else None
        )

    def touched(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Of each LR pixel, the first pixel of the result at hand that it overlaps, and the end."""
        pixel = np.arange(self.start, self.start + self.length)
        first = pixel * self.numerator // self.denominator - self.first
        stop = -(-(pixel + 1) * self.numerator // self.denominator) - self.first
        # At the borders of a part, rounding may leave a pixel less than its own.
        stop = stop.clip(1, self.stop - self.first)
        return np.minimum(first.clip(0), stop - 1), stop

    def samples(self) -> "Samples":
        """Where the pixels of the result lie among the LR pixels at hand."""
        place = np.arange(self.first, self.stop, dtype=np.float64)
        position = (place + 0.5) * (self.denominator / self.numerator) - 0.5 - self.start
        return Samples.at(position, length=self.length)


def _add_smoothed(
    drift: Floats, sr_image: Floats, rows: _Axis, columns: _Axis, sigma: float = BLUR_SIGMA_PIXELS
) -> Floats:
    """``S + up(blur(drift))``, a plane at a time."""
    result = np.empty_like(sr_image)
    down, across = rows.samples(), columns.samples()
    for index in np.ndindex(*sr_image.shape[:2]):
        smooth = down.interpolated(blur(drift[index], sigma), 0)
        across.interpolate_columns(smooth, result[index], columns.factor)
        result[index] += sr_image[index]
    return result


def blur(plane: Floats, sigma_pixels: float = BLUR_SIGMA_PIXELS) -> Floats:
    """Average with Gaussian weights those neighbours that exist, so borders are not darkened.

    (H, W) -> (H, W); it looks ``BLUR_REACH_PIXELS`` far with ``BLUR_SIGMA_PIXELS``. Sums of shifted
    arrays, since a library for matrix products ends the process where it has no memory for itself.
    """
    reach = math.ceil(3 * sigma_pixels)
    weights = np.exp(-(np.arange(reach + 1) ** 2) / (2 * sigma_pixels**2)).astype(np.float32)
    by_rows = np.empty_like(plane)
    height, width = plane.shape
    step = max(1, _VALUES_AT_ONCE // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        first, last = max(0, top - reach), min(height, bottom + reach)
        part = np.zeros((bottom - top + 2 * reach, width), np.float32)
        part[reach - (top - first) : reach + last - top] = plane[first:last]
        _sum_of_shifted(part, 0, weights, by_rows[top:bottom])
    result = np.empty_like(plane)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        part = np.zeros((rows.stop - top, width + 2 * reach), np.float32)
        part[:, reach : reach + width] = by_rows[rows]
        _sum_of_shifted(part, 1, weights, result[rows])
    result /= _total_weight(height, weights)[:, None]
    result /= _total_weight(width, weights)
    return result


def _sum_of_shifted(padded: Floats, axis: int, weights: Floats, into: Floats) -> None:
    """Convolve one axis with a symmetric kernel whose half is given, from its middle on."""
    reach, length = len(weights) - 1, into.shape[axis]

    def shifted(by: int) -> Floats:
        place = slice(reach + by, reach + by + length)
        return padded[place] if axis == 0 else padded[:, place]

    np.multiply(shifted(0), weights[0], out=into)
    pair = np.empty_like(into)
    for distance in range(1, reach + 1):
        np.add(shifted(-distance), shifted(distance), out=pair)
        pair *= weights[distance]
        into += pair


def _total_weight(length: int, weights: Floats) -> Floats:
    """Of the neighbours that exist, for each pixel of an axis."""
    total = np.zeros(length)
    for distance in range(1 - len(weights), len(weights)):
        first, stop = max(0, -distance), min(length, length - distance)
        if first < stop:
            total[first:stop] += weights[abs(distance)]
    return total.astype(np.float32)


def _mean_per_pixel(sr_image: Floats, rows: _Axis, columns: _Axis) -> Floats:
    """The mean over each LR pixel; where the factor is not whole, of all pixels that it touches."""
    down, across = rows.factor, columns.factor
    if down is None or across is None:
        return _mean_of_touched(_mean_of_touched(sr_image.clip(0, 1), 2, rows), 3, columns)
    batch, channels, height, width = sr_image.shape
    mean = np.empty((batch, channels, rows.length, columns.length), np.float32)
    step = max(1, _VALUES_AT_ONCE // (width * down)) * down
    for plane, of_plane in zip(
        sr_image.reshape(-1, height, width), mean.reshape(-1, *mean.shape[2:]), strict=True
    ):
        for top in range(0, height, step):
            seen = plane[top : top + step].clip(0, 1)
            seen = seen.reshape(-1, down, width)
            by_rows = seen[:, 0] if down == 1 else seen[:, 0] + seen[:, 1]
            for index in range(2, down):
                by_rows += seen[:, index]
            total = of_plane[top // down : top // down + len(by_rows)]
            total[:] = by_rows[:, ::across]
            for index in range(1, across):
                total += by_rows[:, index::across]
    mean /= np.float32(down * across)
    return mean


def _mean_of_touched(values: Floats, axis: int, along: _Axis) -> Floats:
    """Means by differences of running sums; in float64, which keeps them."""
    start, stop = along.touched()
    sums = values.cumsum(axis, dtype=np.float64)
    sums = np.concatenate((np.zeros_like(sums.take([0], axis)), sums), axis=axis)
    count = (stop - start).reshape([-1 if index == axis else 1 for index in range(4)])
    return ((sums.take(stop, axis) - sums.take(start, axis)) / count).astype(np.float32)


ReadRows = Callable[[int, int], Floats]
"""First row of the LR image and one past the last -> (B, 3, rows, W) in [0, 1]."""


def keep_colours_of_bands(
    bands: Iterator[Floats], read_rows: ReadRows, scales: tuple[AxisScale, AxisScale]
) -> Iterator[Floats]:
    """What ``keep_colours`` gives on the whole image, as soon as rows are known.

    Rows wait until the LR rows are known that the Gaussian sees from them.

    Args:
        bands: (B, 3, rows, W') float32, not clamped; together the whole result.
        read_rows: of the LR image.
        scales: from it to the result, by rows and by columns.
    Yields:
        (B, 3, rows, W'), in other bands; together the whole result.
    """
    down, across = scales
    columns = _Axis.of_stretch(across, 0, across.total_length, 0, across.total_output)
    waiting: Floats | None = None
    drift: Floats | None = None
    top, drift_top, final = 0, 0, 0
    for band in bands:
        waiting = band if waiting is None else np.concatenate((waiting, band), axis=2)
        known = top + waiting.shape[2]
        is_end = known == down.total_output
        # An LR row is known with the last of the rows that it touches.
        complete = down.total_length if is_end else down.complete(known)
        first = drift_top + (0 if drift is None else drift.shape[2])
        if complete > first:
            start = max(top, down.touched(first, first + 1)[0])
            stop = min(known, down.touched(complete - 1, complete)[1])
            rows = _Axis.of_stretch(down, first, complete, start, stop)
            seen = _mean_per_pixel(waiting[:, :, start - top : stop - top], rows, columns)
            more = read_rows(first, complete) - seen
            drift = more if drift is None else np.concatenate((drift, more), axis=2)
        last = down.total_length if is_end else max(final, complete - BLUR_REACH_PIXELS - 1)
        if last == final:
            continue
        assert drift is not None
        start, stop = down.at(final), down.at(last)
        rows = _Axis.of_stretch(down, drift_top, drift_top + drift.shape[2], start, stop)
        yield _add_smoothed(drift, waiting[:, :, start - top : stop - top], rows, columns)
        final = last
        # A row of the LR image that is not known yet may touch rows before its own.
        kept = min(stop, down.touched(final, final)[0])
        waiting, top = waiting[:, :, kept - top :].copy(), kept
        kept = max(0, final - BLUR_REACH_PIXELS - 1)
        drift, drift_top = drift[:, :, kept - drift_top :].copy(), kept


def flatness(image: npt.NDArray[Any], steps: Sequence[str] = COLOUR_STEPS) -> Floats:
    """How far each pixel is from the nearest change of value.

    Args:
        image: (C, H, W) of any dtype; a pixel changes if one of its C values does.
        steps: of growing surroundings, "cross" or "square".
    Returns:
        (H, W): the share of the surroundings, the smallest first, in which no pixel differs from
        its neighbour, from 0 to 1. Beyond the image nothing changes.
    """
    changed = np.zeros(image.shape[1:], bool)
    for values in image:
        differs = _differ(values[1:], values[:-1])
        changed[:-1] |= differs
        changed[1:] |= differs
        differs = _differ(values[:, 1:], values[:, :-1])
        changed[:, :-1] |= differs
        changed[:, 1:] |= differs
    clean = np.zeros(changed.shape, np.uint8)
    for step in steps:
        changed = _grown(changed, step)
        clean += ~changed
    return clean.astype(np.float32) / np.float32(len(steps))


def hold_flat_regions(
    result: Floats,
    source: Floats,
    rows: "Samples",
    columns: "Samples",
    *,
    steps: Sequence[str] = COLOUR_STEPS,
) -> Floats:
    """Give flat regions of a result the value of their source.

    Results are blended towards the source, from nothing beside the nearest change of value to
    wholly where there is none within ``steps``.

    Args:
        result: (C, h, w), not clamped; changed in place.
        source: (C, H, W) in [0, 1], what it was made of, or a part that holds
            ``FLATNESS_REACH_PIXELS`` around the samples where the image goes on.
        rows: where rows of the result lie among those of the source.
        columns: likewise.
        steps: as for ``flatness``.
    Returns:
        ``result``.
    """
    weight = flatness(source, steps)
    # Photographs hardly have flat regions: look only where there are some.
    is_flat = weight > 0
    rows = rows.within(np.logical_or.reduce(is_flat, axis=1))
    columns = columns.within(np.logical_or.reduce(is_flat, axis=0))
    if rows.count == 0 or columns.count == 0:
        return result
    weight = columns.interpolated(rows.interpolated(weight, 0), 1)
    part = result[:, rows.places, columns.places]
    for plane, values in zip(part, source, strict=True):
        nearest = values[rows.nearest[:, None], columns.nearest]
        change = nearest - plane
        # Each way gives its own end exactly: the network's value at 0, the source's at 1.
        plane[:] = np.where(weight < 0.5, plane + weight * change, nearest - (1 - weight) * change)
    return result


@dataclass(frozen=True, slots=True)
class Samples:
    """Where a stretch of a result's axis lies among the pixels of its source."""

    places: slice
    """Of the result."""
    front: npt.NDArray[np.int64]
    """The pixel before each sample, (n,); at a border the outermost."""
    back: npt.NDArray[np.int64]
    """The pixel behind it."""
    share: Floats
    """Of the latter when interpolating, 0 to 1."""
    nearest: npt.NDArray[np.int64]
    """The pixel in which the sample lies."""

    @classmethod
    def at(cls, positions: npt.NDArray[np.float64], *, length: int) -> "Samples":
        """Find them.

        Args:
            positions: (n,), 0 being the centre of the first pixel.
            length: number of pixels; positions beyond are clamped.
        """
        clamped = positions.clip(0, length - 1)
        front = np.floor(clamped).astype(np.int64)
        return cls(
            places=slice(0, positions.size),
            front=front,
            back=np.minimum(front + 1, length - 1),
            share=(clamped - front).astype(np.float32),
            nearest=np.floor(positions + 0.5).astype(np.int64).clip(0, length - 1),
        )

    @property
    def count(self) -> int:
        """Number of samples."""
        return self.nearest.size

    def within(self, chosen: npt.NDArray[np.bool_]) -> "Samples":
        """From the first to the last sample that touches a chosen pixel: (length,) bool."""
        (touched,) = np.nonzero(chosen[self.front] | chosen[self.back])
        first, stop = (int(touched[0]), int(touched[-1]) + 1) if touched.size else (0, 0)
        part = slice(first, stop)
        return Samples(
            part, self.front[part], self.back[part], self.share[part], self.nearest[part]
        )

    def interpolate_columns(self, values: Floats, into: Floats, factor: int | None) -> None:
        """Sample the last axis of (H, W) linearly: (H, W').

        Args:
            values: LR pixels.
            into: the result.
            factor: where W' is a whole multiple of W, and both begin together; it is faster.
        """
        if factor is None:
            into[:] = self.interpolated(values, 1)
            return
        width = values.shape[1]
        for phase in range(factor):
            # Between the borders each phase has the same neighbours and the same share.
            middle = min(width // 2, width - 1) * factor + phase
            back = int(self.back[middle]) - middle // factor
            share, front = self.share[middle], int(self.front[middle]) - middle // factor
            first, stop = max(0, -front), min(width, width - max(back, 0))
            phased = into[:, phase::factor]
            phased[:] = values
            if back != front:
                ahead = values[:, first + back : stop + back]
                behind = values[:, first + front : stop + front]
                change = ahead - behind
                change *= share
                change += behind
                phased[:, first:stop] = change

    def interpolated(self, values: Floats, axis: int) -> Floats:
        """Sample an axis linearly; equal values give exactly that value."""
        front, back = values.take(self.front, axis), values.take(self.back, axis)
        share = self.share.reshape([-1 if index == axis else 1 for index in range(values.ndim)])
        back -= front
        back *= share
        back += front
        return back


def _differ(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if one.dtype.kind == "f":
        return np.abs(one - other) > _TOLERANCE
    return one != other


def _grown(mask: npt.NDArray[np.bool_], step: str) -> npt.NDArray[np.bool_]:
    """Grow a mask by a pixel: to its four neighbours, or to all eight."""
    by_rows = mask.copy()
    by_rows[1:] |= mask[:-1]
    by_rows[:-1] |= mask[1:]
    start = by_rows if step == "square" else mask
    grown = by_rows.copy()
    grown[:, 1:] |= start[:, :-1]
    grown[:, :-1] |= start[:, 1:]
    return grown
