"""What an image file says beside its pixels, and how it travels to the result."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

import pyvips

from escsr.errors import ImageFormatError
from escsr.images.colour import ADOBE_RGB, StatedColour
from escsr.images.exif import (
    density_of_exif,
    read_tiff_blocks,
    settled_exif,
    sized_exif,
    states_adobe_rgb,
)
from escsr.images.file_blocks import Chunk, Density, FileBlocks, HeadRewriter
from escsr.images.formats import FormatName
from escsr.images.heif import heif_head, read_heif_blocks
from escsr.images.jpeg import (
    MAX_SEGMENT_BYTES,
    Segment,
    comment_segments,
    density_segment,
    exif_segment,
    jpeg_head,
    photoshop_segments,
    profile_segments,
    read_jpeg_blocks,
    xmp_segments,
)
from escsr.images.png import (
    COLOUR_CHUNKS,
    colour_chunks,
    comments_of,
    density_chunk,
    fitting_chunks,
    keywords_of,
    png_head,
    profile_chunk,
    raw_profile_chunk,
    read_png_blocks,
    text_chunk,
    xmp_chunk,
)
from escsr.images.tiff_tags import GEO_TIFF, ExtraSample, SizedTags, settled_tags
from escsr.images.webp_gif import read_gif_blocks, read_webp_blocks, webp_parts
from escsr.images.xmp import resized_xmp, settled_xmp

VipsImage: TypeAlias = pyvips.Image

_APP13 = b"Photoshop 3.0\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMetadata:
    """Colour, EXIF, XMP, IPTC, texts and resolution, ready to be written with a result."""

    icc_profile: bytes | None = None
    """The profile in which the pixels are encoded; None where the file had none."""
    colour: StatedColour | None = None
    """Colour stated otherwise than by a profile; without either, pixels are sRGB."""
    exif: bytes | None = None
    """An EXIF block with its prefix; orientation already 1, thumbnail gone."""
    xmp: bytes | None = None
    """An XMP packet; orientation already 1."""
    photoshop: bytes | None = None
    """Photoshop resource blocks, which hold IPTC."""
    comments: tuple[bytes, ...] = ()
    """Comments without a name, as JPEG and GIF hold them."""
    chunks: tuple[Chunk, ...] = ()
    """PNG chunks: texts, time, offsets in pixels of the source, and the like."""
    pixels_per_mm: tuple[float, float] | None = None
    """Horizontal and vertical print resolution; None where unknown."""
    resolution_unit: str = "in"
    """The unit the file used: ``in`` or ``cm``."""
    density_ratio: tuple[float, float] | None = None
    """Horizontal and vertical resolution where the file states only their ratio."""
    extra_sample: ExtraSample = "straight"
    """How a fourth or second channel is labelled: opacity (how stored), or data."""
    sized_tags: SizedTags | None = None
    """Tags of a TIFF for a TIFF result: places on earth and the like."""
    source_size: tuple[int, int] | None = None
    """Width and height of the upright source in pixels, to which offsets refer."""
    is_lossless: bool = False
    """Whether the source was coded without loss in a format that could also lose (WebP)."""
    notes: tuple[str, ...] = ()
    """What the source holds and no result can, in words."""

    @property
    def holds_data(self) -> bool:
        """Whether a fourth or second channel is no opacity."""
        return self.extra_sample == "data"

    @property
    def chunks_state_colour(self) -> bool:
        """Whether the PNG chunks include the colour; a PNG result needs no other statement."""
        return any(kind in COLOUR_CHUNKS for kind, _ in self.chunks)

    def left_out(self, form: FormatName) -> list[str]:
        """Name in words what a result in a format cannot hold of this."""
        left = list(self.notes)
        texts = keywords_of(self.chunks)
        if form == "JPEG":
            texts = [keyword for keyword in texts if keyword != "Comment"]
            if self.exif and len(self.exif) > _MAX_JPEG_EXIF_BYTES:
                left.append(f"EXIF of {len(self.exif)} bytes")
            if self.xmp and not xmp_segments(self.xmp):
                left.append(f"XMP of {len(self.xmp)} bytes")
        if form != "PNG" and texts:
            left.append(f"PNG texts ({', '.join(texts)})")
        if form != "TIFF" and self.sized_tags is not None:
            left += self.sized_tags.only_in_tiff
        if form not in ("PNG", "JPEG") and self.comments:
            left.append("the comment")
        if form in ("WebP", "AVIF") and self.photoshop:
            left.append("IPTC")
        if form in ("WebP", "AVIF") and self.density_ratio:
            left.append("the shape of pixels")
        return [f"without {what}" for what in left]


_MAX_JPEG_EXIF_BYTES = MAX_SEGMENT_BYTES - 256
"""What an EXIF block may have where tags may still be added."""


def read_blocks(stream: BinaryIO, form: FormatName) -> FileBlocks:
    """Read what libvips does not tell of an image file.

    Args:
        stream: the file.
        form: what it is.
    """
    match form:
        case "PNG":
            return read_png_blocks(stream)
        case "JPEG":
            return read_jpeg_blocks(stream)
        case "WebP":
            return read_webp_blocks(stream)
        case "AVIF":
            return read_heif_blocks(stream)
        case "TIFF":
            return read_tiff_blocks(stream)
        case "GIF":
            return read_gif_blocks(stream)


def read_metadata(image: VipsImage, blocks: FileBlocks, *, orientation: int) -> ImageMetadata:
    """Collect the metadata of an opened image, settled for pixels that stand upright.

    Args:
        image: as libvips opened it.
        blocks: what libvips does not tell.
        orientation: how the pixels are turned, 1 to 8.
    """
    is_turned = orientation >= 5
    exif = blocks.exif or blob_field(image, "exif-data")
    xmp, notes = blocks.xmp or blob_field(image, "xmp-data"), list(blocks.notes)
    if xmp is not None:
        xmp, claimed = settled_xmp(xmp, orientation=orientation)
        notes += claimed
    size = (image.height, image.width) if is_turned else (image.width, image.height)
    settled = settled_exif(exif, orientation=orientation, size=size) if exif else None
    if exif and settled is None:
        notes.append("damaged EXIF")
    density = blocks.density or (density_of_exif(exif) if exif else None) or Density()
    profile = blob_field(image, "icc-profile-data") or blocks.icc_profile
    if profile is not None and (fault := fault_of_profile(profile, grey=image.bands < 3)):
        notes.append(fault)
        profile = None
    photoshop = blocks.photoshop or _read_photoshop(image, blocks.iptc)
    sized = settled_tags(blocks.sized_tags, size, orientation=orientation)
    if sized.lost_places:
        notes.append(f"{GEO_TIFF}, since the picture was turned")
    return ImageMetadata(
        icc_profile=profile,
        colour=blocks.colour or (None if profile else _colour_by_exif(exif)),
        exif=settled,
        xmp=xmp or None,
        photoshop=_settled_photoshop(photoshop, is_turned=is_turned) if photoshop else None,
        comments=blocks.comments,
        chunks=blocks.chunks,
        pixels_per_mm=_turned(density.pixels_per_mm, is_turned),
        resolution_unit=density.unit,
        density_ratio=_turned(density.ratio, is_turned),
        source_size=size,
        sized_tags=sized if sized.tags else None,
        is_lossless=blocks.is_lossless,
        notes=tuple(dict.fromkeys(notes)),
    )


_PROFILE_HEADER_BYTES = 128
_COLOUR_SPACES = {b"GRAY": "grey", b"RGB ": "RGB", b"CMYK": "CMYK", b"Lab ": "Lab"}


def fault_of_profile(profile: bytes, *, grey: bool) -> str | None:
    """Say in words why an ICC profile does not describe pixels; None where it does.

    Args:
        profile: as the file holds it.
        grey: whether the pixels have one channel of colour, and not RGB.
    Source: ICC.1:2022, section 7 (header and table of tags).
    """
    start = _PROFILE_HEADER_BYTES + 4
    size, num_tags = (int.from_bytes(profile[at : at + 4], "big") for at in (0, start - 4))
    end = start + 12 * num_tags
    if profile[36:40] != b"acsp" or not start < end <= size <= len(profile):
        return "a damaged ICC profile"
    for at in range(start, end, 12):
        offset, length = (int.from_bytes(profile[at + i : at + i + 4], "big") for i in (4, 8))
        if offset + length > size:
            return "a damaged ICC profile"
    if profile[16:20] != (b"GRAY" if grey else b"RGB "):
        kind = _COLOUR_SPACES.get(profile[16:20], "other colours")
        return f"the ICC profile, which is for {kind} and not for {'grey' if grey else 'RGB'}"
    return None


def integer_field(image: VipsImage, name: str, *, default: int) -> int:
    """Return a whole number that libvips found in the file, or the default where it found none."""
    value = image.get(name) if image.get_typeof(name) else default
    return value if isinstance(value, int) else default


def blob_field(image: VipsImage, name: str) -> bytes | None:
    """Return a block of bytes that libvips found in the file, or None."""
    value = image.get(name) if image.get_typeof(name) else None
    return bytes(value) or None if isinstance(value, bytes | memoryview) else None


def _colour_by_exif(exif: bytes | None) -> StatedColour | None:
    return ADOBE_RGB if exif is not None and states_adobe_rgb(exif) else None


def _turned(pair: tuple[float, float] | None, is_turned: bool) -> tuple[float, float] | None:
    return (pair[1], pair[0]) if pair is not None and is_turned else pair


def _read_photoshop(image: VipsImage, iptc: bytes | None) -> bytes | None:
    """Bring JPEG's APP13 segment and TIFF's two tags to one form: Photoshop resource blocks."""
    photoshop = blob_field(image, "photoshop-data")
    iptc = iptc or blob_field(image, "iptc-data")
    if not iptc or (photoshop and iptc_of(photoshop)):
        return photoshop
    if iptc.startswith(_APP13):
        return photoshop or iptc.removeprefix(_APP13)
    if iptc.startswith(b"8BIM"):
        return photoshop or iptc
    return (photoshop or b"") + _resource(_IPTC, iptc)


_IPTC, _RESOLUTION_INFO = 0x0404, 0x03ED
_RESOURCE_SIGNATURES = (b"8BIM", b"8B64", b"MeSa", b"PHUT", b"AgHg", b"DCSR")
_MAX_RESOURCES = 10_000
_STALE_RESOURCES = frozenset({0x0408, 0x0409, 0x040C, 0x041A})
"""Guides, thumbnails and slices, which are in pixels of the source or show it unturned."""


def _settled_photoshop(photoshop: bytes, *, is_turned: bool) -> bytes | None:
    """Remove thumbnails and positions in pixels, and turn the resolution with the picture."""
    kept: list[bytes] = []
    end = 0
    for number, block, data in _resources(photoshop):
        end += len(block)
        if number == _RESOLUTION_INFO and is_turned and len(data) == 16:
            block = block[: -len(data)] + data[8:] + data[:8]
        if number not in _STALE_RESOURCES:
            kept.append(block)
    return b"".join((*kept, photoshop[end:])) or None


def iptc_of(photoshop: bytes) -> bytes | None:
    """Return the IPTC records among Photoshop's resource blocks."""
    found = [data for number, _, data in _resources(photoshop) if number == _IPTC]
    return found[0] if found else None


