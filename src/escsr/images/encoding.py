"""Encode a libvips image into an open file, each format with its settings."""

import threading
from dataclasses import replace
from typing import BinaryIO

import pyvips

from escsr.errors import ImageFormatError
from escsr.images.formats import ImageFormat
from escsr.images.metadata import (
    ImageMetadata,
    VipsImage,
    attach_metadata,
    blob_field,
    describes_grey,
)

_BIG_TIFF_BYTES = 3_900_000_000
"""Uncompressed size from which TIFF is written with 64-bit offsets; 32 bits end at 4.29e9."""

_PNG_COMPRESSION = 5
_PNG_FILTERS = 0xF8
"""libpng's bits for all five: it chooses one per row."""
_AVIF_EFFORT = 3


class FileTarget:
    """An open file as libvips wants it, which remembers why writing failed.

    libvips reports a failed write as text; kept here, the ``OSError`` itself can be raised.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._refused = threading.Event()
        self.error: OSError | None = None
        """The first error of the file system, or None."""

    def refuse(self) -> None:
        """Make every further write fail, so that an encoder at work gives up."""
        self._refused.set()

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
        quality: 1 to 100 for JPEG, WebP (both 95 by default) and AVIF (90); the others lose
            nothing and take no notice of it.
    Raises:
        pyvips.Error: the encoder failed; ``target.error`` says whether the file system did.
    """
    if image.bands < 3 and not form.holds_grey and describes_grey(metadata.icc_profile):
        image, metadata = _grey_to_srgb(image, metadata)
    image = attach_metadata(image, metadata, jpeg=form.name == "JPEG")
    sink = target.connect()
    match form.name:
        case "JPEG":
            # optimize_coding would hold the whole result to count its symbols first.
            image.jpegsave_target(sink, Q=quality or 95, subsample_mode="off")
        case "PNG":
            image.pngsave_target(sink, compression=_PNG_COMPRESSION, filter=_PNG_FILTERS)
        case "WebP":
            image.webpsave_target(sink, Q=quality or 95, smart_subsample=True, exact=True)
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
            )
        case "GIF":
            raise ImageFormatError("GIF is only read. Write PNG or WebP instead.")


def _grey_to_srgb(image: VipsImage, metadata: ImageMetadata) -> tuple[VipsImage, ImageMetadata]:
    """Convert grey for a format that stores RGB, for which a grey profile means nothing."""
    image = attach_metadata(image, metadata, jpeg=False)
    image = image.icc_transform("srgb", embedded=True, depth=8 * _bytes_per_channel(image))
    return image, replace(metadata, icc_profile=blob_field(image, "icc-profile-data"))


def _bytes_per_channel(image: VipsImage) -> int:
    return 1 if image.format == "uchar" else 2
