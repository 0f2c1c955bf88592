"""Read image files: pixels as they should be seen, and everything the file says beside them."""

import logging
import os
import stat
import weakref
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyvips

from escsr.errors import EscsrError, ImageError, ImageReadError, ImageSizeError
from escsr.images.colour import StatedColour
from escsr.images.file_blocks import FileBlocks
from escsr.images.formats import (
    READABLE_SUFFIXES,
    UNREAD_SUFFIXES,
    WRITABLE_SUFFIXES,
    FormatName,
    HeaderError,
    count_sequence_frames,
    is_hevc,
    name_unread,
    read_png_facts,
    recognise,
)
from escsr.images.jpeg import without_harmless_flaws
from escsr.images.metadata import (
    ImageMetadata,
    VipsImage,
    integer_field,
    read_blocks,
    read_metadata,
)
from escsr.images.tiff_tags import (
    ExtraSample,
    TagFormatError,
    TiffFacts,
    jpeg_streams,
    read_tiff_facts,
)
from escsr.images.webp_gif import read_first_frame
from escsr.machine import is_about_memory

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

logger = logging.getLogger(__name__)

Pixels: TypeAlias = npt.NDArray[Any]
"""(H, W, C) uint8 or uint16; C is 1 grey, 2 grey and another, 3 RGB, 4 RGB and another."""

ExtraChannel = Literal["none", "alpha", "data"]
"""What stands beside grey or RGB: nothing, opacity, or a channel of any other meaning."""

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


_process: int | None = None
"""The first process that put libvips to work; a forked one inherits it."""


def require_threads_of_libvips() -> None:
    """Call before libvips computes anything.

    Its threads do not come along in a fork, but what it knows of them does, so that it would wait
    for them for ever.

    Raises:
        ImageError: this process was forked after libvips had worked.
    """
    global _process
    if _process is None:
        _process = os.getpid()
    if _process != os.getpid():
        raise ImageError(
            "Image files cannot be read, written or resized here: this process was forked from one "
            "that had already done so, and libvips' threads did not come along. Start processes by "
            'multiprocessing.get_context("spawn"), or fork before the first image.'
        )


