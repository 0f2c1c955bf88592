"""A picture that libvips can pull while it is still being made.

libvips reads pixels from files or from a *custom source*, a pair of read and seek functions. The
bundled libvips reads no format as plain as PPM, so the source poses as an uncompressed BigTIFF: a
header computed beforehand, then the rows in order. libvips asks for each strip once, top to bottom,
so only a few megabytes lie between the thread that makes rows and the one that encodes them, in any
bit depth and with alpha.
"""

import io
import struct
import threading
from collections import deque

from escsr.images.tiff_tags import Tag, TagLayout, serialise

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
