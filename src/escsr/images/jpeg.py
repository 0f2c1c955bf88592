"""The segments of a JPEG beside its pixels, and flaws of its pixels that do no harm.

Segments are read from a file, and put into one as it is written.

Sources: JFIF 1.02, Exif 2.32 (section 4.7), XMP part 3, ICC.1:2022 (annex B.4), CIPA DC-007 (MPF).
"""

import hashlib
import io
import re
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from escsr.images.exif import stated_orientation
from escsr.images.file_blocks import Density, FileBlocks, HeadRewriter
from escsr.images.tiff_tags import TagFormatError, read_directory, read_layout, read_offset
from escsr.images.xmp import joined_xmp, split_xmp, with_extension_named

_SOI, _EOI, _SOS, _COMMENT = 0xD8, 0xD9, 0xDA, 0xFE
_APP0, _APP1, _APP2, _APP11, _APP12, _APP13 = 0xE0, 0xE1, 0xE2, 0xEB, 0xEC, 0xED
_ADOBE = 0xEE
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})

_JFIF = b"JFIF\0"
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_ICC = b"ICC_PROFILE\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_MPF = b"MPF\0"
_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"

MAX_SEGMENT_BYTES = 65_533
"""Payload of one segment."""
_MAX_KEPT_BYTES = 1 << 26
"""All segments of a file together; larger extensions of XMP are left out."""
_MAX_SEGMENTS = 10_000
_MAX_STRAY_BYTES = 1 << 16
"""Between two segments."""

Segment = tuple[int, bytes]
"""Marker and payload."""


def read_jpeg_blocks(stream: BinaryIO) -> FileBlocks:
    """Read what a JPEG holds beside its pixels.

    Args:
        stream: the file.
    """
    segments = list(_segments(stream))
    applications = [(marker, data) for marker, data in segments if marker != _COMMENT]
    photoshop = b"".join(_behind(applications, _APP13, _PHOTOSHOP))
    exif = next(iter(_behind(applications, _APP1, _EXIF)), None)
    return FileBlocks(
        exif=exif,
        orientation=stated_orientation(exif),
        xmp=_joined_xmp(applications),
        photoshop=photoshop or None,
        comments=tuple(data for marker, data in segments if marker == _COMMENT),
        notes=tuple(_notes(applications)),
        density=_density_of(applications),
    )


def _segments(stream: BinaryIO) -> Iterator[Segment]:
    """Walk through the segments of use up to the first scan."""
    stream.seek(2)
    room = _MAX_KEPT_BYTES
    for _ in range(_MAX_SEGMENTS):
        marker = _next_marker(stream)
        if marker in (None, _SOS, _EOI):
            return
        if marker in _WITHOUT_LENGTH:
            continue
        head = stream.read(2)
        length = max(int.from_bytes(head, "big") - 2, 0)
        if len(head) < 2 or room < length:
            return
        if marker == _COMMENT or _APP0 <= marker <= 0xEF:
            payload = stream.read(length)
            room -= length
            if len(payload) == length:
                yield marker, payload
        else:
            stream.seek(length, 1)


def _next_marker(stream: BinaryIO) -> int | None:
    """Return the next marker, whatever few bytes stand before it."""
    has_begun = False
    for _ in range(_MAX_STRAY_BYTES):
        byte = stream.read(1)
        if has_begun and byte != b"\xff":
            return byte[0] if byte else None
        has_begun = byte == b"\xff"
    return None


def _behind(segments: Sequence[Segment], marker: int, prefix: bytes) -> list[bytes]:
    """Return the payloads of the segments of one kind, without the prefix that names it."""
    return [
        data.removeprefix(prefix)
        for found, data in segments
        if found == marker and data.startswith(prefix)
    ]


def _joined_xmp(segments: Sequence[Segment]) -> bytes | None:
    packets = _behind(segments, _APP1, _XMP)
    if not packets:
        return None
    xmp = packets[0]
    parts: dict[int, bytes] = {}
    total = 0
    for data in _behind(segments, _APP1, _XMP_EXTENSION):
        if len(data) >= 40 and data[:32] in xmp:
            total, offset = struct.unpack(">II", data[32:40])
            parts[offset] = data[40:]
    extension = b"".join(parts[offset] for offset in sorted(parts))
    return joined_xmp(xmp, extension) if extension and len(extension) == total else xmp


def _density_of(segments: Sequence[Segment]) -> Density | None:
    found = _behind(segments, _APP0, _JFIF)
    if not found or len(found[0]) < 7:
        return None
    unit, x, y = struct.unpack(">BHH", found[0][2:7])
    if not (x and y):
        return None
    if unit not in (1, 2):
        return Density(ratio=(float(x), float(y))) if x != y else None
    per_mm, name = (25.4, "in") if unit == 1 else (10.0, "cm")
    return Density(pixels_per_mm=(x / per_mm, y / per_mm), unit=name)