_KINDS = frozenset({"b-w", "grey16", "srgb", "rgb16", "rgb", "multiband", "cmyk"})
"""libvips' names of the encodings that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedImage:
    """An image file whose header is read and whose pixels are not."""

    path: Path
    """Of the file."""
    format: FormatName
    """What the file is, whatever its suffix says."""
    image: VipsImage
    """For one pass from top to bottom."""
    blocks: FileBlocks
    """What it holds beside its pixels, as far as libvips does not tell."""
    extra_sample: ExtraSample | None
    """What the channel beside the colours is; None where there is none."""
    source: pyvips.Source
    """From which ``image`` is read; it must live as long."""

    @property
    def extra(self) -> ExtraChannel:
        """What pixels hold beside grey or RGB."""
        if self.extra_sample is None:
            return "none"
        return "data" if self.extra_sample == "data" else "alpha"


@contextmanager
def reading(path: Path) -> Generator[None]:
    """Turn whatever goes wrong within a foreign reader into an error that names the file.

    Raises:
        ImageReadError: for every exception that is not an ``EscsrError``.
    """
    try:
        yield
    except EscsrError:
        raise
    except MemoryError as error:
        raise ImageReadError(f"{path} needs more memory to be read than there is.") from error
    except Exception as error:
        said = " ".join(str(error).split()) or "no reason given"
        raise ImageReadError(
            f"{path} cannot be read ({type(error).__name__}: {said}). It is damaged, or of a kind "
            "that escsr does not know; get it again, or convert it."
        ) from error


def open_image(path: Path, max_pixels: int) -> OpenedImage:
    """Open a file and check that it is one image of a kind that is read.

    Args:
        path: of the file.
        max_pixels: larger images are refused.
    Raises:
        ImageReadError: missing, unreadable, no image, several images, or of another kind.
        ImageSizeError: more than ``max_pixels``.
    """
    form = _recognised(path)
    tiff = _check_frames(path, form, max_pixels)
    source = _source(path, tiff.as_straight if tiff is not None else {})
    try:
        image = _load(source, form, fail_on="error")
    except pyvips.Error as error:
        raise _unreadable(path, form, error) from error
    pages = integer_field(image, "n-pages", default=1)
    if pages > 1 and form != "TIFF":
        raise _several(path, form, pages)
    _check_size(path, image.width, image.height, max_pixels)
    _check_kind(path, form, image)
    with path.open("rb") as stream:
        blocks = read_blocks(stream, form)
        frame = read_first_frame(stream) if form == "GIF" else None
    if frame is not None:
        image = _transparent_outside(image, frame)
    if blocks.orientation is not None:
        image = image.copy()
        image.set_type(pyvips.GValue.gint_type, "orientation", blocks.orientation)
    extra: ExtraSample | None = None
    if image.bands in (2, 4, 5) and not _is_bare_cmyk(image):
        extra = "premultiplied" if blocks.is_premultiplied else "straight"
        extra = (tiff.extra_sample or "data") if tiff is not None else extra
    return OpenedImage(
        path=path, format=form, image=image, blocks=blocks, extra_sample=extra, source=source
    )


def _transparent_outside(image: VipsImage, frame: tuple[int, int, int, int]) -> VipsImage:
    """Give a GIF alpha where its frame (left, top, width, height) leaves pixels of it uncovered."""
    left, top, width, height = frame
    covers_all = (width, height) == (image.width, image.height)
    if image.bands in (2, 4) or covers_all or not (width and height):
        return image
    covered = pyvips.Image.black(width, height).invert()
    return image.bandjoin(covered.embed(left, top, image.width, image.height))


def _is_bare_cmyk(image: VipsImage) -> bool:
    """Tell whether all four channels are inks."""
    return image.interpretation == "cmyk" and image.bands == 4


def decode_upright(opened: OpenedImage) -> tuple[Pixels, tuple[str, ...]]:
    """Decode an opened image, whole and upright; CMYK becomes sRGB, premultiplied alpha straight.

    Returns:
        The pixels, and in words what of the picture they cannot hold.
    Raises:
        ImageReadError: the file is truncated or damaged.
        ImageError: in a process forked after libvips had worked.
    """
    require_threads_of_libvips()
    path, form, image = opened.path, opened.format, opened.image
    try:
        if form == "TIFF":
            _check_jpeg_streams(path)
        pixels = _decode_jpeg(path) if form == "JPEG" else _to_array(image)
    except pyvips.Error as error:
        raise _unreadable(path, form, error) from error
    if form == "AVIF":
        _fill_range(pixels, opened)
    lost: tuple[str, ...] = ()
    if opened.extra_sample == "premultiplied" and image.bands in (2, 4):
        exceeds = _make_straight(pixels)
        # Lossy coding alone lets colours of an AVIF exceed their opacity.
        lost = (_GLOW,) if exceeds and form == "TIFF" else ()
    return _upright(pixels, orientation_of(image)), lost


def orientation_of(image: VipsImage) -> int:
    """Return the EXIF orientation that is still to be applied, 1 to 8."""
    orientation = integer_field(image, "orientation", default=1)
    return orientation if 1 <= orientation <= 8 else 1


def cmyk_to_srgb(image: VipsImage) -> VipsImage:
    """Convert CMYK through its profile, or a usual one, to sRGB; other images stay as they are."""
    if image.interpretation != "cmyk":
        return image
    return image.icc_transform(
        "srgb",
        embedded=True,
        input_profile="cmyk",
        intent="relative",
        black_point_compensation=True,
        depth=16 if image.format == "ushort" else 8,
    )


def _recognised(path: Path) -> FormatName:
    try:
        _require_regular_file(path)
        with path.open("rb") as stream:
            opening = stream.read(32)
    except OSError as error:
        raise ImageReadError(
            f"{path} cannot be read: {error.strerror or error}. Check the name and permissions."
        ) from error
    if not opening:
        raise ImageReadError(f"{path} is empty (0 bytes); copy or export it again.")
    form = recognise(opening)
    if form is None:
        raise _not_an_image(path, opening)
    return form


def _not_an_image(path: Path, opening: bytes) -> ImageReadError:
    kind = name_unread(opening)
    if kind is None:
        suffix = path.suffix.lower()
        by_name = UNREAD_SUFFIXES.get(suffix)
        kind = f"{by_name} by its name ({suffix})" if by_name else "of no known kind"
    return ImageReadError(
        f"{path} is not an image that escsr can read; it is {kind}, and begins with "
        f"{opening[:8]!r}. Readable are {', '.join(sorted(READABLE_SUFFIXES))}, by content; "
        "convert it to one of them, such as PNG."
    )


_SPECIAL_FILES = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def _require_regular_file(path: Path) -> None:
    """Refuse what would block or never end when it is opened."""
    kind = stat.S_IFMT(path.stat().st_mode)
    if kind != stat.S_IFREG:
        raise ImageReadError(
            f"{path} is {_SPECIAL_FILES.get(kind, 'no regular file')}; escsr reads regular files. "
            "Save the image as a file first."
        )


def _check_frames(path: Path, form: FormatName, max_pixels: int) -> TiffFacts | None:
    """Count frames where libvips does not: APNG, AVIF sequences, and TIFF's previews."""
    try:
        with path.open("rb") as stream:
            if form == "TIFF":
                return _checked_tiff(path, read_tiff_facts(stream), max_pixels)
            facts = read_png_facts(stream) if form == "PNG" else None
            frames = count_sequence_frames(stream) if form == "AVIF" else 1
    except (HeaderError, TagFormatError) as error:
        raise ImageReadError(
            f"{path} is {_article(form)} {form} file that is damaged or truncated, or made to fill "
            f"the memory: {error}. Get it again."
        ) from error
    if facts is not None:
        frames = facts.frames
        _check_size(path, facts.width, facts.height, max_pixels)
    if frames > 1:
        raise _several(path, form, frames)
    return None


