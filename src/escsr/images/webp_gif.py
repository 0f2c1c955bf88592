"""The chunks of a WebP and the extensions of a GIF beside the pixels.

Those of WebP are also put into a file as it is written.

Sources: WebP Container Specification (RFC 9649), GIF89a.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from escsr.images.file_blocks import FileBlocks, HeadRewriter

_HEADER_BYTES = 12
_MAX_CHUNKS = 1 << 12
_EXTENDED = b"VP8X"
_PROFILE_FLAG, _ALPHA_FLAG, _EXIF_FLAG, _XMP_FLAG = 0x20, 0x10, 0x08, 0x04
_FRAME, _FRAME_HEADER_BYTES = b"ANMF", 16


def read_webp_blocks(stream: BinaryIO) -> FileBlocks:
    """Read whether a WebP was coded without loss; what else it holds, libvips tells.

    Args:
        stream: the file.
    """
    return FileBlocks(is_lossless=b"VP8L" in set(_kinds(stream)))


def _kinds(stream: BinaryIO) -> Iterator[bytes]:
    stream.seek(_HEADER_BYTES)
    for _ in range(_MAX_CHUNKS):
        head = stream.read(8)
        if len(head) < 8:
            return
        kind, length = struct.unpack("<4sI", head)
        yield kind
        inner = _FRAME_HEADER_BYTES if kind == _FRAME else length + length % 2
        stream.seek(inner, 1)


def webp_parts(
    *, width: int, height: int, profile: bytes | None, exif: bytes | None, xmp: bytes | None
) -> tuple[HeadRewriter, bytes]:
    """Put metadata around the pixels of a WebP.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        profile: ICC profile, or None.
        exif: EXIF block, without prefix, or None.
        xmp: XMP packet, or None.
    Returns:
        What rewrites the start of the file, and what is appended at its end.
    """
    ahead = _chunk(b"ICCP", profile) if profile else b""
    behind = (_chunk(b"EXIF", exif) if exif else b"") + (_chunk(b"XMP ", xmp) if xmp else b"")
    flags = _PROFILE_FLAG * bool(profile) | _EXIF_FLAG * bool(exif) | _XMP_FLAG * bool(xmp)

    def rewrite(written: bytes) -> tuple[bytes, int] | None:
        if len(written) < _HEADER_BYTES + 18:
            return None
        _, size, _, kind = struct.unpack_from("<4sI4s4s", written)
        replaced = _HEADER_BYTES
        own = 0
        if kind == _EXTENDED:
            replaced += 18
            own = written[_HEADER_BYTES + 8]
        elif kind == b"VP8L":
            own = _ALPHA_FLAG * (written[_HEADER_BYTES + 12] >> 4 & 1)
        extended = _chunk(
            _EXTENDED,
            bytes([own | flags, 0, 0, 0])
            + (width - 1).to_bytes(3, "little")
            + (height - 1).to_bytes(3, "little"),
        )
        head = extended + ahead
        size += len(head) - (replaced - _HEADER_BYTES) + len(behind)
        return struct.pack("<4sI4s", b"RIFF", size, b"WEBP") + head, replaced

    return (rewrite if flags else _unchanged), behind


def _unchanged(written: bytes) -> tuple[bytes, int]:
    return b"", 0


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("<I", len(payload)) + payload + bytes(len(payload) % 2)


_COMMENT, _APPLICATION = b"\xfe", b"\xff"
_ICC, _XMP = b"ICCRGBG1012", b"XMP DataXMP"
_XMP_TRAILER_BYTES = 256
"""Behind XMP, which is no chain of blocks: bytes that lead a reader of blocks to its end."""
_MAX_KEPT_BYTES = 1 << 22


def read_gif_blocks(stream: BinaryIO) -> FileBlocks:
    """Read the comments, the profile and the XMP that stand before the first frame.

    Args:
        stream: the file.
    """
    comments: list[bytes] = []
    icc = xmp = None
    for label, blocks in _extensions(stream):
        if label == _COMMENT:
            comments.append(b"".join(blocks))
        elif label == _APPLICATION and blocks[:1] == [_ICC]:
            icc = b"".join(blocks[1:])
        elif label == _APPLICATION and blocks[:1] == [_XMP]:
            # Read as blocks, each has lost its first byte, which is its length.
            whole = b"".join(bytes([len(block)]) + block for block in blocks[1:])
            xmp = whole[:-_XMP_TRAILER_BYTES] if len(whole) > _XMP_TRAILER_BYTES else None
    return FileBlocks(comments=tuple(comments), icc_profile=icc, xmp=xmp)


def read_first_frame(stream: BinaryIO) -> tuple[int, int, int, int] | None:
    """Read where on the canvas the first frame lies; None where it is not found.

    Args:
        stream: the file.
    Returns:
        (left, top, width, height) in pixels; libvips extends a canvas that cannot hold it.
    """
    for _ in _extensions(stream):
        pass
    stream.seek(-1, 1)  # behind the extensions one byte was read
    descriptor = stream.read(10)
    if len(descriptor) < 10 or not descriptor.startswith(b","):
        return None
    return struct.unpack_from("<4H", descriptor, 1)


def _extensions(stream: BinaryIO) -> Iterator[tuple[bytes, list[bytes]]]:
    stream.seek(0)
    head = stream.read(13)
    if len(head) == 13 and head[10] & 0x80:
        stream.seek(3 << (head[10] & 7) + 1, 1)
    room = _MAX_KEPT_BYTES
    while room > 0 and stream.read(1) == b"!":
        label, blocks = stream.read(1), list[bytes]()
        while room > 0 and (size := stream.read(1)) not in (b"", b"\0"):
            blocks.append(stream.read(size[0]))
            room -= size[0] + 1
        room -= 256  # many small ones take time, not room
        yield label, blocks
