"""Write results row by row: whole files or none, in memory that does not grow with the image.

JPEG, PNG and TIFF are encoded as the rows come. WebP and AVIF encoders hold the whole result
(``ImageFormat.streams`` in ``formats`` says which).
"""

import contextlib
import errno
import io
import math
import os
import struct
import threading
from collections import deque
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import pyvips

from escsr.errors import (
    ImageFormatError,
    ImageSizeError,
    ImageValueError,
    ImageWriteError,
    OutputExistsError,
)
from escsr.images.colour import StatedColour
from escsr.images.exif import finish_tiff
from escsr.images.file_blocks import HeadRewriter
from escsr.images.files import ExtraChannel, Pixels, require_threads_of_libvips
from escsr.images.formats import ImageFormat, format_for_writing
from escsr.images.metadata import (
    ImageMetadata,
    ResultKind,
    VipsImage,
    attach_for_tiff,
    blob_field,
    exif_for,
    head_and_tail,
    iptc_of,
    profile_for,
)
from escsr.images.tiff_tags import Directory, Tag, TagLayout, serialise
from escsr.temporary_files import PendingFile, link_target

__all__ = ["ImageWriter", "check_output", "resize_pixels", "write_image"]

_SLICE_BYTES = 1 << 22
_PATIENCE_S = 10.0
"""How long an interrupted program waits for an encoder that is deep in its work."""
_LOOK_UP_S = 0.1
"""How often a thread that waits for an encoder looks whether it was told to give up."""