def _checked_tiff(path: Path, facts: TiffFacts, max_pixels: int) -> TiffFacts:
    if facts.unread_kind is not None:
        raise _unread(path, facts.unread_kind)
    if facts.is_reduced:
        raise ImageReadError(
            f"The first page of {path} is a smaller copy or a mask of the picture, as in raw "
            "files (DNG). Export the picture itself as a TIFF file."
        )
    if facts.pictures > 1:
        raise _several(path, "TIFF", facts.pictures)
    if facts.tile_pixels > max_pixels:
        raise ImageReadError(
            f"{path} claims tiles of {facts.tile_pixels / 1e6:,.0f} megapixels; it is damaged, or "
            "made to fill the memory."
        )
    return facts


def _unread(path: Path, kind: str) -> ImageReadError:
    return ImageReadError(
        f"{path} is encoded as {kind}; escsr reads grey, RGB and CMYK. Convert it to RGB first."
    )


class _PatchedFile:
    """A file some bytes of which are read as others."""

    def __init__(self, path: Path, patches: Mapping[int, bytes]) -> None:
        self._patches = patches
        self._stream = path.open("rb", buffering=0)
        weakref.finalize(self, self._stream.close)

    def read(self, size: int) -> bytes:
        start = self._stream.tell()
        data = bytearray(self._stream.read(size))
        for offset, patch in self._patches.items():
            for at, value in enumerate(patch, offset - start):
                if 0 <= at < len(data):
                    data[at] = value
        return bytes(data)

    def seek(self, offset: int, whence: int) -> int:
        return self._stream.seek(offset, whence)


def _source(path: Path, patches: Mapping[int, bytes]) -> pyvips.Source:
    # What libvips said of other files stays in its buffer, and would be told as this one's fault.
    pyvips.vips_lib.vips_error_clear()
    if patches:
        file = _PatchedFile(path, patches)
        source = pyvips.SourceCustom()
        source.on_read(file.read)
        source.on_seek(file.seek)
        return source
    # A source takes the name as it is; libvips' file loaders would parse "photo[1].jpg", and
    # would answer from their cache after the file has changed.
    return pyvips.Source.new_from_file(os.fsencode(path))  # pyright: ignore[reportArgumentType]


