"""Grey, alpha and bit depth: between pixels in memory and what a network reads and makes.

A network takes RGB. Grey goes in as three equal channels and comes out as their mean, so it gains
no tint; so does colour that is grey everywhere, as scanners write it. Alpha goes through the
network as a grey image of its own, beside colour that was multiplied by it, so hidden colours do
not bleed into visible ones.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from escsr.images.colour import premultiply, unpremultiply
from escsr.images.files import ImageHeader
from escsr.inference.tiling import Span
from escsr.shapes import ImageBatch

Pixels: TypeAlias = npt.NDArray[Any]
"""(H, W, C) uint8, uint16 or float32."""

Layout = Literal["grey", "grey+alpha", "rgb", "rgba", "batch"]

_LAYOUT_BY_CHANNELS: dict[int, Layout] = {1: "grey", 2: "grey+alpha", 3: "rgb", 4: "rgba"}
_WITHOUT_ALPHA: dict[Layout, Layout] = {"grey+alpha": "grey", "rgba": "rgb"}


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

    @property
    def num_bytes(self) -> int:
        """What its pixels take in memory."""
        return self.width * self.height * self.channels * self.bytes_per_sample


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelPlanes:
    """Pixels in memory, read tile by tile as the network wants them.

    Between network and result a tile is "planes": (P, h, w) float32, colour premultiplied; P is
    ``num_planes``.
    """

    pixels: Pixels
    """(H, W, C)."""
    layout: Layout
    """What the channels mean to the network; "batch" is B RGB images side by side, C = 3B."""
    opaque: bool = False
    """Alpha is the maximum everywhere: it is left out of the work and restored in the result."""
    colourless: bool = False
    """Red, green and blue are equal everywhere, and stay so in the result."""

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
        return 2 if self.layout in _WITHOUT_ALPHA else 1

    def read(self, rows: Span, columns: Span) -> ImageBatch:
        """Cut out a tile for the network: (num_images, 3, h, w) float32 in [0, 1]."""
        cut = self.pixels[rows.start : rows.stop, columns.start : columns.stop]
        cut = cut[..., : self.num_planes]
        values = torch.as_tensor(cut.astype(np.float32), device="cpu")
        peak = peak_of(self.pixels.dtype)
        planes = (values if peak == 1 else values / peak).permute(2, 0, 1)
        if self.layout == "batch":
            return planes.reshape(self.num_images, 3, *planes.shape[1:])
        if self.num_images == 1:
            return planes.expand(3, -1, -1).unsqueeze(0)
        alpha = planes[-1:].unsqueeze(0)
        colour = premultiply(planes[:-1].unsqueeze(0), alpha)
        return torch.cat((colour.expand(-1, 3, -1, -1), alpha.expand(-1, 3, -1, -1)))

    def collapse(self, result: ImageBatch) -> Tensor:
        """Turn (num_images, 3, h, w) from the network into planes, (num_planes, h, w)."""
        if self.colourless:
            # Repeated, not expanded: tiles are blended in place.
            result = result.mean(dim=1, keepdim=True).repeat(1, 3, 1, 1)
        if self.layout == "grey":
            return result.mean(dim=1)
        if self.layout == "grey+alpha":
            return result.mean(dim=1)
        if self.layout == "rgba":
            return torch.cat((result[0], result[1].mean(dim=0, keepdim=True)))
        return result.reshape(-1, *result.shape[2:])

    def finish(self, planes: Tensor) -> Pixels:
        """Turn planes into pixels: (num_planes, h, w) -> (h, w, C) of the source's dtype."""
        planes = planes.clamp(0, 1)
        if self.layout in ("grey+alpha", "rgba"):
            alpha = planes[None, -1:]
            planes = torch.cat((unpremultiply(planes[None, :-1], alpha), alpha), dim=1)[0]
        dtype = self.pixels.dtype
        peak = peak_of(dtype)
        values = planes.permute(1, 2, 0)
        if peak > 1:
            values = (values * peak).round_()
        # "C", since a writer takes rows of pixels, and would copy planes again.
        finished = values.numpy().astype(dtype, order="C")
        if not self.opaque:
            return finished
        alpha_channel = np.full((*finished.shape[:2], 1), peak, dtype)
        return np.concatenate((finished, alpha_channel), axis=2)


def planes_of(pixels: Pixels) -> PixelPlanes:
    """Look at pixels as a network will: how many channels, and whether alpha says anything.

    Args:
        pixels: (H, W, C) uint8, uint16 or float32 in [0, 1], C from 1 to 4.
    """
    layout = _LAYOUT_BY_CHANNELS[int(pixels.shape[2])]
    colourless = layout in ("rgb", "rgba") and bool((pixels[..., :2] == pixels[..., 1:3]).all())
    opaque = layout in _WITHOUT_ALPHA and pixels[..., -1].min() == peak_of(pixels.dtype)
    if opaque:
        layout = _WITHOUT_ALPHA[layout]
    return PixelPlanes(pixels=pixels, layout=layout, opaque=opaque, colourless=colourless)


def shape_of_file(header: ImageHeader) -> SourceShape:
    """What is known of an image file before it is decoded; alpha is taken to say something."""
    return SourceShape(
        width=header.width,
        height=header.height,
        channels=header.channels,
        bytes_per_sample=header.bit_depth // 8,
        num_images=2 if _LAYOUT_BY_CHANNELS[header.channels] in _WITHOUT_ALPHA else 1,
    )


def peak_of(dtype: npt.DTypeLike) -> int:
    """The value that means white or opaque: 255, 65535, or 1 for floating point."""
    dtype = np.dtype(dtype)
    return int(np.iinfo(dtype).max) if dtype.kind == "u" else 1
