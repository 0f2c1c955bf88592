"""Colour that an AV1 stream states in its sequence header.

Source: AV1 Bitstream & Decoding Process Specification, sections 5.3 to 5.5.
"""

from dataclasses import dataclass

_SEQUENCE_HEADER = 1
_MAX_OBUS = 16
_UNSPECIFIED = 2
_BT709, _SRGB, _IDENTITY = 1, 13, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Av1Colour:
    """What a sequence header says of colour; code points are those of ITU-T H.273."""

    primaries: int = _UNSPECIFIED
    """2 where it says none."""
    transfer: int = _UNSPECIFIED
    """2 where it says none."""
    is_monochrome: bool
    """Whether there is luma alone."""
    is_full_range: bool
    """Whether black is 0 and white the highest value, and not 16 and 235 of 255 as in video."""


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int = 1) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError("the AV1 sequence header is too short")
        return (self._value >> self._left) & ((1 << count) - 1)

    def skip_variable(self) -> None:
        """Skip a number of variable length (uvlc)."""
        zeros = 0
        while not self.read():
            zeros += 1
        self.read(zeros if zeros < 32 else 0)


def read_av1_colour(stream: bytes) -> Av1Colour | None:
    """Find the sequence header at the start of an AV1 stream, and read its colour.

    Args:
        stream: OBUs with their sizes, as AVIF stores them.
    Returns:
        None where there is no sequence header.
    Raises:
        IndexError: it is cut off.
    """
    at = 0
    for _ in range(_MAX_OBUS):
        if at >= len(stream):
            return None
        head = stream[at]
        at += 2 if head & 4 else 1
        size = len(stream) - at
        if head & 2:
            size, at = _leb128(stream, at)
        if (head >> 3) & 15 == _SEQUENCE_HEADER:
            return _colour_of(_Bits(stream[at : at + size]))
        at += size
    return None


def _leb128(stream: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = stream[at + index]
        value |= (byte & 127) << (7 * index)
        if byte < 128:
            return value, at + index + 1
    raise IndexError("the size of an OBU has no end")


def _colour_of(bits: _Bits) -> Av1Colour:
    profile = bits.read(3)
    bits.read()  # still_picture
    is_reduced = bool(bits.read())
    if is_reduced:
        bits.read(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    bits.read(width_bits)
    bits.read(height_bits)
    if not is_reduced and bits.read():
        bits.read(7)  # lengths of frame numbers
    bits.read(3)  # superblocks, intra filters
    if not is_reduced:
        _skip_tools_between_frames(bits)
    bits.read(3)  # super-resolution, CDEF, restoration
    if bits.read() and profile == 2:
        bits.read()  # 12 bits
    is_monochrome = profile != 1 and bool(bits.read())
    primaries, transfer, matrix = _UNSPECIFIED, _UNSPECIFIED, _UNSPECIFIED
    if bits.read():
        primaries, transfer, matrix = bits.read(8), bits.read(8), bits.read(8)
    is_rgb = (primaries, transfer, matrix) == (_BT709, _SRGB, _IDENTITY)
    full = (is_rgb and not is_monochrome) or bool(bits.read())
    return Av1Colour(
        primaries=primaries, transfer=transfer, is_monochrome=is_monochrome, is_full_range=full
    )


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.read():  # timing
        bits.read(64)
        if bits.read():
            bits.skip_variable()
        if bits.read():  # decoder model
            delay_bits = bits.read(5) + 1
            bits.read(42)
    has_display_delay = bits.read()
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read()  # tier
        if delay_bits and bits.read():
            bits.read(2 * delay_bits + 1)
        if has_display_delay and bits.read():
            bits.read(4)


def _skip_tools_between_frames(bits: _Bits) -> None:
    bits.read(4)
    has_order = bits.read()
    if has_order:
        bits.read(2)
    forces_screen_content = 1 if bits.read() else bits.read()
    if forces_screen_content and not bits.read():
        bits.read()
    if has_order:
        bits.read(3)
