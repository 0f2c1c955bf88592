"""Encode a libvips image into an open file, each format with its settings."""

import struct
import threading
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO

import pyvips

from escsr.errors import ImageFormatError
from escsr.images.embedding import (
    ResultKind,
    attach_for_tiff,
    exif_for,
    head_and_tail,
    profile_for,
)
from escsr.images.exif import finish_tiff
from escsr.images.file_blocks import HeadRewriter
from escsr.images.formats import ImageFormat
from escsr.images.metadata import ImageMetadata, VipsImage, blob_field, iptc_of
from escsr.images.tiff_tags import Directory, Tag

_BIG_TIFF_BYTES = 3_900_000_000
"""Uncompressed size from which TIFF is written with 64-bit offsets; 32 bits end at 4.29e9."""

_PNG_COMPRESSION = 5
_PNG_FILTERS = 0xF8
"""libpng's bits for all five: it chooses one per row."""
_AVIF_EFFORT = 3
_LOSSLESS_QUALITY = 100
"""Of WebP, which has a lossless coding of its own."""
_KEEP_NOTHING = 0
"""libvips writes no metadata: it would rewrite EXIF and leave out what it does not know."""
_MAX_HEAD_BYTES = 1 << 20
"""What an encoder writes before its pixels is far shorter."""