def _notes(segments: Sequence[Segment]) -> Iterator[str]:
    further = max(map(_further_pictures, _behind(segments, _APP2, _MPF)), default=0)
    packets = b"".join(_behind(segments, _APP1, _XMP))
    if _behind(segments, _APP2, _ISO_GAIN_MAP) or b"hdr-gain-map/" in packets:
        yield "the gain map (HDR)"
        further -= 1  # it is one of the pictures of the index
    if further > 0:
        yield f"{further} further picture{'s' * (further > 1)} (MPO)"
    if any(marker == _APP11 for marker, _ in segments):
        yield "content credentials (JUMBF)"
    others = [_name(marker, data) for marker, data in segments if not _is_known(marker, data)]
    if others:
        yield f"application data ({', '.join(dict.fromkeys(others))})"


_KNOWN = (
    *((_APP0, _JFIF), (_APP0, b"JFXX\0"), (_APP1, _EXIF), (_APP1, _XMP), (_APP1, _XMP_EXTENSION)),
    *((_APP2, _ICC), (_APP2, _MPF), (_APP2, _ISO_GAIN_MAP), (_APP11, b""), (_APP13, _PHOTOSHOP)),
    *((_APP12, b"Ducky"), (_ADOBE, b"Adobe")),
)
"""Segments that are read, named otherwise, or about the coding and the thumbnail of the source."""


def _is_known(marker: int, data: bytes) -> bool:
    return any(marker == known and data.startswith(prefix) for known, prefix in _KNOWN)


def _name(marker: int, data: bytes) -> str:
    """Name an application's segment by its number, and by what it calls itself."""
    own = re.match(rb"[A-Za-z][\w .:-]{2,15}", data)
    return f"APP{marker - _APP0}" + (f" {own[0].decode('ascii')}" if own else "")


_IMAGE_ENTRIES = 0xB002
_LARGE_THUMBNAIL = 0x01


def _further_pictures(index: bytes) -> int:
    """Count the pictures that a multi-picture index lists beside the first and its thumbnails."""
    stream = io.BytesIO(index)
    try:
        layout = read_layout(stream)
        tags, _ = read_directory(stream, layout, read_offset(stream, layout, layout.first_at))
    except TagFormatError:
        return 0
    entries = tags[_IMAGE_ENTRIES].payload if _IMAGE_ENTRIES in tags else b""
    kinds = [
        struct.unpack_from(layout.order + "I", entries, at)[0] & 0xFFFFFF
        for at in range(16, len(entries) - 15, 16)
    ]
    return sum(kind >> 16 != _LARGE_THUMBNAIL for kind in kinds)


def jpeg_head(segments: Sequence[Segment]) -> HeadRewriter:
    """Put segments at the start of a JPEG, in place of the encoder's own."""

    def rewrite(written: bytes) -> tuple[bytes, int] | None:
        at = 2
        while len(written) >= at + 4:
            marker, length = written[at + 1], int.from_bytes(written[at + 2 : at + 4], "big")
            if not (_APP0 <= marker < _ADOBE or marker == _COMMENT):
                return b"".join((written[:2], *map(_serialised, segments))), at
            at += 2 + length
        return None

    return rewrite


def _serialised(segment: Segment) -> bytes:
    marker, payload = segment
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def density_segment(
    pixels_per_mm: tuple[float, float] | None, unit: str, ratio: tuple[float, float] | None
) -> Segment:
    """Make the JFIF segment; without a density it states that pixels are square."""
    code, x, y = 0, 1, 1
    if pixels_per_mm is not None:
        code, per_mm = (2, 10.0) if unit == "cm" else (1, 25.4)
        x, y = (round(density * per_mm) for density in pixels_per_mm)
    elif ratio is not None:
        shrunk = max(1.0, max(ratio) / 65_535)
        x, y = (round(value / shrunk) for value in ratio)
    x, y = (min(max(value, 1), 65_535) for value in (x, y))
    return _APP0, _JFIF + struct.pack(">BBBHHBB", 1, 2, code, x, y, 0, 0)


def exif_segment(exif: bytes) -> Segment:
    """Make the segment of an EXIF block of at most ``MAX_SEGMENT_BYTES``, with its prefix."""
    return _APP1, exif


def xmp_segments(xmp: bytes) -> list[Segment]:
    """Make the segments of XMP, with an extension where one cannot hold all of it."""
    note_bytes = 200
    packet, extension = split_xmp(xmp, MAX_SEGMENT_BYTES - len(_XMP) - note_bytes)
    if not packet:
        return []
    if not extension:
        return [(_APP1, _XMP + packet)]
    digest = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper().encode("ascii")
    head = _XMP_EXTENSION + digest
    step = MAX_SEGMENT_BYTES - len(head) - 8
    return [
        (_APP1, _XMP + with_extension_named(packet, digest)),
        *(
            (_APP1, head + struct.pack(">II", len(extension), at) + extension[at : at + step])
            for at in range(0, len(extension), step)
        ),
    ]


