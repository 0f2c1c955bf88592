"""Write results row by row: whole files or none, in memory that does not grow with the image.

JPEG, PNG and TIFF are encoded as the rows come. WebP and AVIF encoders hold the whole result
(``ImageFormat.streams`` in ``formats`` says which).
"""

import contextlib
import errno
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyvips

from escsr.errors import ImageValueError, ImageWriteError
from escsr.images.decoding import Pixels
from escsr.images.encoding import FileTarget, complete_tiff, encode
from escsr.images.forked_process import require_threads_of_libvips
from escsr.images.lanczos import resize_pixels, resized
from escsr.images.metadata import ImageMetadata
from escsr.images.output_checks import already_exists, check_kind, check_output, check_pixels
from escsr.images.row_stream import RowStream, StreamClosedError
from escsr.temporary_files import PendingFile

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