def _resources(photoshop: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Walk through resource blocks: number, the block as it stands, and its data."""
    at = 0
    for _ in range(_MAX_RESOURCES):
        if not photoshop.startswith(_RESOURCE_SIGNATURES, at) or at + 7 > len(photoshop):
            return
        number = int.from_bytes(photoshop[at + 4 : at + 6], "big")
        name_bytes = 1 + photoshop[at + 6]
        size_at = at + 6 + name_bytes + name_bytes % 2
        size = int.from_bytes(photoshop[size_at : size_at + 4], "big")
        end = size_at + 4 + size
        if end > len(photoshop):
            return
        yield number, photoshop[at : end + size % 2], photoshop[size_at + 4 : end]
        at = end + size % 2


def _resource(number: int, data: bytes) -> bytes:
    """Make a resource block with an empty name, padded to an even length."""
    head = b"8BIM" + number.to_bytes(2, "big") + bytes(2) + len(data).to_bytes(4, "big")
    return head + data + bytes(len(data) % 2)


_EXIF_PREFIX = b"Exif\0\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultKind:
    """The pixels of a result."""

    width: int
    """In pixels."""
    height: int
    """In pixels."""
    channels: int
    """1 grey, 2 grey and another, 3 RGB, 4 RGB and another."""
    bit_depth: int
    """8 or 16."""


def head_and_tail(
    form: FormatName, metadata: ImageMetadata, kind: ResultKind
) -> tuple[HeadRewriter, bytes]:
    """Prepare what stands before and behind the pixels of a result.

    Args:
        form: JPEG, PNG, WebP or AVIF.
        metadata: of the source.
        kind: of the result.
    Returns:
        What rewrites the start of the file that an encoder writes without metadata, and what is
        appended at its end.
    """
    match form:
        case "PNG":
            return png_head(_png_chunks(metadata, kind)), b""
        case "JPEG":
            return jpeg_head(_jpeg_segments(metadata, kind)), b""
        case "WebP":
            exif = exif_for(metadata, kind.width, kind.height, states_density=True)
            return webp_parts(
                width=kind.width,
                height=kind.height,
                profile=profile_for(metadata, grey=False),
                exif=exif and exif.removeprefix(_EXIF_PREFIX),
                xmp=xmp_for(metadata, kind.width, kind.height),
            )
        case "AVIF":
            stated = metadata.colour is not None and metadata.colour.code_points is not None
            head = heif_head(
                colour=metadata.colour,
                profile=None if stated else profile_for(metadata, grey=False),
                exif=exif_for(metadata, kind.width, kind.height, states_density=True),
                xmp=xmp_for(metadata, kind.width, kind.height),
            )
            return head, b""
        case "TIFF" | "GIF":
            raise ImageFormatError(f"{form} takes its metadata in another way.")


def _png_chunks(metadata: ImageMetadata, kind: ResultKind) -> list[Chunk]:
    scale = scale_of(metadata, kind.width, kind.height)
    ours: list[Chunk] = []
    others = fitting_chunks(
        metadata.chunks, channels=kind.channels, bit_depth=kind.bit_depth, scale=scale
    )
    if metadata.colour is not None and not metadata.chunks_state_colour:
        ours += colour_chunks(metadata.colour)
    if (profile := _png_profile(metadata, grey=kind.channels < 3)) is not None:
        ours.append(profile_chunk(profile))
    behind = [chunk for chunk in others if chunk[0] == b"bKGD"]
    ours += [chunk for chunk in others if chunk[0] != b"bKGD"]
    ours += density_chunk(metadata.pixels_per_mm, metadata.density_ratio)
    exif = exif_for(metadata, kind.width, kind.height, states_density=False)
    if exif is not None:
        ours.append((b"eXIf", exif.removeprefix(_EXIF_PREFIX)))
    if (xmp := xmp_for(metadata, kind.width, kind.height)) is not None:
        ours.append(xmp_chunk(xmp))
    if metadata.photoshop is not None:
        ours.append(raw_profile_chunk("iptc", metadata.photoshop))
    return [*ours, *(text_chunk("Comment", _decoded(c)) for c in metadata.comments), *behind]


def _png_profile(metadata: ImageMetadata, *, grey: bool) -> bytes | None:
    """The source's profile as it is beside chunks that state a colour, else what is needed."""
    if metadata.chunks_state_colour:
        return _fitting(metadata.icc_profile, grey=grey)
    return profile_for(metadata, grey=grey)


def _decoded(comment: bytes) -> str:
    try:
        text = comment.decode()
    except UnicodeDecodeError:
        text = comment.decode("latin-1")
    return text.rstrip("\0").replace("\0", " ")


def _jpeg_segments(metadata: ImageMetadata, kind: ResultKind) -> list[Segment]:
    segments = [
        density_segment(metadata.pixels_per_mm, metadata.resolution_unit, metadata.density_ratio)
    ]
    exif = exif_for(metadata, kind.width, kind.height, states_density=False)
    if exif is not None and len(exif) <= MAX_SEGMENT_BYTES:
        segments.append(exif_segment(exif))
    if (xmp := xmp_for(metadata, kind.width, kind.height)) is not None:
        segments += xmp_segments(xmp)
    if (profile := profile_for(metadata, grey=kind.channels < 3)) is not None:
        segments += profile_segments(profile)
    if metadata.photoshop is not None:
        segments += photoshop_segments(metadata.photoshop)
    for comment in metadata.comments + comments_of(metadata.chunks):
        segments += comment_segments(comment)
    return segments


def attach_for_tiff(image: VipsImage, metadata: ImageMetadata) -> VipsImage:
    """Return the image with what libvips writes into a TIFF: profile, XMP, Photoshop, density.

    Args:
        image: the result, in its final size.
        metadata: of the source.
    """
    (x, y), unit = metadata.pixels_per_mm or (1.0, 1.0), metadata.resolution_unit
    if metadata.density_ratio is not None:
        x, y = (value / 10 for value in metadata.density_ratio)
        unit = "cm"  # complete_tiff makes it no unit, and libvips writes ten times x and y
    image = image.copy(xres=x, yres=y)
    image.set_type(pyvips.GValue.gstr_type, "resolution-unit", unit)
    blobs = {
        "icc-profile-data": profile_for(metadata, grey=image.bands < 3),
        "xmp-data": xmp_for(metadata, image.width, image.height),
        "photoshop-data": metadata.photoshop,
    }
    for name, blob in blobs.items():
        if blob:
            image.set_type(pyvips.GValue.blob_type, name, blob)  # pyright: ignore[reportArgumentType]
    return image


def profile_for(metadata: ImageMetadata, *, grey: bool) -> bytes | None:
    """Return the profile that a result needs: the source's, or one made from stated colour.

    One that does not describe this kind of pixels (grey, RGB) is left out.

    Args:
        metadata: of the source.
        grey: whether the result has one channel of colour.
    """
    if metadata.colour is not None:
        return metadata.colour.profile(grey=grey)
    return _fitting(metadata.icc_profile, grey=grey)


def _fitting(profile: bytes | None, *, grey: bool) -> bytes | None:
    wanted = b"GRAY" if grey else b"RGB "
    return profile if profile is not None and profile[16:20] == wanted else None


def exif_for(
    metadata: ImageMetadata, width: int, height: int, *, states_density: bool
) -> bytes | None:
    """Return the EXIF block of a result.

    Args:
        metadata: of the source.
        width: of the result, in pixels.
        height: of the result, in pixels.
        states_density: whether it is the only place where the file can state its density.
    """
    return sized_exif(
        metadata.exif,
        width=width,
        height=height,
        scale=scale_of(metadata, width, height),
        pixels_per_mm=metadata.pixels_per_mm,
        unit=metadata.resolution_unit,
        states_density=states_density,
    )


def xmp_for(metadata: ImageMetadata, width: int, height: int) -> bytes | None:
    """Return the XMP packet of a result of this size in pixels."""
    if metadata.xmp is None:
        return None
    return resized_xmp(
        metadata.xmp, width=width, height=height, scale=scale_of(metadata, width, height)
    )


def scale_of(metadata: ImageMetadata, width: int, height: int) -> tuple[float, float]:
    """Return how many pixels of a result of this size one of the source has become, in x and y."""
    if metadata.source_size is None:
        return 1.0, 1.0
    return width / metadata.source_size[0], height / metadata.source_size[1]