def profile_segments(profile: bytes) -> list[Segment]:
    """Make the segments of an ICC profile."""
    step = MAX_SEGMENT_BYTES - len(_ICC) - 2
    count = -(-len(profile) // step)
    return [
        (_APP2, _ICC + bytes([number + 1, count]) + profile[number * step : (number + 1) * step])
        for number in range(count)
    ]


def photoshop_segments(photoshop: bytes) -> list[Segment]:
    """Make the segments of Photoshop's resource blocks."""
    step = MAX_SEGMENT_BYTES - len(_PHOTOSHOP)
    parts = (photoshop[at : at + step] for at in range(0, len(photoshop), step))
    return [(_APP13, _PHOTOSHOP + part) for part in parts]


def comment_segments(comment: bytes) -> list[Segment]:
    """Make the segments of a comment."""
    parts = (
        comment[at : at + MAX_SEGMENT_BYTES] for at in range(0, len(comment), MAX_SEGMENT_BYTES)
    )
    return [(_COMMENT, part) for part in parts]


# Flaws that cost no pixel.

_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without content."""
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def without_harmless_flaws(data: bytes) -> bytes | None:
    """Leave out what libjpeg warns of though it costs no pixel.

    These are stray bytes between the segments before the first scan, an unknown colour transform
    in Adobe's segment (libjpeg takes the usual one), and a missing end marker behind scans that
    bring the whole picture (a file may lack its last scans without a trace).

    Args:
        data: the file, beginning with a start marker.
    Returns:
        The file without those flaws; None where it has none, or no scan.
    """
    segments = _sections(data)
    if not segments or segments[-1][0] != _SOS:
        return None
    scan_at = segments[-1][1]
    head = bytearray(data[:2])
    components = next((data[start + 9] for m, start, _ in segments if m in _FRAMES), 0)
    for marker, start, end in segments[:-1]:
        segment = bytearray(data[start:end])
        is_adobe = marker == _ADOBE and len(segment) >= 16 and bytes(segment[4:9]) == b"Adobe"
        if is_adobe and segment[15] > 2:
            segment[15] = 2 if components == 4 else 1
        head += segment
    tail = data[scan_at:]
    if _all_scans_are_there(segments, data) and b"\xff\xd9" not in tail:
        tail += b"\xff\xd9"
    mended = bytes(head) + tail
    return None if mended == data else mended


def _sections(data: bytes) -> list[tuple[int, int, int]]:
    """Find the segments up to the first scan: marker, start and end; of a scan, its header."""
    found: list[tuple[int, int, int]] = []
    position = 2
    while True:
        start = data.find(b"\xff", position)
        while start >= 0 and data[start + 1 : start + 2] in (b"\xff", b"\0"):
            start = data.find(b"\xff", start + 1)
        if start < 0 or start + 4 > len(data):
            return found
        marker = data[start + 1]
        length = 0 if marker in _ALONE else int.from_bytes(data[start + 2 : start + 4], "big")
        position = start + 2 + length
        if marker in (_SOI, _EOI) or position > len(data):
            return found
        found.append((marker, start, position))
        if marker == _SOS:
            return found


_NEXT_MARKER = re.compile(rb"\xff+([\x02-\xcf\xd8-\xfe])")
"""Within coded data a byte of 255 is followed by 0 or the marker of a restart."""


def _all_scans_are_there(segments: list[tuple[int, int, int]], data: bytes) -> bool:
    """Tell whether scans begin for every coefficient of every component, to its last bit."""
    frame = next((data[start:end] for m, start, end in segments if m in _FRAMES), b"")
    if len(frame) < 10 or frame[1] not in (*_SEQUENTIAL, _PROGRESSIVE):
        return False
    missing = {number: set(range(64)) for number in frame[10 : 10 + 3 * frame[9] : 3]}
    for scan in _scan_headers(data, segments[-1][1]):
        components = scan[5 : 5 + 2 * scan[4] : 2]
        first, last, precision = scan[5 + 2 * scan[4] : 8 + 2 * scan[4]]
        for number in components:
            if precision & 15 == 0 and number in missing:
                missing[number] -= set(range(first, last + 1))
    return bool(missing) and not any(missing.values())


def _scan_headers(data: bytes, position: int) -> Iterator[bytes]:
    """Walk through the segments from the first scan on, and return the headers of scans."""
    while (found := _NEXT_MARKER.search(data, position)) is not None and found[1] != b"\xd9":
        start = found.end() - 2
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        header = data[start:end]
        if found[1] == b"\xda" and len(header) >= 8 and len(header) == 8 + 2 * header[4]:
            yield header
        position = max(end, found.end())
