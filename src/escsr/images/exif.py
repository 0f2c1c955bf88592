r"""EXIF blocks: correct them for a result, and carry them through TIFF files.

An EXIF block is ``Exif\0\0`` and a small TIFF file of up to four directories: the image's
(camera, date, orientation), the camera settings', the place's, and a thumbnail's.
"""

import io
import struct
from typing import BinaryIO

from escsr.images.tiff_tags import (
    Directory,
    Tag,
    TagFormatError,
    TagLayout,
    read_directory,
    read_layout,
    read_offset,
    serialise,
)

_PREFIX = b"Exif\0\0"
_LITTLE = TagLayout(order="<", big=False, first_at=4)

_ORIENTATION = 274
_SETTINGS, _PLACE, _INTEROPERABILITY = 34665, 34853, 40965
_PIXEL_X_DIMENSION, _PIXEL_Y_DIMENSION = 40962, 40963

_DESCRIPTIVE = frozenset({270, 271, 272, 305, 306, 315, 33432})
"""Description, make, model, software, date, artist, copyright: a TIFF keeps them beside its own."""


def settled_exif(exif: bytes) -> bytes:
    """Return an EXIF block for pixels that already stand upright, without its thumbnail.

    The thumbnail goes, since it would show the image as it was before turning.

    Args:
        exif: a block, with or without its ``Exif`` prefix.
    Returns:
        The block with prefix, orientation 1 and no thumbnail. A block that cannot be read comes
        back as it is.
    """
    body = bytearray(exif.removeprefix(_PREFIX))
    try:
        layout = read_layout(io.BytesIO(body))
        stream = io.BytesIO(body)
        offset = read_offset(stream, layout, layout.first_at)
        _, next_at = read_directory(stream, layout, offset)
    except TagFormatError:
        return exif
    struct.pack_into(layout.offset, body, next_at, 0)
    for entry in range(offset + 2, next_at, 12):
        (number,) = struct.unpack_from(layout.order + "H", body, entry)
        if number == _ORIENTATION:
            struct.pack_into(layout.order + "HHIHH", body, entry, number, 3, 1, 1, 0)
    return _PREFIX + bytes(body)


def resolution_of(exif: bytes) -> tuple[float, float] | None:
    """Return the pixels per millimetre that an EXIF block states, horizontally and vertically."""
    try:
        main, _, _ = _parse(exif)
        unit = main[296].first_integer() if 296 in main else 2
        per_unit = [struct.unpack("<II", main[number].payload[:8]) for number in (282, 283)]
        per_millimetre = 1 / 10.0 if unit == 3 else 1 / 25.4
        x, y = (numerator / denominator * per_millimetre for numerator, denominator in per_unit)
    except (TagFormatError, KeyError, struct.error, ZeroDivisionError):
        return None
    return (x, y) if x > 0 and y > 0 else None


def exif_of_tiff(stream: BinaryIO) -> bytes | None:
    """Collect the EXIF of a TIFF file's first page into a block.

    Args:
        stream: the TIFF file.
    Returns:
        The block, or None where the file has neither EXIF nor descriptive tags.
    """
    try:
        layout = read_layout(stream)
        offset = read_offset(stream, layout, layout.first_at)
        main, _ = read_directory(stream, layout, offset)
        settings, place = (
            _subdirectory(stream, layout, main, pointer) for pointer in (_SETTINGS, _PLACE)
        )
    except TagFormatError:
        return None
    described = {number: tag for number, tag in main.items() if number in _DESCRIPTIVE}
    if not (described or settings or place):
        return None
    header = b"II" + struct.pack("<HI", 42, 8)
    return _PREFIX + header + _assemble(described, settings, place, _LITTLE, 8)[0]


def add_exif_to_tiff(stream: BinaryIO, exif: bytes, *, width: int, height: int) -> None:
    """Append an EXIF block to a finished one-page TIFF file, its size tags corrected.

    Args:
        stream: the TIFF file, opened for reading and writing.
        exif: the block; one that cannot be read is left out.
        width: of the image in the file, in pixels.
        height: likewise.
    """
    try:
        described, settings, place = _parse(exif)
    except TagFormatError:
        return
    for number, side in ((_PIXEL_X_DIMENSION, width), (_PIXEL_Y_DIMENSION, height)):
        settings[number] = Tag(kind=4, count=1, payload=struct.pack("<I", side))
    layout = read_layout(stream)
    main, _ = read_directory(stream, layout, read_offset(stream, layout, layout.first_at))
    own = {number: tag for number, tag in described.items() if number in _DESCRIPTIVE} | main
    end = stream.seek(0, io.SEEK_END)
    start = end + -end % 8
    data, offset = _assemble(own, settings, place, layout, start, main_first=False)
    stream.write(bytes(start - end) + data)
    stream.seek(layout.first_at)
    stream.write(struct.pack(layout.offset, offset))


def _parse(exif: bytes) -> tuple[Directory, Directory, Directory]:
    """Return the image's, the settings' and the place's directory of an EXIF block."""
    stream = io.BytesIO(exif.removeprefix(_PREFIX))
    layout = read_layout(stream)
    offset = read_offset(stream, layout, layout.first_at)
    main, _ = read_directory(stream, layout, offset)
    settings = _subdirectory(stream, layout, main, _SETTINGS)
    return main, settings, _subdirectory(stream, layout, main, _PLACE)


def _subdirectory(stream: BinaryIO, layout: TagLayout, main: Directory, pointer: int) -> Directory:
    if pointer not in main:
        return {}
    directory, _ = read_directory(stream, layout, main[pointer].first_integer())
    directory.pop(_INTEROPERABILITY, None)
    return directory


def _assemble(
    main: Directory,
    settings: Directory,
    place: Directory,
    layout: TagLayout,
    start: int,
    *,
    main_first: bool = True,
) -> tuple[bytes, int]:
    """Write three directories in a row from ``start``; return them and where ``main`` stands."""
    # 64-bit integers: readers other than libtiff overlook the type made for such offsets (18).
    kind, code = (16, "<Q") if layout.big else (4, "<I")

    def pointing(offsets: dict[int, int]) -> Directory:
        pointers = {
            number: Tag(kind=kind, count=1, payload=struct.pack(code, offset))
            for number, offset in offsets.items()
        }
        return {n: t for n, t in main.items() if n not in (_SETTINGS, _PLACE)} | pointers

    parts = {n: part for n, part in ((_SETTINGS, settings), (_PLACE, place)) if part}
    main_bytes = len(serialise(pointing(dict.fromkeys(parts, 0)), layout, 0))
    position = start + (main_bytes if main_first else 0)
    offsets: dict[int, int] = {}
    written: list[bytes] = []
    for number, part in parts.items():
        offsets[number] = position
        written.append(serialise(part, layout, position))
        position += len(written[-1])
    main_at = start if main_first else position
    data = serialise(pointing(offsets), layout, main_at)
    ordered = [data, *written] if main_first else [*written, data]
    return b"".join(ordered), main_at
