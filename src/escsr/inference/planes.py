"""Grey, alpha and bit depth: between pixels in memory and what a network reads and makes.

A network takes RGB. Grey goes in as three equal channels and comes out as their mean, so it gains
no tint; so does colour that is grey everywhere, as scanners write it. A channel beside the colours
goes through the network as a grey image of its own. Where it is opacity, the network sees visible
colours continued beyond their edge, so that hidden colours do not bleed into them.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from escsr.errors import ConfigurationError
from escsr.images.colour import continue_colours
from escsr.images.files import ImageHeader
from escsr.inference.borders import (
    NO_MARGINS,
    WRAP_MARGINS,
    Edges,
    Margins,
    mirror_margins,
    mirror_margins_of_lines,
)
from escsr.inference.flat_regions import (
    COLOUR_STEPS,
    OPACITY_STEPS,
    REACH_PIXELS,
    Samples,
    hold_flat_regions,
)
from escsr.inference.tiling import AxisScale, Span
from escsr.shapes import ImageBatch

Pixels: TypeAlias = npt.NDArray[Any]
"""(H, W, C) uint8, uint16 or float32."""

Layout = Literal["grey", "grey+extra", "rgb", "rgb+extra", "batch"]

AlphaMeaning = Literal["opacity", "data"]
"""What a second or fourth channel is: opacity, or values of their own (a mask, a height map)."""

_LAYOUT_BY_CHANNELS: dict[int, Layout] = {1: "grey", 2: "grey+extra", 3: "rgb", 4: "rgb+extra"}
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
    """Images that the network sees per tile: 2 with alpha, B for a batch."""
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
    """What the channels mean to the network; "batch" is B RGB images side by side, C = 3B."""
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
        if self.layout == "batch":
            return self.channels // 3
        return 2 if self.layout in _WITHOUT_EXTRA else 1

    def extended(self) -> "PixelPlanes":
        """The same image with its margins."""
        return replace(self, pixels=self.margins.extend(self.pixels))

    def read(self, rows: Span, columns: Span) -> ImageBatch:
        """Cut out a tile for the network: (num_images, 3, h, w) float32 in [0, 1]."""
        planes = self._read_planes(rows, columns)
        if self.layout == "batch":
            return planes.reshape(self.num_images, 3, *planes.shape[1:])
        if self.num_images == 1:
            return planes.expand(3, -1, -1).unsqueeze(0)
        colour, extra = planes[:-1].expand(3, -1, -1), planes[-1:].expand(3, -1, -1)
        return torch.stack((colour, extra))

    def collapse(self, result: ImageBatch) -> Tensor:
        """Turn (num_images, 3, h, w) from the network into planes, (num_planes, h, w)."""
        if self.colourless:
            # Repeated, not expanded: tiles are blended in place.
            result = result.mean(dim=1, keepdim=True).repeat(1, 3, 1, 1)
        if self.layout in ("grey", "grey+extra"):
            return result.mean(dim=1)
        if self.layout == "rgb+extra":
            return torch.cat((result[0], result[1].mean(dim=0, keepdim=True)))
        return result.reshape(-1, *result.shape[2:])

    @torch.inference_mode()
    def hold_flat(
        self, planes: Tensor, rows: Span, columns: Span, scales: tuple[AxisScale, AxisScale]
    ) -> Tensor:
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
            hold_flat_regions(
                planes[None, group], source[None, group], at_rows, at_columns, steps=steps
            )
        return planes

    def _groups_to_hold(self) -> list[tuple[slice, tuple[str, ...]]]:
        """Which planes are flat together, and how far off an edge each group holds."""
        colours = slice(0, self.num_planes - (self.num_images == 2))
        if self.layout not in _WITHOUT_EXTRA:
            groups = [slice(first, first + 3) for first in range(0, self.num_planes, 3)]
            return [(group, COLOUR_STEPS) for group in groups if self.holds_flat]
        extra = slice(self.num_planes - 1, self.num_planes)
        held: list[tuple[slice, tuple[str, ...]]] = []
        if self.holds_flat:
            held.append((colours, COLOUR_STEPS))
        if self.alpha == "opacity":
            held.append((extra, OPACITY_STEPS))
        elif self.holds_flat:
            held.append((extra, COLOUR_STEPS))
        return held

    def _read_planes(self, rows: Span, columns: Span) -> Tensor:
        """Cut out (num_planes, h, w) float32 in [0, 1]."""
        cut = self.pixels[rows.start : rows.stop, columns.start : columns.stop]
        cut = cut[..., : self.num_planes]
        values = torch.as_tensor(cut.astype(np.float32), device="cpu")
        peak = peak_of(self.pixels.dtype)
        return (values if peak == 1 else values / peak).permute(2, 0, 1)

    def finish(self, planes: Tensor) -> Pixels:
        """Turn planes into pixels: (num_planes, h, w) -> (h, w, C) of the source's dtype."""
        planes = planes.clamp(0, 1)
        dtype = self.pixels.dtype
        peak = peak_of(dtype)
        values = planes.permute(1, 2, 0)
        if peak > 1:
            values = (values * peak).round_()
        # "C", since a writer takes rows of pixels, and would copy planes again.
        finished = values.numpy().astype(dtype, order="C")
        if not self.opaque:
            return finished
        extra_channel = np.full((*finished.shape[:2], 1), peak, dtype)
        return np.concatenate((finished, extra_channel), axis=2)


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

    def margins_of_tensor(self, image: Tensor) -> Margins:
        """Those of an RGB image (3, H, W) on any device; only its border is fetched from there."""
        if self.edges == "wrap":
            return WRAP_MARGINS
        if not self.holds_flat:
            return NO_MARGINS
        sides = (image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1])
        return mirror_margins_of_lines([tuple(side.float().T.cpu().numpy() for side in sides)])


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


def require_alpha(alpha: object) -> None:
    """Refuse an unknown meaning.

    Raises:
        ConfigurationError: neither "opacity" nor "data".
    """
    if alpha not in get_args(AlphaMeaning):
        raise ConfigurationError(
            f"alpha is {alpha!r}; allowed are {', '.join(get_args(AlphaMeaning))}."
        )


def peak_of(dtype: npt.DTypeLike) -> int:
    """The value that means white or opaque: 255, 65535, or 1 for floating point."""
    dtype = np.dtype(dtype)
    return int(np.iinfo(dtype).max) if dtype.kind == "u" else 1


def _samples_of(scale: AxisScale, span: Span) -> tuple[Span, Samples]:
    """The pixels of an image that matter to a stretch of its result, and where it lies in them."""
    positions = scale.samples(span.start, span.stop)
    first = max(0, math.floor(float(positions[0])) - REACH_PIXELS)
    stop = min(scale.total_length, math.ceil(float(positions[-1])) + 1 + REACH_PIXELS)
    seen = Span(start=first, stop=stop)
    return seen, Samples.at(positions - first, length=seen.length)
