"""Put metadata into results: what each format holds of it, in the form that the format wants."""

from dataclasses import dataclass

import pyvips

from escsr.errors import ImageFormatError
from escsr.images.exif import sized_exif
from escsr.images.file_blocks import Chunk, HeadRewriter
from escsr.images.formats import FormatName
from escsr.images.heif_boxes import heif_head
from escsr.images.jpeg_segments import (
    MAX_SEGMENT_BYTES,
    Segment,
    comment_segments,
    density_segment,
    exif_segment,
    jpeg_head,
    photoshop_segments,
    profile_segments,
    xmp_segments,
)
from escsr.images.metadata import ImageMetadata, VipsImage
from escsr.images.png_chunks import (
    colour_chunks,
    comments_of,
    density_chunk,
    fitting_chunks,
    png_head,
    profile_chunk,
    raw_profile_chunk,
    text_chunk,
    xmp_chunk,
)
from escsr.images.webp_chunks import webp_parts
from escsr.images.xmp import resized_xmp

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