def _load(source: pyvips.Source, form: FormatName, *, fail_on: str) -> VipsImage:
    match form:
        case "JPEG":
            return pyvips.Image.jpegload_source(source, access="sequential", fail_on=fail_on)
        case "PNG":
            return pyvips.Image.pngload_source(source, access="sequential", fail_on=fail_on)
        case "WebP":
            return pyvips.Image.webpload_source(source, access="sequential", fail_on=fail_on)
        case "TIFF":
            return pyvips.Image.tiffload_source(source, access="sequential", fail_on=fail_on)
        case "AVIF":
            return pyvips.Image.heifload_source(source, access="sequential", fail_on=fail_on)
        case "GIF":
            # nsgif paints what it has of a damaged frame and merely warns.
            return pyvips.Image.gifload_source(source, access="sequential", fail_on="warning")


def _decode_jpeg(path: Path) -> Pixels:
    """Decode a JPEG so strictly that missing data is an error and not grey rows."""
    try:
        return _to_array(_load(_source(path, {}), "JPEG", fail_on="warning"))
    except pyvips.Error as error:
        mended = without_harmless_flaws(path.read_bytes())
        if mended is None:
            raise
        flaw = _first_line(error)
    pyvips.vips_lib.vips_error_clear()
    source = pyvips.Source.new_from_memory(mended)
    pixels = _to_array(pyvips.Image.jpegload_source(source, access="sequential", fail_on="warning"))
    logger.warning("%s has a flaw that costs no pixel: %s", path, flaw)
    return pixels


def _check_jpeg_streams(path: Path) -> None:
    """Decode the JPEG streams of a TIFF strictly; libtiff only warns of what is missing."""
    pyvips.vips_lib.vips_error_clear()
    with path.open("rb") as stream:
        for data in jpeg_streams(stream):
            source = pyvips.Source.new_from_memory(data)
            pyvips.Image.jpegload_source(
                source, access="sequential", fail_on="warning"
            ).write_to_memory()


def _to_array(image: VipsImage) -> Pixels:
    image = cmyk_to_srgb(image)
    dtype = np.uint8 if image.format == "uchar" else np.uint16
    values = np.frombuffer(image.write_to_memory(), dtype=dtype)
    return values.reshape(image.height, image.width, image.bands)


_STRIP_PIXELS = 1 << 20


