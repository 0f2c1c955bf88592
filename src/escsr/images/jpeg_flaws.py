"""Flaws of JPEG files that cost no pixel, taken out, so that every warning left means damage.

libjpeg only warns of missing or damaged data, and paints grey. It warns in the same way of flaws
that harm nothing and that cameras make; those are mended here before a strict decoder reads.
"""

_SOI, _EOI, _SOS, _APP14 = 0xD8, 0xD9, 0xDA, 0xEE
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without content."""
_SEQUENTIAL = (0xC0, 0xC1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def without_harmless_flaws(data: bytes) -> bytes | None:
    """Leave out what libjpeg warns of though it costs no pixel.

    These are stray bytes between the segments before the first scan, an unknown colour transform
    in Adobe's segment (libjpeg takes the usual one), and a missing end marker behind the one scan
    of a sequential file (others may lack a scan without a trace).

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
    if _is_whole_in_one_scan(segments, data, components) and b"\xff\xd9" not in tail:
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


def _is_whole_in_one_scan(
    segments: list[tuple[int, int, int]], data: bytes, components: int
) -> bool:
    is_sequential = any(marker in _SEQUENTIAL for marker, _, _ in segments)
    return is_sequential and components == data[segments[-1][1] + 4]
