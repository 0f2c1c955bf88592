"""Read image files: pixels as they should be seen, and everything the file says beside them."""

from dataclasses import dataclass, replace
from pathlib import Path

from escsr.images.decoding import (
    ExtraChannel,
    Pixels,
    cmyk_to_srgb,
    decode_upright,
    open_image,
    orientation_of,
    reading,
)
from escsr.images.formats import READABLE_SUFFIXES, WRITABLE_SUFFIXES, FormatName
from escsr.images.metadata import ImageMetadata, read_metadata
from escsr.images.stated_colour import StatedColour

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "READABLE_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "ExtraChannel",
    "ImageHeader",
    "ImageMetadata",
    "Pixels",
    "SourceImage",
    "probe_image",
    "read_image",
]

DEFAULT_MAX_PIXELS = 1 << 28
"""Largest image read unless asked: 268 megapixels (16384 x 16384), 0.8 GB as 8-bit RGB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """An image file in memory."""

    pixels: Pixels
    """(H, W, C) uint8 or uint16, upright, alpha straight (not premultiplied)."""
    metadata: ImageMetadata
    """What the file says beside its pixels."""
    extra: ExtraChannel
    """What the last channel is, beside grey or RGB: nothing, opacity or data."""

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[0])

    @property
    def bit_depth(self) -> int:
        """8 or 16 bits per channel."""
        return 8 * self.pixels.dtype.itemsize

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is opacity."""
        return self.extra == "alpha"

    @property
    def is_grey(self) -> bool:
        """Whether there is one channel of colour."""
        return self.pixels.shape[2] in (1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """What reading an image would give, told without decoding its pixels."""

    width: int
    """In pixels, upright."""
    height: int
    """In pixels, upright."""
    channels: int
    """1 grey, 2 grey and another, 3 RGB, 4 RGB and another."""
    extra: ExtraChannel
    """What the last channel is, beside grey or RGB: nothing, opacity or data."""
    bit_depth: int
    """8 or 16 bits per channel."""
    format: FormatName
    """What the file is, whatever its suffix says."""
    colour: StatedColour | None = None
    """Colour stated otherwise than by a profile; few formats can hold all of it."""


def read_image(path: str | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> SourceImage:
    """Read an image file whole.

    EXIF orientation is applied. CMYK is converted through its profile (or a usual one) to sRGB;
    every other encoding is kept, with its profile. 10 and 12-bit AVIF become 16-bit.

    Args:
        path: a JPEG, PNG, WebP, TIFF, AVIF or GIF file; what counts is its content.
        max_pixels: larger images are refused before they are decoded.
    Raises:
        ImageReadError: missing, unreadable, empty, truncated, damaged, no image, animated or of
            several pages, or of a kind that is not read (floating point, CIELAB, …).
        ImageSizeError: more than ``max_pixels``.
    """
    path = Path(path)
    with reading(path):
        opened = open_image(path, max_pixels)
        metadata = read_metadata(
            cmyk_to_srgb(opened.image),
            opened.blocks,
            orientation=orientation_of(opened.image),
        )
        pixels, lost = decode_upright(opened)
        return SourceImage(
            pixels=pixels,
            metadata=replace(
                metadata,
                extra_sample=opened.extra_sample or "straight",
                notes=(*metadata.notes, *lost),
            ),
            extra=opened.extra,
        )


def probe_image(path: str | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> ImageHeader:
    """Tell the size and kind of an image file without decoding its pixels.

    Damage further in the file is not noticed. Args and errors as in :func:`read_image`.
    """
    path = Path(path)
    with reading(path):
        opened = open_image(path, max_pixels)
        image = opened.image
        turned = orientation_of(image) >= 5
        cmyk = image.interpretation == "cmyk"
        return ImageHeader(
            width=image.height if turned else image.width,
            height=image.width if turned else image.height,
            channels=image.bands - 1 if cmyk else image.bands,
            extra=opened.extra,
            bit_depth=8 if image.format == "uchar" else 16,
            format=opened.format,
            colour=opened.blocks.colour,
        )