def _strips(pixels: Pixels) -> Iterator[Pixels]:
    rows = max(1, _STRIP_PIXELS // pixels.shape[1])
    for top in range(0, pixels.shape[0], rows):
        yield pixels[top : top + rows]


def _fill_range(pixels: Pixels, opened: OpenedImage) -> None:
    """Make white of an AVIF the highest value, in place."""
    rest = pixels
    if opened.blocks.is_grey_in_video_range:
        # libheif expands video range only together with chroma. Opacity is always in full range.
        colours = pixels.shape[2] - (pixels.shape[2] in (2, 4))
        _expand_video_range(pixels[..., :colours])
        rest = pixels[..., colours:]
    if pixels.dtype == np.uint16:
        # libvips shifts 10 and 12 bits up and leaves zeros below: white would not be white.
        rest |= rest >> np.uint16(integer_field(opened.image, "bits-per-sample", default=16))


def _expand_video_range(pixels: Pixels) -> None:
    """Turn 16 to 235 (of 8 bits, or as much shifted up) into black to white, in place."""
    peak = np.iinfo(pixels.dtype).max
    unit = (peak + 1) // 256
    for strip in _strips(pixels):
        light = (strip.astype(np.float32) - 16 * unit) / (219 * unit)
        strip[...] = np.rint(np.clip(light, 0, 1) * peak)


_GLOW = "glow (premultiplied colours that exceed their opacity)"


def _make_straight(pixels: Pixels) -> bool:
    """Divide colour by the opacity in the last channel, in place.

    Returns:
        Whether any colour exceeds its opacity by more than one level of 8 bits, so that it is lost.
    """
    peak = int(np.iinfo(pixels.dtype).max)
    exceeds = False
    for strip in _strips(pixels):
        colour, alpha = strip[..., :-1].astype(np.uint32), strip[..., -1:].astype(np.uint32)
        exceeds = exceeds or bool((colour > alpha + peak // 255).any())
        straight = (colour * peak + alpha // 2) // np.maximum(alpha, 1)
        strip[..., :-1] = np.where(alpha > 0, np.minimum(straight, peak), 0)
    return exceeds


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    match orientation:
        case 2:
            turned = pixels[:, ::-1]
        case 3:
            turned = pixels[::-1, ::-1]
        case 4:
            turned = pixels[::-1]
        case 5:
            turned = pixels.swapaxes(0, 1)
        case 6:
            turned = np.rot90(pixels, -1)
        case 7:
            turned = pixels[::-1, ::-1].swapaxes(0, 1)
        case 8:
            turned = np.rot90(pixels)
        case _:
            return pixels
    return np.ascontiguousarray(turned)


def _check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        claimed, limit = _told_apart(width * height / 1e6, max_pixels / 1e6)
        raise ImageSizeError(
            f"{path} claims {width}x{height} pixels, {claimed} megapixels; the "
            f"limit is {limit}. If the file can be trusted, raise max_pixels "
            "(--max-megapixels)."
        )


def _told_apart(megapixels: float, limit: float) -> tuple[str, str]:
    """Both in words, with as few decimals as show that they differ and are not 0."""
    texts = ("", "")
    for decimals in range(7):  # with six, a pixel counts
        texts = (f"{megapixels:,.{decimals}f}", f"{limit:,.{decimals}f}")
        if texts[0] != texts[1] and float(texts[1].replace(",", "")) > 0:
            break
    return texts


def _check_kind(path: Path, form: FormatName, image: VipsImage) -> None:
    if image.format not in ("uchar", "ushort"):
        raise ImageReadError(
            f"{path} stores its pixels as {image.format}; escsr reads 8 and 16-bit unsigned "
            "integers. Tone-map or convert it to 16 bits first."
        )
    if image.interpretation not in _KINDS:
        raise _unread(path, str(image.interpretation))
    allowed = (4, 5) if image.interpretation == "cmyk" else (1, 2, 3, 4)
    is_odd_jpeg = form == "JPEG" and image.bands == 2  # a JPEG has no opacity
    if image.bands not in allowed or is_odd_jpeg:
        raise ImageReadError(
            f"{path} has {image.bands} channels ({image.interpretation}); escsr reads grey, RGB "
            "and CMYK, each with at most one channel of opacity. Remove the others first."
        )


def _several(path: Path, form: FormatName, frames: int) -> ImageReadError:
    return ImageReadError(
        f"{path} holds {frames} frames or pages ({form}); escsr reads single images, and would "
        "have to drop the others. Save the one you want as a file of its own."
    )


def _unreadable(path: Path, form: FormatName, error: pyvips.Error) -> ImageReadError:
    if is_about_memory(str(error)):
        return ImageReadError(
            f"{path} could not be read, since memory ran out: {_first_line(error)}. Free memory, "
            "or raise the limit on it."
        )
    if form == "AVIF":
        with path.open("rb") as stream:
            if is_hevc(stream.read(32)):
                return ImageReadError(
                    f"{path} is a HEIC file (HEVC-coded HEIF), which this libvips cannot decode: "
                    f"{_first_line(error)}. Convert it to PNG, JPEG or AVIF first."
                )
    return ImageReadError(
        f"{path} is {_article(form)} {form} file that is truncated, damaged or of a kind this "
        f"libvips cannot decode: {_first_line(error)}. Get the file again, or convert it."
    )


def _article(form: FormatName) -> str:
    return "an" if form == "AVIF" else "a"


def _first_line(error: pyvips.Error) -> str:
    """Return what libvips said, without pyvips' own first line where there is more."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[1] if len(lines) > 1 else (lines[0] if lines else "no reason given")