class FileTarget:
    """An open file as libvips wants it, which remembers why writing failed.

    libvips reports a failed write as text; kept here, the ``OSError`` itself can be raised.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._refused = threading.Event()
        self._rewrite: HeadRewriter | None = None
        self._head = bytearray()
        self.error: OSError | None = None
        """The first error of the file system, or None."""

    def refuse(self) -> None:
        """Make every further write fail, so that an encoder at work gives up."""
        self._refused.set()

    def rewrite_head(self, rewrite: HeadRewriter) -> None:
        """Let the start of the file, which a few kilobytes hold, be replaced on its way."""
        self._rewrite = rewrite

    def end_with(self, tail: bytes) -> None:
        """Append to the finished file."""
        self._flush_head()
        self._store_all(tail)

    def connect(self) -> pyvips.TargetCustom:
        """Return the libvips object that writes here."""
        target = pyvips.TargetCustom()
        target.on_write(self._write)
        # TIFF goes back to fill in its directory.
        target.on_read(self._read)
        target.on_seek(self._seek)
        return target

    def _read(self, length: int) -> bytes | None:
        return None if self._refused.is_set() else self._stream.read(length)

    def _seek(self, offset: int, whence: int) -> int:
        return -1 if self._refused.is_set() else self._stream.seek(offset, whence)

    def _write(self, data: bytes | bytearray | memoryview) -> int:
        if self._rewrite is None:
            return self._store(data)
        self._head += data
        replaced = self._rewrite(bytes(self._head[:_MAX_HEAD_BYTES]))
        if replaced is None and len(self._head) < _MAX_HEAD_BYTES:
            return len(data)
        head, num_bytes = replaced or (b"", 0)
        self._rewrite = None
        self._head[:num_bytes] = head
        return len(data) if self._flush_head() else -1

    def _flush_head(self) -> bool:
        """Write what was held back, and tell whether it is in the file."""
        held, self._head = bytes(self._head), bytearray()
        return self._store_all(held)

    def _store_all(self, data: bytes) -> bool:
        rest = memoryview(data)
        while rest:
            written = self._store(rest)
            if written < 0:
                return False
            rest = rest[written:]
        return True

    def _store(self, data: bytes | bytearray | memoryview) -> int:
        if self._refused.is_set() or self.error is not None:
            return -1
        try:
            return self._stream.write(data)
        except OSError as error:
            self.error = error
            return -1


def encode(
    image: VipsImage,
    target: FileTarget,
    form: ImageFormat,
    *,
    metadata: ImageMetadata,
    quality: int | None,
) -> None:
    """Write an image in one format, pulling its rows as the encoder needs them.

    Args:
        image: 8 or 16-bit, in its final size.
        target: the file.
        form: the format.
        metadata: of the source, brought along where the format holds it.
        quality: 1 to 100 for JPEG, WebP (both 95 by default; 100 is lossless in WebP, as is the
            default for a source that is) and AVIF (90); the others lose nothing and take no
            notice of it.
    Raises:
        pyvips.Error: the encoder failed; ``target.error`` says whether the file system did.
    """
    profile = profile_for(metadata, grey=image.bands < 3)
    if image.bands < 3 and not form.holds_grey and profile is not None:
        image, metadata = _grey_to_srgb(image, metadata, profile)
    elif image.bands < 3 and not form.holds_grey:
        metadata = replace(metadata, icc_profile=None)  # one for RGB does not describe grey
    if form.name == "TIFF":
        if image.bands in (2, 4) and metadata.extra_sample == "premultiplied":
            image = _premultiplied(image)
        image = attach_for_tiff(image, metadata)
        _save(image, target, form, metadata=metadata, quality=quality)
        return
    bit_depth = 8 * _bytes_per_channel(image)
    kind = ResultKind(
        width=image.width, height=image.height, channels=image.bands, bit_depth=bit_depth
    )
    head, tail = head_and_tail(form.name, metadata, kind)
    target.rewrite_head(head)
    _save(image, target, form, metadata=metadata, quality=quality)
    target.end_with(tail)


def _save(
    image: VipsImage,
    target: FileTarget,
    form: ImageFormat,
    *,
    metadata: ImageMetadata,
    quality: int | None,
) -> None:
    sink = target.connect()
    match form.name:
        case "JPEG":
            # optimize_coding would hold the whole result to count its symbols first.
            image.jpegsave_target(sink, Q=quality or 95, subsample_mode="off", keep=_KEEP_NOTHING)
        case "PNG":
            image.pngsave_target(
                sink, compression=_PNG_COMPRESSION, filter=_PNG_FILTERS, keep=_KEEP_NOTHING
            )
        case "WebP":
            lossless = quality == _LOSSLESS_QUALITY or (quality is None and metadata.is_lossless)
            image.webpsave_target(
                sink,
                Q=quality or 95,
                lossless=lossless,
                smart_subsample=True,
                exact=True,
                keep=_KEEP_NOTHING,
            )
        case "TIFF":
            size = image.width * image.height * image.bands * _bytes_per_channel(image)
            image.tiffsave_target(
                sink,
                compression="deflate",
                predictor="horizontal",
                bigtiff=size > _BIG_TIFF_BYTES,
            )
        case "AVIF":
            image.heifsave_target(
                sink,
                compression="av1",
                Q=quality or 90,
                bitdepth=12 if image.format == "ushort" else 8,
                effort=_AVIF_EFFORT,
                subsample_mode="off",
                keep=_KEEP_NOTHING,
            )
        case "GIF":
            raise ImageFormatError("GIF is only read. Write PNG or WebP instead.")


def _grey_to_srgb(
    image: VipsImage, metadata: ImageMetadata, profile: bytes
) -> tuple[VipsImage, ImageMetadata]:
    """Convert grey for a format that stores RGB, for which a grey profile means nothing."""
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)  # pyright: ignore[reportArgumentType]
    image = image.icc_transform("srgb", embedded=True, depth=8 * _bytes_per_channel(image))
    profile_made = blob_field(image, "icc-profile-data")
    return image, replace(metadata, icc_profile=profile_made, colour=None)


def _premultiplied(image: VipsImage) -> VipsImage:
    colour = image.extract_band(0, n=image.bands - 1)
    alpha = image.extract_band(image.bands - 1)
    peak = 255 if image.format == "uchar" else 65535
    stored = (colour.cast("double") * alpha / peak).rint().cast(image.format)
    return stored.bandjoin(alpha).copy(interpretation=image.interpretation)


def _bytes_per_channel(image: VipsImage) -> int:
    return 1 if image.format == "uchar" else 2


def complete_tiff(
    stream: BinaryIO, metadata: ImageMetadata, *, width: int, height: int, channels: int
) -> None:
    """Add to a finished TIFF what libvips does not write.

    Args:
        stream: the file, opened for reading and writing.
        metadata: of the source.
        width: of the image in the file, in pixels.
        height: likewise.
        channels: of the image; a second or fourth one is labelled as in the source.
    """
    density = "known" if metadata.pixels_per_mm else "unknown"
    if metadata.density_ratio:
        density = "ratio"
    exif = exif_for(metadata, width, height, states_density=False)
    tags = metadata.sized_tags.fitted(width, height) if metadata.sized_tags else Directory()
    if metadata.pixels_per_mm:
        # libvips keeps densities in single precision, and 4 per inch become 3.999.
        per_unit = 10 if metadata.resolution_unit == "cm" else 25.4
        for number, per_mm in zip(_RESOLUTION, metadata.pixels_per_mm, strict=True):
            tags[number] = _rational(per_mm * per_unit)
    if channels in (2, 4) and metadata.extra_sample != "straight":
        tags[_EXTRA_SAMPLES] = _short(1 if metadata.extra_sample == "premultiplied" else 0)
    if metadata.photoshop and (iptc := iptc_of(metadata.photoshop)) is not None:
        # libvips would write a quarter of it, since it counts in words.
        tags[_IPTC] = Tag(kind=7, count=len(iptc), payload=iptc)
    finish_tiff(stream, exif, width=width, height=height, density=density, tags=tags)


_EXTRA_SAMPLES, _IPTC, _RESOLUTION = 338, 33723, (282, 283)


def _rational(value: float) -> Tag:
    ratio = Fraction(value).limit_denominator(10_000)
    numerator, denominator = min(ratio.numerator, 2**32 - 1), ratio.denominator
    return Tag(kind=5, count=1, payload=struct.pack("<II", numerator, denominator))


def _short(value: int) -> Tag:
    return Tag(kind=3, count=1, payload=value.to_bytes(2, "little"))
