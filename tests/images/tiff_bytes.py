"""TIFF files made and read byte by byte, with any tag and any meaning of their channels."""

import struct
from pathlib import Path

import numpy as np

SHORT, LONG, TEXT, RATIONAL, DOUBLE = 3, 4, 2, 5, 12
_CODES = {1: "B", SHORT: "H", LONG: "I", DOUBLE: "d"}
_BYTES = {1: 1, TEXT: 1, SHORT: 2, LONG: 4, RATIONAL: 8, 7: 1, DOUBLE: 8, 16: 8}

Value = tuple[int, int, int | str | tuple[float, ...]]
"""Number of a tag, its type, and its value or values; of rationals numerator and denominator."""


def tiff_bytes(
    pixels: np.ndarray, *tags: Value, photometric: int | None = None, order: str = "<"
) -> bytes:
    """Write an uncompressed TIFF of one strip.

    Args:
        pixels: (H, W, C) uint8 or uint16.
        tags: further ones, or others in the place of those that are usual; some numbers may come
            more than once.
        photometric: 2 for three and more channels, else 1, unless given.
        order: of bytes.
    """
    height, width, channels = pixels.shape
    data = (pixels if order == "<" else pixels.byteswap()).tobytes()
    usual: list[Value] = [
        (256, LONG, width),
        (257, LONG, height),
        (258, SHORT, (8 * pixels.dtype.itemsize,) * channels),
        (259, SHORT, 1),
        (262, SHORT, photometric if photometric is not None else 2 if channels > 2 else 1),
        (273, LONG, 8),
        (277, SHORT, channels),
        (278, LONG, height),
        (279, LONG, len(data)),
    ]
    given = {number for number, _, _ in tags}
    entries = sorted([tag for tag in usual if tag[0] not in given] + list(tags), key=lambda t: t[0])
    data += bytes(len(data) % 2)
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(order + "HI", 42, 8 + len(data))
    return head + data + directory(entries, 8 + len(data), order)


def directory(entries: list[Value], at: int, order: str = "<", next_at: int = 0) -> bytes:
    """Write a directory that stands at ``at``, and its values behind it."""
    body, values = b"", b""
    values_at = at + 2 + 12 * len(entries) + 4
    for number, kind, value in entries:
        payload = _payload(kind, value, order)
        count = len(payload) // _BYTES[kind]
        field = payload.ljust(4, b"\0")
        if len(payload) > 4:
            field = struct.pack(order + "I", values_at + len(values))
            values += payload + bytes(len(payload) % 2)
        body += struct.pack(order + "HHI", number, kind, count) + field
    count = struct.pack(order + "H", len(entries))
    return count + body + struct.pack(order + "I", next_at) + values


def _payload(kind: int, value: int | str | tuple[float, ...], order: str) -> bytes:
    if isinstance(value, str):
        return value.encode() + b"\0"
    values = value if isinstance(value, tuple) else (value,)
    if kind == RATIONAL:
        return struct.pack(f"{order}{len(values)}I", *map(int, values))
    if kind == DOUBLE:
        return struct.pack(f"{order}{len(values)}d", *values)
    return struct.pack(f"{order}{len(values)}{_CODES[kind]}", *map(int, values))


def tags_of(path: Path) -> dict[int, list[tuple[float, ...] | str]]:
    """Read the tags of a little-endian TIFF's first directory: the values of every entry."""
    data = path.read_bytes()
    big = data[2] == 43
    assert data[:2] == b"II"
    assert not big
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    found: dict[int, list[tuple[float, ...] | str]] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        number, kind, values = struct.unpack_from("<HHI", data, entry)
        size = values * _BYTES[kind]
        start = entry + 8 if size <= 4 else struct.unpack_from("<I", data, entry + 8)[0]
        payload = data[start : start + size]
        if kind == TEXT:
            value: tuple[float, ...] | str = payload.rstrip(b"\0").decode()
        elif kind == RATIONAL:
            value = struct.unpack(f"<{2 * values}I", payload)
        else:
            value = struct.unpack(f"<{values}{_CODES.get(kind, 'B')}", payload)
        found.setdefault(number, []).append(value)
    return found
