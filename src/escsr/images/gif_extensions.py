"""What a GIF holds beside its pixels, which libvips does not tell.

Sources: GIF89a; ICC.1 (application ICCRGBG1012); XMP part 3, section 2.1.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from escsr.images.file_blocks import FileBlocks

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
