"""Flaws of JPEG files that cost no pixel, taken out, so that every warning left means damage.

libjpeg only warns of missing or damaged data, and paints grey. It warns in the same way of flaws
that harm nothing and that cameras make; those are mended here before a strict decoder reads.
"""

import re
from collections.abc import Iterator

_SOI, _EOI, _SOS, _APP14 = 0xD8, 0xD9, 0xDA, 0xEE
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
    segments = _segments(data)
    if not segments or segments[-1][0] != _SOS:
        return None
    scan_at = segments[-1][1]
    head = bytearray(data[:2])
    components = next((data[start + 9] for m, start, _ in segments if m in _FRAMES), 0)
    for marker, start, end in segments[:-1]:
        segment = bytearray(data[start:end])
        is_adobe = marker == _APP14 and len(segment) >= 16 and bytes(segment[4:9]) == b"Adobe"
        if is_adobe and segment[15] > 2:
            segment[15] = 2 if components == 4 else 1
        head += segment
    tail = data[scan_at:]
    if _all_scans_are_there(segments, data) and b"\xff\xd9" not in tail:
        tail += b"\xff\xd9"
    mended = bytes(head) + tail
    return None if mended == data else mended


def _segments(data: bytes) -> list[tuple[int, int, int]]:
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
