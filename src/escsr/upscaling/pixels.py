"""Grey, alpha and bit depth: between pixels in memory and what a network reads and makes.

A network takes RGB. Grey goes in as three equal channels and comes out as their mean, so it gains
no tint; so does colour that is grey everywhere, as scanners write it. A channel beside the colours
goes through the network as a grey image of its own. Where it is opacity, the network sees visible
colours continued beyond their edge, so that hidden colours do not bleed into them.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from escsr.images.colour import continue_colours
from escsr.images.files import ImageHeader
from escsr.upscaling.borders import (
    NO_MARGINS,
    WRAP_MARGINS,
    Edges,
    Margins,
    mirror_margins,
)
from escsr.upscaling.fidelity import (
    COLOUR_STEPS,
    FLATNESS_REACH_PIXELS,
    OPACITY_STEPS,
    Samples,
    hold_flat_regions,
)
from escsr.upscaling.tiles import AxisScale, Floats, Span

Pixels: TypeAlias = npt.NDArray[Any]
"""(H, W, C) uint8, uint16 or float32."""

Layout = Literal["grey", "grey+extra", "rgb", "rgb+extra"]

AlphaMeaning = Literal["opacity", "data"]
"""What a second or fourth channel is: opacity, or values of their own (a mask, a height map)."""

_LAYOUT_BY_CHANNELS: dict[int, Layout] = {1: "grey", 2: "grey+extra", 3: "rgb", 4: "rgb+extra"}
_VALUES_AT_ONCE = 1 << 15
_WITHOUT_EXTRA: dict[Layout, Layout] = {"grey+extra": "grey", "rgb+extra": "rgb"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceShape:
    """An image as far as memory is concerned; known before its pixels are read."""

    width: int
    """In pixels."""
    height: int
    """In pixels."""
    channels: int
    """Of the source and of the result."""
    bytes_per_sample: int
    """1, 2 or 4, of the source and of the result."""
    num_images: int
    """Images that the network sees per tile: 2 with alpha."""
    margins: Margins = NO_MARGINS
    """What the image is extended by before a network sees it."""

    @property
    def num_bytes(self) -> int:
        """What its pixels take in memory."""
        return self.width * self.height * self.channels * self.bytes_per_sample


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelPlanes:
    """Pixels in memory, read tile by tile as the network wants them.

    Between network and result a tile is "planes": (P, h, w) float32; P is ``num_planes``.
    """

    pixels: Pixels
    """(H, W, C)."""
    layout: Layout
    """What the channels mean to the network."""
    alpha: AlphaMeaning = "opacity"
    """What the extra channel is, if there is one."""
    opaque: bool = False
    """The extra channel is the maximum everywhere: it is left out of the work and restored in the
    result."""
    colourless: bool = False
    """Red, green and blue are equal everywhere, and stay so in the result."""
    margins: Margins = NO_MARGINS
    """What is to be added before a network sees it; ``extended`` adds it."""
    holds_flat: bool = False
    """Whether flat regions keep their value; those of opacity always do."""

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])

    @property
    def channels(self) -> int:
        """Channels of the source and of the result."""
        return int(self.pixels.shape[2])

    @property
    def shape(self) -> SourceShape:
        """What a plan needs to know."""
        return SourceShape(
            width=self.width,
            height=self.height,
            channels=self.channels,
            bytes_per_sample=self.pixels.dtype.itemsize,
            num_images=self.num_images,
            margins=self.margins,
        )

    @property
    def num_planes(self) -> int:
        """Planes of a tile between network and result."""
        return self.channels - self.opaque

    @property
    def num_images(self) -> int:
        """Images that the network sees per tile."""
        return 2 if self.layout in _WITHOUT_EXTRA else 1

    def extended(self) -> "PixelPlanes":
        """The same image with its margins."""
        return replace(self, pixels=self.margins.extend(self.pixels))

    def read(self, rows: Span, columns: Span) -> Floats:
        """Cut out a tile for the network: (num_images, 3, h, w) in [0, 1]."""
        planes = self._read_planes(rows, columns)
        if self.num_images == 1:
            return np.broadcast_to(planes, (3, *planes.shape[1:]))[None]
        images = np.empty((2, 3, *planes.shape[1:]), np.float32)
        images[0], images[1] = planes[:-1], planes[-1:]
        return images

    def collapse(self, result: Floats) -> Floats:
        """Turn (num_images, 3, h, w) from the network into planes, (num_planes, h, w)."""
        if self.colourless:
            result = np.repeat(_mean_of_three(result)[:, None], 3, axis=1)
        if self.layout in ("grey", "grey+extra"):
            return _mean_of_three(result)
        if self.layout == "rgb+extra":
            return np.concatenate((result[0], _mean_of_three(result[1:])))
        return result[0]

    def hold_flat(
        self, planes: Floats, rows: Span, columns: Span, scales: tuple[AxisScale, AxisScale]
    ) -> Floats:
        """Give flat regions of a result the source's value.

        Args:
            planes: (num_planes, h, w), changed in place.
            rows: of the result, which ``planes`` are.
            columns: likewise.
            scales: of rows and of columns, from this image to the result.
        """
        groups = self._groups_to_hold()
        if not groups:
            return planes
        (seen_rows, at_rows), (seen_columns, at_columns) = (
            _samples_of(scale, span) for scale, span in zip(scales, (rows, columns), strict=True)
        )
        source = self._read_planes(seen_rows, seen_columns)
        for group, steps in groups:
            hold_flat_regions(planes[group], source[group], at_rows, at_columns, steps=steps)
        return planes

    def _groups_to_hold(self) -> list[tuple[slice, tuple[str, ...]]]:
        """Which planes are flat together, and how far off an edge each group holds."""
        colours = slice(0, self.num_planes - (self.num_images == 2))
        if self.layout not in _WITHOUT_EXTRA:
            return [(colours, COLOUR_STEPS)] if self.holds_flat else []
        extra = slice(self.num_planes - 1, self.num_planes)
        held: list[tuple[slice, tuple[str, ...]]] = []
        if self.holds_flat:
            held.append((colours, COLOUR_STEPS))
        if self.alpha == "opacity":
            held.append((extra, OPACITY_STEPS))
        elif self.holds_flat:
            held.append((extra, COLOUR_STEPS))
        return held

    def _read_planes(self, rows: Span, columns: Span) -> Floats:
        """Cut out (num_planes, h, w) in [0, 1]."""
        cut = self.pixels[rows.start : rows.stop, columns.start : columns.stop]
        planes = cut[..., : self.num_planes].transpose(2, 0, 1).astype(np.float32, order="C")
        peak = peak_of(self.pixels.dtype)
        if peak > 1:
            planes /= np.float32(peak)
        return planes

    def finish(self, planes: Floats) -> Pixels:
        """Turn planes into pixels: (num_planes, h, w) -> (h, w, C) of the source's dtype."""
        dtype, (height, width) = self.pixels.dtype, planes.shape[1:]
        peak = peak_of(dtype)
        pixels = np.empty((height, width, self.channels), dtype)
        # Some rows at a time, so that values stay in the cache between the steps.
        step = max(1, _VALUES_AT_ONCE // width)
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            for channel, plane in enumerate(planes):
                values = plane[rows].clip(0, 1)
                if peak > 1:
                    values *= peak
                    np.rint(values, out=values)
                pixels[rows, :, channel] = values
        if self.opaque:
            pixels[..., -1] = peak
        return pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Treatment:
    """How the pixels of any image are treated."""

    alpha: AlphaMeaning = "opacity"
    """What a channel beside grey or RGB is."""
    edges: Edges = "auto"
    """What lies beyond the borders."""
    holds_flat: bool = False
    """Whether flat regions keep their value, up to the border."""

    def margins_of(self, groups: list[Pixels]) -> Margins:
        """The margins of an image whose channels are flat in groups, (H, W, C) each."""
        if self.edges == "wrap":
            return WRAP_MARGINS
        return mirror_margins(groups) if self.holds_flat else NO_MARGINS


def planes_of(pixels: Pixels, treatment: Treatment | None = None) -> PixelPlanes:
    """Look at pixels as a network will: how many channels, and whether the last says anything.

    Args:
        pixels: (H, W, C) uint8, uint16 or float32 in [0, 1], C from 1 to 4.
        treatment: unless given, alpha is opacity and the borders are the network's.
    """
    treatment = treatment or Treatment()
    layout = _LAYOUT_BY_CHANNELS[int(pixels.shape[2])]
    colourless = layout in ("rgb", "rgb+extra") and bool(
        (pixels[..., :2] == pixels[..., 1:3]).all()
    )
    opaque = layout in _WITHOUT_EXTRA and pixels[..., -1].min() == peak_of(pixels.dtype)
    if opaque:
        layout = _WITHOUT_EXTRA[layout]
    elif layout in _WITHOUT_EXTRA and treatment.alpha == "opacity":
        pixels = continue_colours(pixels, wraps=treatment.edges == "wrap")
    num_colours = pixels.shape[2] - (pixels.shape[2] in (2, 4))
    groups = [pixels[..., :num_colours]]
    if layout in _WITHOUT_EXTRA:
        groups.append(pixels[..., num_colours:])
    return PixelPlanes(
        pixels=pixels,
        layout=layout,
        alpha=treatment.alpha,
        opaque=opaque,
        colourless=colourless,
        margins=treatment.margins_of(groups),
        holds_flat=treatment.holds_flat,
    )


def shape_of_file(header: ImageHeader, treatment: Treatment | None = None) -> SourceShape:
    """What is known of an image file before it is decoded.

    Alpha is taken to say something, and borders not to be flat.
    """
    treatment = treatment or Treatment()
    return SourceShape(
        width=header.width,
        height=header.height,
        channels=header.channels,
        bytes_per_sample=header.bit_depth // 8,
        num_images=2 if _LAYOUT_BY_CHANNELS[header.channels] in _WITHOUT_EXTRA else 1,
        margins=WRAP_MARGINS if treatment.edges == "wrap" else NO_MARGINS,
    )


def peak_of(dtype: npt.DTypeLike) -> int:
    """The value that means white or opaque: 255, 65535, or 1 for floating point."""
    dtype = np.dtype(dtype)
    return int(np.iinfo(dtype).max) if dtype.kind == "u" else 1


def _mean_of_three(images: Floats) -> Floats:
    """The mean over the channels: (N, 3, h, w) -> (N, h, w)."""
    mean = images[:, 0] + images[:, 1]
    mean += images[:, 2]
    mean /= np.float32(3)
    return mean


def _samples_of(scale: AxisScale, span: Span) -> tuple[Span, Samples]:
    """The pixels of an image that matter to a stretch of its result, and where it lies in them."""
    positions = scale.samples(span.start, span.stop)
    first = max(0, math.floor(float(positions[0])) - FLATNESS_REACH_PIXELS)
    stop = min(scale.total_length, math.ceil(float(positions[-1])) + 1 + FLATNESS_REACH_PIXELS)
    seen = Span(start=first, stop=stop)
    return seen, Samples.at(positions - first, length=seen.length)