class ImageWriter:
    """A file that takes its rows from top to bottom, and appears only when it is complete.

    Rows go to a hidden temporary file beside the output (``.escsr-….partial``), which replaces
    the output when the ``with`` block ends well and vanishes when it does not. Encoding runs in a
    thread of its own; at most some 20 MB of rows wait for it.

    Args:
        path: the output; its suffix chooses the format.
        width: of the rows that come in, in pixels.
        height: number of rows that come in.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha (straight).
        bit_depth: 8 or 16.
        metadata: of the source; None writes none.
        quality: 1 to 100 for JPEG and WebP (95 unless given) and AVIF (90); PNG and TIFF lose
            nothing and take no notice.
        overwrite: whether an existing file may be replaced, whose permissions the result then
            takes; a link is followed.
        target_size: (width, height) of the file, to which rows are resized on their way.
        weighs_opacity: whether colour is weighed by its opacity when rows are resized.
        source: the file that the result is made of: a new file is open to nobody to whom that one
            is not. None leaves it to the process's umask.
        keep_time: whether the result gets the time of modification of ``source``.
    Raises:
        ImageFormatError: the format cannot hold the result.
        OutputExistsError: the file exists and ``overwrite`` is false.
        ImageWriteError: the folder is missing or closed to us, or the disk is full; this can come
            from every method.
        ImageValueError, ImageSizeError: arguments that cannot be.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        width: int,
        height: int,
        channels: int,
        bit_depth: int,
        metadata: ImageMetadata | None = None,
        quality: int | None = None,
        overwrite: bool = False,
        target_size: tuple[int, int] | None = None,
        weighs_opacity: bool = True,
        source: Path | None = None,
        keep_time: bool = False,
    ) -> None:
        if quality is not None and not 1 <= quality <= 100:
            raise ImageValueError(f"quality is {quality}; it must be 1 to 100.")
        require_threads_of_libvips()
        check_kind(width, height, channels, bit_depth)
        self._path = Path(path)
        self._size = target_size or (width, height)
        self._format = check_output(
            path,
            width=self._size[0],
            height=self._size[1],
            channels=channels,
            bit_depth=bit_depth,
            colour=metadata.colour if metadata else None,
            extra="data" if metadata and metadata.holds_data and channels in (2, 4) else None,
            overwrite=overwrite,
        )
        self._row_shape = (width, channels)
        self._dtype = np.dtype("<u1" if bit_depth == 8 else "<u2")
        self._height = height
        self._weighs_opacity = weighs_opacity
        self._rows_written = 0
        self._metadata = metadata or ImageMetadata()
        self._quality = quality
        self._dated_after = source if keep_time else None
        self._needed_bytes = self._size[0] * self._size[1] * channels * bit_depth // 8
        self._rows = RowStream(width=width, height=height, channels=channels, bit_depth=bit_depth)
        self._file = PendingFile(path, overwrite=overwrite, permissions_of=source, buffering=0)
        self._failure: BaseException | None = None
        self._abandoned = threading.Event()
        self._worker = threading.Thread(target=self._encode, name="escsr-writer", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._file.__enter__()
        except OSError as error:
            raise self._explained(error) from error
        try:
            self._target = FileTarget(self._file.stream)
            self._worker.start()
        except BaseException:
            # Ctrl-C may come here, and a block that was not entered is not left through __exit__.
            with contextlib.suppress(AttributeError, RuntimeError):
                self._discard()
            raise
        return self

    def write_rows(self, rows: Pixels) -> None:
        """Append rows below those written before.

        Args:
            rows: (h, W, C) of the writer's width, channels and bit depth; copied, so the caller
                may use the array again.
        Raises:
            ImageValueError: another shape or dtype, or more rows than were announced.
            ImageWriteError: an earlier row could not be stored.
        """
        self._check_rows(rows)
        step = max(1, _SLICE_BYTES // (self._row_shape[0] * self._row_shape[1] * 2))
        for start in range(0, rows.shape[0], step):
            part = rows[start : start + step].astype(self._dtype, copy=False)
            self._push(part.tobytes())
        self._rows_written += rows.shape[0]

    def hand_over(self, rows: Pixels) -> None:
        """Append rows as ``write_rows`` does, but without a copy.

        It waits only while more than 16 MB would be queued. The array must not change before the
        block ends; one in another order than C's is copied. Args and errors as for ``write_rows``.
        """
        self._check_rows(rows)
        if rows.size:
            samples = np.ascontiguousarray(rows, self._dtype).reshape(-1)
            self._push(samples.view(np.uint8).data)
        self._rows_written += rows.shape[0]

    def abandon(self) -> None:
        """Make the encoder give up, from any thread; a finished file stays.

        A thread that waits for it at the end of the block gets an ImageWriteError.
        """
        self._abandoned.set()
        self._target.refuse()
        self._rows.close()

    def _push(self, data: bytes | memoryview) -> None:
        try:
            self._rows.push(data)
        except StreamClosedError:
            self._worker.join()
            self._raise_failure()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._discard()

    def _finish(self) -> None:
        if self._rows_written != self._height:
            raise ImageValueError(
                f"{self._path} was announced with {self._height} rows, and {self._rows_written} "
                "were written; write all of them before the block ends."
            )
        self._await_worker()
        self._raise_failure()
        try:
            if self._format.name == "TIFF":
                width, height = self._size
                complete_tiff(
                    self._file.stream,
                    self._metadata,
                    width=width,
                    height=height,
                    channels=self._row_shape[1],
                )
            dated_after = self._dated_after
            self._file.commit(modified_ns=dated_after.stat().st_mtime_ns if dated_after else None)
        except FileExistsError as error:
            raise already_exists(self._path) from error
        except OSError as error:
            raise self._explained(error) from error

    def _await_worker(self) -> None:
        while self._worker.is_alive():
            self._worker.join(_LOOK_UP_S)
            if self._worker.is_alive() and self._abandoned.is_set():
                raise ImageWriteError(f"{self._path} was given up before it was complete.")

    def _discard(self) -> None:
        """Stop the worker and remove the temporary file, if they are still there."""
        try:
            self._target.refuse()
            self._rows.close()
            self._worker.join(_PATIENCE_S)
        finally:
            self._file.discard()

    def _encode(self) -> None:
        try:
            source = pyvips.SourceCustom()
            source.on_read(self._rows.read)
            source.on_seek(self._rows.seek)
            image = pyvips.Image.tiffload_source(
                source, access="sequential", fail_on="error", unlimited=True
            )
            image = resized(image, *self._size, weighs_opacity=self._weighs_opacity)
            encode(
                image, self._target, self._format, metadata=self._metadata, quality=self._quality
            )
        except BaseException as error:
            # It is raised in the caller's thread, by the next write_rows or at the end.
            self._failure = error
        finally:
            self._rows.close()

    def _raise_failure(self) -> None:
        failure = self._target.error or self._failure
        if failure is None:
            return
        if isinstance(failure, OSError | pyvips.Error):
            raise self._explained(failure) from failure
        raise failure

    def _explained(self, error: OSError | pyvips.Error) -> ImageWriteError:
        if isinstance(error, pyvips.Error):
            said = " ".join(str(error).split())
            return ImageWriteError(f"{self._path}: the {self._format.name} encoder failed: {said}")
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return ImageWriteError(
                f"{self._path} could not be stored: {error.strerror}. It needs up to "
                f"{self._needed_bytes / 1e6:,.1f} MB in {self._path.parent}; free space there, or "
                "choose another folder or a format that compresses more."
            )
        return ImageWriteError(
            f"{self._path} cannot be written: {error.strerror or error}. Check the folder and "
            "its permissions."
        )

    def _check_rows(self, rows: Pixels) -> None:
        if rows.ndim != 3 or rows.shape[1:] != self._row_shape or rows.dtype != self._dtype:
            raise ImageValueError(
                f"Rows must be (h, {self._row_shape[0]}, {self._row_shape[1]}) {self._dtype.name}; "
                f"came {tuple(rows.shape)} {rows.dtype.name}."
            )
        if self._rows_written + rows.shape[0] > self._height:
            raise ImageValueError(
                f"{rows.shape[0]} rows came after {self._rows_written}; only {self._height} were "
                "announced."
            )


def write_image(
    path: str | Path,
    pixels: Pixels,
    *,
    metadata: ImageMetadata | None = None,
    quality: int | None = None,
    overwrite: bool = False,
) -> None:
    """Write pixels that are already in memory; see :class:`ImageWriter`.

    Args:
        path: the output; its suffix chooses the format.
        pixels: (H, W, C) uint8 or uint16.
        metadata: of the source; None writes none.
        quality: 1 to 100 for JPEG, WebP and AVIF.
        overwrite: whether an existing file may be replaced.
    Raises:
        As :class:`ImageWriter`.
    """
    check_pixels(pixels)
    height, width, channels = pixels.shape
    with ImageWriter(
        path,
        width=width,
        height=height,
        channels=channels,
        bit_depth=8 * pixels.dtype.itemsize,
        metadata=metadata,
        quality=quality,
        overwrite=overwrite,
    ) as writer:
        writer.write_rows(pixels)


def check_output(
    path: str | Path,
    *,
    width: int,
    height: int,
    channels: int,
    bit_depth: int,
    colour: StatedColour | None = None,
    extra: ExtraChannel | None = None,
    overwrite: bool = False,
) -> ImageFormat:
    """Find out before the work whether its result could be stored.

    Args:
        path: the output; its suffix chooses the format.
        width: of the result, in pixels.
        height: of the result, in pixels.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
        bit_depth: 8 or 16.
        colour: of the pixels, where the source states it otherwise than by a profile.
        extra: what the second or fourth channel is; None is opacity.
        overwrite: whether an existing file may be replaced.
    Returns:
        The format that the suffix chooses.
    Raises:
        ImageFormatError: the suffix is unknown, or its format cannot hold such a result.
        OutputExistsError: the file exists and ``overwrite`` is false.
        ImageWriteError: the folder is missing or closed to us, or the path is itself a folder.
        ImageValueError, ImageSizeError: arguments that cannot be.
    """
    path = Path(path)
    check_kind(width, height, channels, bit_depth)
    form = format_for_writing(path)
    if extra == "data" and form.name != "TIFF":
        raise ImageFormatError(
            f"{path}: {form.name} would take the channel beside the colours for transparency, and "
            "the image says that it is other data (ExtraSamples). Write TIFF, or remove the "
            "channel first."
        )
    _check_colour(path, form, colour)
    _check_limits(path, form, width, height, channels, bit_depth)
    try:
        _check_place(path, overwrite=overwrite)
    except OSError as error:
        raise ImageWriteError(
            f"{path} cannot be written: {error.strerror or error}. Check the folders above it."
        ) from error
    return form


def check_names(path: Path) -> None:
    """Refuse a file or folder name longer than the file system allows.

    Raises:
        ImageWriteError: the message says how to get a shorter one.
    """
    limit = _longest_name_bytes(path)
    for name in path.parts:
        num_bytes = len(os.fsencode(name))
        if num_bytes > limit:
            raise ImageWriteError(
                f"{path} cannot be written: the name {name[:20]}…{name[-10:]} is too long, "
                f"{num_bytes} bytes where {limit} are allowed. Give a shorter --suffix, or another "
                "name with --output (-o)."
            )


def _longest_name_bytes(path: Path) -> int:
    folder = next((p for p in path.parents if os.path.isdir(p)), None)  # noqa: PTH112
    try:
        return os.pathconf(folder or ".", "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, or a file system that does not say
        return 255


def _check_place(path: Path, *, overwrite: bool) -> None:
    check_names(path)
    if path.is_dir():
        raise ImageWriteError(f"{path} is a folder; name a file in it.")
    if not overwrite and os.path.lexists(path):
        raise already_exists(path)
    if path.exists() and not path.is_file():
        raise ImageWriteError(f"{path} is a device or a pipe; name a file.")
    folder = link_target(path).parent if overwrite else path.parent
    if not folder.is_dir():
        raise ImageWriteError(f"The folder {folder} does not exist; make it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ImageWriteError(f"The folder {folder} may not be written to; choose another.")


def check_pixels(pixels: Pixels) -> None:
    """Refuse an array that is not (H, W, C) uint8 or uint16.

    Raises:
        ImageValueError: another dtype or number of axes.
    """
    if pixels.ndim != 3 or pixels.dtype.name not in ("uint8", "uint16"):
        raise ImageValueError(
            f"Pixels must be (H, W, C) uint8 or uint16; came {tuple(pixels.shape)} "
            f"{pixels.dtype.name}."
        )


def check_kind(width: int, height: int, channels: int, bit_depth: int) -> None:
    """Refuse a picture that no format holds.

    Raises:
        ImageSizeError: a side is not positive.
        ImageValueError: other than 1 to 4 channels of 8 or 16 bits.
    """
    if min(width, height) < 1:
        raise ImageSizeError(f"An image of {width}x{height} pixels cannot be; 1x1 is the least.")
    if channels not in (1, 2, 3, 4) or bit_depth not in (8, 16):
        raise ImageValueError(
            f"{channels} channels of {bit_depth} bits; allowed are 1 (grey), 2 (grey and alpha), "
            "3 (RGB) or 4 (RGB and alpha) of 8 or 16 bits."
        )


def _check_limits(
    path: Path, form: ImageFormat, width: int, height: int, channels: int, bit_depth: int
) -> None:
    if max(width, height) > form.max_side_pixels:
        raise ImageFormatError(
            f"{path}: {form.name} holds at most {form.max_side_pixels:,} pixels a side, and the "
            f"result has {width}x{height}. Write PNG or TIFF, or choose a smaller scale."
        )
    if channels in (2, 4) and not form.holds_alpha:
        raise ImageFormatError(
            f"{path}: {form.name} holds no transparency, and the image has some. Write PNG, "
            "WebP, TIFF or AVIF."
        )
    if bit_depth == 16 and form.max_bit_depth == 8:
        raise ImageFormatError(
            f"{path}: {form.name} holds 8 bits per channel, and the image has 16. Write PNG or "
            "TIFF (or AVIF, which keeps 12)."
        )


def _check_colour(path: Path, form: ImageFormat, colour: StatedColour | None) -> None:
    if colour is None or colour.beyond_profiles is None:
        return
    if form.name == "PNG" or (form.name == "AVIF" and colour.code_points is not None):
        return
    raise ImageFormatError(
        f"{path}: the image is {colour.beyond_profiles}, which {form.name} cannot state, so it "
        "would be shown in wrong colours. Write PNG (or AVIF for HDR), or convert the source to "
        "sRGB first."
    )


def already_exists(path: Path) -> OutputExistsError:
    """Make the error for a file that nobody asked us to replace."""
    return OutputExistsError(f"{path} exists already; allow overwriting, or choose another name.")


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


_KERNEL_REACH = 4
"""Of Lanczos and bicubic kernels, in pixels of the smaller image."""


def resize_pixels(
    pixels: Pixels, *, width: int, height: int, weighs_opacity: bool = True, wraps: bool = False
) -> Pixels:
    """Resize with a Lanczos kernel, antialiased.

    Args:
        pixels: (H, W, C) uint8 or uint16.
        width: of the result, in pixels.
        height: of the result, in pixels.
        weighs_opacity: whether colour is weighed by the alpha beside it, which leaves none where
            that is 0; else each channel is resized by itself.
        wraps: whether beyond a border lies the other end, as in a texture that repeats; else the
            border's own pixels.
    Returns:
        (height, width, C), same dtype.
    Raises:
        ImageValueError: another dtype or shape.
        ImageSizeError: a side is not positive.
        ImageError: in a process forked after libvips had worked.
    """
    check_pixels(pixels)
    check_kind(width, height, pixels.shape[2], 8 * pixels.dtype.itemsize)
    require_threads_of_libvips()
    rows, columns, channels = pixels.shape
    form = "uchar" if pixels.dtype == np.uint8 else "ushort"
    data = np.ascontiguousarray(pixels)
    image = pyvips.Image.new_from_memory(data.data, columns, rows, channels, form)
    left = top = 0
    if wraps:
        around, above = repeat_for_resizing(columns, width), repeat_for_resizing(rows, height)
        left, top = around * width // columns, above * height // rows
        # libvips computes only what is cropped out again.
        image = image.embed(around, above, columns + 2 * around, rows + 2 * above, extend="repeat")
    larger = resized(image, width + 2 * left, height + 2 * top, weighs_opacity=weighs_opacity)
    result = larger.crop(left, top, width, height).write_to_memory()
    return np.frombuffer(result, dtype=pixels.dtype).reshape(height, width, channels)


def repeat_for_resizing(length: int, target: int) -> int:
    """How many pixels of an axis's other end go before it to be resized with it.

    Enough for the kernel, and as many as become whole pixels.
    """
    unit = length // math.gcd(length, target)
    return math.ceil(_KERNEL_REACH * max(1, length / target) / unit) * unit


def resized(image: VipsImage, width: int, height: int, *, weighs_opacity: bool = True) -> VipsImage:
    """Resize with a Lanczos kernel, antialiased.

    Args:
        image: 8 or 16-bit, 1 to 4 channels, the even ones ending in straight alpha.
        width: of the result, in pixels.
        height: of the result, in pixels.
        weighs_opacity: whether colour is premultiplied by alpha meanwhile.
    """
    if (image.width, image.height) == (width, height):
        return image
    form, encoding = image.format, image.interpretation
    peak = 255.0 if form == "uchar" else 65535.0
    has_alpha = weighs_opacity and image.bands in (2, 4)
    if has_alpha:
        image = image.premultiply(max_alpha=peak)
    elif form == "ushort":
        # In integers of 16 bits libvips makes 65471 of an even 65535.
        image = image.cast("float")
    image = image.resize(width / image.width, vscale=height / image.height, kernel="lanczos3")
    if has_alpha:
        image = image.unpremultiply(max_alpha=peak)
    if image.format != form:
        image = image.rint().cast(form)
    # Rounding of the factor may leave a pixel more or less than asked for.
    if (image.width, image.height) != (width, height):
        image = image.embed(0, 0, width, height, extend="copy")
    return image.copy(interpretation=encoding)


_STRIP_BYTES = 1 << 18
_CAPACITY_BYTES = 1 << 24
"""Rows that may wait; a push that is larger by itself waits until it is alone."""

_LAYOUT = TagLayout(order="<", big=True, first_at=8)
_HEADER_BYTES = 16


class StreamClosedError(Exception):
    """The other side has gone; whoever closed it knows why."""


class RowStream:
    """Rows pushed by one thread, read by another as an uncompressed TIFF file.

    Args:
        width: in pixels.
        height: in pixels.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
        bit_depth: 8 or 16.
    """

    def __init__(self, *, width: int, height: int, channels: int, bit_depth: int) -> None:
        row_bytes = width * channels * bit_depth // 8
        self._header = _tiff_header(width, height, channels, bit_depth)
        self._total = len(self._header) + row_bytes * height
        self._position = 0
        self._served: int = len(self._header)
        self._waiting: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def push(self, data: bytes | memoryview) -> None:
        """Append bytes of rows, waiting while too many are queued.

        Args:
            data: little-endian pixels; not copied.
        Raises:
            StreamClosedError: the stream was closed, so nobody will read them.
        """
        with self._changed:
            while self._is_full_for(len(data)) and not self._closed:
                self._changed.wait()
            if self._closed:
                raise StreamClosedError
            self._waiting.append(memoryview(data))
            self._waiting_bytes += len(data)
            self._changed.notify_all()

    def _is_full_for(self, num_bytes: int) -> bool:
        return bool(self._waiting) and self._waiting_bytes + num_bytes > _CAPACITY_BYTES

    def close(self) -> None:
        """Wake and turn away both sides: pushing raises, reading ends."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def read(self, length: int) -> bytes | None:
        """Return at most ``length`` bytes from the current position, None at the end.

        Waits for rows that have not been pushed yet.
        """
        if self._position < len(self._header):
            data = self._header[self._position : self._position + length]
            self._position += len(data)
            return data
        if self._position >= self._total:
            return None
        if self._position != self._served:
            # libvips reads each strip once and in order; ending here makes it fail, not err.
            return None
        chunk = self._next(length)
        if chunk is not None:
            self._served += len(chunk)
            self._position += len(chunk)
        return chunk

    def seek(self, offset: int, whence: int) -> int:
        """Move the position as ``io.IOBase.seek`` does; return the new one."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._total}[whence]
        self._position = base + offset
        return self._position

    def _next(self, length: int) -> bytes | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            chunk = self._waiting.popleft()
            if len(chunk) > length:
                self._waiting.appendleft(chunk[length:])
                chunk = chunk[:length]
            self._waiting_bytes -= len(chunk)
            self._changed.notify_all()
            return bytes(chunk)


def _tiff_header(width: int, height: int, channels: int, bit_depth: int) -> bytes:
    """Write the header and directory of an uncompressed BigTIFF, pixels to follow at once."""
    row_bytes = width * channels * bit_depth // 8
    rows_per_strip = min(height, max(1, _STRIP_BYTES // row_bytes))
    strips = -(-height // rows_per_strip)
    last = (height - (strips - 1) * rows_per_strip) * row_bytes
    counts = [rows_per_strip * row_bytes] * (strips - 1) + [last]

    def shorts(*values: int) -> Tag:
        return Tag(kind=3, count=len(values), payload=struct.pack(f"<{len(values)}H", *values))

    def longs(values: list[int]) -> Tag:
        return Tag(kind=16, count=len(values), payload=struct.pack(f"<{len(values)}Q", *values))

    def directory(pixels_at: int) -> bytes:
        offsets = [pixels_at + index * counts[0] for index in range(strips)]
        tags = {
            256: longs([width]),
            257: longs([height]),
            258: shorts(*[bit_depth] * channels),
            259: shorts(1),  # not compressed
            262: shorts(1 if channels < 3 else 2),  # black is zero, or RGB
            273: longs(offsets),
            277: shorts(channels),
            278: longs([rows_per_strip]),
            279: longs(counts),
            284: shorts(1),  # channels side by side
        }
        if channels in (2, 4):
            tags[338] = shorts(2)  # straight alpha
        return serialise(tags, _LAYOUT, _HEADER_BYTES)

    pixels_at = _HEADER_BYTES + len(directory(0))
    return struct.pack("<2sHHHQ", b"II", 43, 8, 0, _HEADER_BYTES) + directory(pixels_at)
