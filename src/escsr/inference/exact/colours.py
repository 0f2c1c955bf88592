"""The colour guard over rows that come one band after another."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.inference.colour_guard import REACH_PIXELS, blur
from escsr.inference.exact.patch import Patch, Rectangle
from escsr.inference.tiling import AxisScale, Span
from escsr.model.autocast import without_autocast
from escsr.model.query_neighbours import interpolate, neighbours_of
from escsr.shapes import ImageBatch

ReadRows = Callable[[int, int], ImageBatch]
"""First row of the LR image and one past the last -> (B, 3, rows, W) float32."""

_REACH = REACH_PIXELS + 1
"""The Gaussian's, and a pixel to interpolate with."""


def guard_colours(
    bands: Iterator[ImageBatch], read_rows: ReadRows, scales: tuple[AxisScale, AxisScale]
) -> Iterator[ImageBatch]:
    """What ``keep_colours`` gives on the whole image, as soon as rows are known.

    Rows wait until the LR rows are known that the Gaussian sees from them.

    Args:
        bands: (B, 3, rows, W') float32, not clamped; together the whole result.
        read_rows: of the LR image.
        scales: from it to the result, by rows and by columns.
    Yields:
        (B, 3, rows, W'), in other bands; together the whole result.
    """
    guard = _Guard(read_rows, scales)
    for band in bands:
        with without_autocast(band.device):
            ready = guard.push(band)
        if ready is not None:
            yield ready


class _Guard:
    def __init__(self, read_rows: ReadRows, scales: tuple[AxisScale, AxisScale]) -> None:
        self._read_rows = read_rows
        self._down, self._across = scales
        self._sr_rows: Tensor | None = None
        self._sr_top = 0
        self._drift: Tensor | None = None
        self._drift_top = 0
        self._final = 0

    def push(self, band: ImageBatch) -> ImageBatch | None:
        """Take rows of the result; hand back those that are final now."""
        waiting = band if self._sr_rows is None else torch.cat((self._sr_rows, band), dim=2)
        self._sr_rows = waiting
        known = self._sr_top + waiting.shape[2]
        down = self._down
        is_end = known == down.total_output
        # An LR row is known with the last of the rows that it touches.
        complete = down.total_length if is_end else down.complete(known)
        self._extend_drift(complete)
        final = down.total_length if is_end else max(self._final, complete - _REACH)
        if final == self._final:
            return None
        result = self._finish(final, complete)
        self._forget(final)
        return result

    def _extend_drift(self, complete: int) -> None:
        first = self._drift_top + (0 if self._drift is None else self._drift.shape[2])
        if complete <= first:
            return
        assert self._sr_rows is not None
        seen = _mean_per_pixel(
            self._sr_rows.clamp(0, 1), self._sr_top, (first, complete), self._down, self._across
        )
        drift = self._read_rows(first, complete) - seen
        self._drift = drift if self._drift is None else torch.cat((self._drift, drift), dim=2)

    def _finish(self, final: int, complete: int) -> ImageBatch:
        """Rows of the result that LR rows from ``self._final`` to ``final`` make."""
        assert self._sr_rows is not None and self._drift is not None
        top, size = self._drift_top, (self._down.total_length, self._across.total_length)
        place = Rectangle(top=top, bottom=complete, left=0, right=size[1])
        smooth = Patch(features=self._drift, place=place, size=size).apply(
            blur, radius=REACH_PIXELS
        )
        first, last = self._down.at(self._final), self._down.at(final)
        wanted = Span(start=self._final, stop=final)
        change = _enlarge(smooth, wanted, self._down, self._across)
        return change + self._sr_rows[:, :, first - self._sr_top : last - self._sr_top]

    def _forget(self, final: int) -> None:
        assert self._sr_rows is not None and self._drift is not None
        self._final = final
        first = self._down.at(final)
        # A row of the LR image that is not known yet may touch rows before its own.
        first = min(first, self._down.touched(final, final)[0])
        self._sr_rows = self._sr_rows[:, :, first - self._sr_top :].clone()
        self._sr_top = first
        top = max(0, final - _REACH)
        self._drift = self._drift[:, :, top - self._drift_top :].clone()
        self._drift_top = top


def _mean_per_pixel(
    sr_rows: ImageBatch, sr_top: int, lr_rows: tuple[int, int], down: AxisScale, across: AxisScale
) -> ImageBatch:
    """The mean over each pixel of some LR rows, of all pixels that it touches."""
    if down.is_whole and across.is_whole:
        factors = tuple(axis.output_length // axis.length for axis in (down, across))
        first, last = (factors[0] * row - sr_top for row in lr_rows)
        return F.avg_pool2d(sr_rows[:, :, first:last], factors)
    by_rows = _mean_of_stretches(sr_rows, 2, down, lr_rows, sr_top)
    return _mean_of_stretches(by_rows, 3, across, (0, across.total_length), 0).float()


def _mean_of_stretches(
    values: Tensor, dim: int, axis: AxisScale, chosen: tuple[int, int], first: int
) -> Tensor:
    """Means by differences of running sums; in float64, which keeps them."""
    edges = [axis.touched(pixel, pixel + 1) for pixel in range(*chosen)]
    start, stop = (torch.tensor(edges, device="cpu") - first).unbind(dim=1)
    sums = values.double().cumsum(dim)
    sums = torch.cat((torch.zeros_like(sums.narrow(dim, 0, 1)), sums), dim=dim)
    shape = [-1 if index == dim else 1 for index in range(values.dim())]
    count = (stop - start).reshape(shape)
    return (sums.index_select(dim, stop) - sums.index_select(dim, start)) / count


def _enlarge(smooth: Patch, wanted: Span, down: AxisScale, across: AxisScale) -> ImageBatch:
    """Bilinearly, as ``interpolate`` does with the whole map: the rows that ``wanted`` makes."""
    factors = [axis.output_length // axis.length for axis in (down, across)]
    if not (down.is_whole and across.is_whole):
        return _enlarge_by_any_factor(smooth, wanted, down, across)
    place = Rectangle(top=wanted.start, bottom=wanted.stop, left=0, right=across.total_length)
    around = smooth.crop(place.grown(1, smooth.size))
    size = (around.place.height * factors[0], across.total_output)
    larger = F.interpolate(around.features, size=size, mode="bilinear", align_corners=False)
    top = (wanted.start - around.place.top) * factors[0]
    return larger[:, :, top : top + wanted.length * factors[0]]


def _enlarge_by_any_factor(
    smooth: Patch, wanted: Span, down: AxisScale, across: AxisScale
) -> ImageBatch:
    height, width = smooth.features.shape[-2:]
    rows = neighbours_of(down.view_from(smooth.place.top, wanted), height, torch.float32)
    columns = neighbours_of(
        across.view(Span(start=0, stop=across.total_length)), width, torch.float32
    )
    images = [
        interpolate(image.permute(1, 2, 0).reshape(-1, image.shape[0]), width, 0, axes)
        for image in smooth.features
        for axes in [(rows.as_column(), columns)]
    ]
    return torch.stack([image.permute(2, 0, 1) for image in images])
