"""What an image file holds beside its pixels, in the words of no single format."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from escsr.images.colour import StatedColour
from escsr.images.tiff_tags import Directory, Tag

HeadRewriter: TypeAlias = Callable[[bytes], tuple[bytes, int] | None]
"""Takes the first bytes that an encoder wrote; returns what takes the place of how many of them,
or None while it needs more."""

Chunk: TypeAlias = tuple[bytes, bytes]
"""Kind and payload of a PNG chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Density:
    """How densely pixels are to be printed: one of both fields is None."""

    pixels_per_mm: tuple[float, float] | None = None
    """Horizontally and vertically."""
    unit: str = "in"
    """In which it was stated: ``in`` or ``cm``."""
    ratio: tuple[float, float] | None = None
    """Horizontal and vertical density where only their ratio is stated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBlocks:
    """What stands in a file beside its pixels, as it stands there.

    What libvips reads as well, such as profiles, is given only where libvips overlooks it.
    """

    icc_profile: bytes | None = None
    """Profile from a place where libvips does not look."""
    colour: StatedColour | None = None
    """Colour stated by numbers; None where a profile says it, or nothing does."""
    exif: bytes | None = None
    """EXIF block, with or without prefix."""
    orientation: int | None = None
    """How the pixels are to be turned, 1 to 8, where libvips overlooks it."""
    xmp: bytes | None = None
    """XMP packet, whole."""
    photoshop: bytes | None = None
    """Photoshop's resource blocks, with IPTC."""
    iptc: bytes | None = None
    """IPTC of a tag of its own, as TIFF has it."""
    density: Density | None = None
    """Density that the container states itself."""
    comments: tuple[bytes, ...] = ()
    """Comments without a name."""
    chunks: tuple[Chunk, ...] = ()
    """PNG chunks that belong into a PNG result: texts, time, offsets and the like."""
    sized_tags: Directory = field(default_factory=dict[int, Tag])
    """Tags of a TIFF for a TIFF result: places on earth and the like."""
    is_premultiplied: bool = False
    """Whether colour is stored multiplied by opacity."""
    is_grey_in_video_range: bool = False
    """Whether pixels are coded as grey alone, in which black is 16 and white 235 of 255."""
    is_lossless: bool = False
    """Whether pixels are stored without loss in a format that could also lose."""
    notes: tuple[str, ...] = ()
    """What the file holds and no result can, in words for the user."""
