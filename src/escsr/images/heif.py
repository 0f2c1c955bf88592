"""The boxes of AVIF and HEIF beside the pixels, and the colour that an AV1 stream states.

Sources: ISO/IEC 14496-12 and 23008-12; AV1 Bitstream & Decoding Process Specification, sections 5.3
to 5.5.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from escsr.images.colour import SRGB_CODE_POINTS, StatedColour
from escsr.images.file_blocks import Density, FileBlocks, HeadRewriter

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


_MAX_META_BYTES = 1 << 24
_MAX_BOXES = 1 << 12
"""Of a file."""
_MAX_ITEMS = 1 << 16
_FULL_RANGE = 0x80
_MAX_OFFSET = 1 << 42
_HEADER_BYTES = 1 << 10
"""More than a sequence header takes."""
_MATRIX_BT601 = 6
"""How libheif's encoder makes luma and chroma of RGB unless told otherwise."""

_EXIF_PREFIX_BYTES = 6

Box = tuple[bytes, bytes]
"""Kind and content."""


def read_heif_blocks(stream: BinaryIO) -> FileBlocks:
    """Read what libvips does not tell of an AVIF or HEIF: stated colour, and how alpha is stored.

    Args:
        stream: the file.
    """
    meta = next((content for kind, content in _file_boxes(stream) if kind == b"meta"), None)
    if meta is None:
        return FileBlocks()
    try:
        parts = dict(_boxes(meta[4:]))
        return _facts_of(parts, _coded_colour(parts, stream))
    except (struct.error, IndexError, KeyError):
        return FileBlocks()


def _facts_of(parts: dict[bytes, bytes], coded: Av1Colour | None) -> FileBlocks:
    """Read what the boxes say of the primary item; ``coded`` counts where no box says a colour."""
    colour, has_profile, is_full_range = None, False, coded is None or coded.is_full_range
    if coded is not None and (coded.primaries, coded.transfer) != (_UNSPECIFIED, _UNSPECIFIED):
        colour = StatedColour(primaries=coded.primaries, transfer=coded.transfer)
    properties = list(_properties_of(parts.get(b"iprp", b""), _primary_item(parts[b"pitm"])))
    for kind, content in properties:
        if kind == b"colr" and content[:4] == b"nclx":
            primaries, transfer, _, flags = struct.unpack_from(">HHHB", content, 4)
            colour, is_full_range = _stated(primaries, transfer), bool(flags & _FULL_RANGE)
        has_profile = has_profile or (kind == b"colr" and content[:4] in (b"prof", b"rICC"))
    references = list(_boxes(parts.get(b"iref", b"")[4:]))
    kinds = set(_item_kinds(parts.get(b"iinf", b"")))
    has_gain_map = b"tmap" in kinds or b"hdrgainmap" in parts.get(b"iprp", b"")
    return FileBlocks(
        colour=None if has_profile else colour,
        density=_density_of(dict(properties)),
        is_premultiplied=any(kind == b"prem" for kind, _ in references),
        is_grey_in_video_range=(coded is not None and coded.is_monochrome and not is_full_range),
        notes=("the gain map (HDR)",) if has_gain_map else (),
    )


def _density_of(properties: dict[bytes, bytes]) -> Density | None:
    """Return the ratio of densities of pixels that are not square, as the picture is turned."""
    across, down = struct.unpack(">II", properties.get(b"pasp", b"").ljust(8, b"\0")[:8])
    if not (across and down) or across == down:
        return None
    is_turned = properties.get(b"irot", b"\0")[0] & 1
    return Density(
        ratio=(float(across), float(down)) if is_turned else (float(down), float(across))
    )


def _stated(primaries: int, transfer: int) -> StatedColour:
    """Bring 16-bit fields to code points, which have 8 bits; larger ones state nothing."""
    largest = 0xFF
    return StatedColour(
        primaries=primaries if primaries <= largest else _UNSPECIFIED,
        transfer=transfer if transfer <= largest else _UNSPECIFIED,
    )


def _coded_item(parts: dict[bytes, bytes]) -> tuple[int, bytes] | None:
    """Return number and av1C of the primary item, or of the first tile that it consists of."""
    primary = _primary_item(parts[b"pitm"])
    for item in (primary, *_tiles_of(parts.get(b"iref", b""), primary)):
        for kind, content in _properties_of(parts.get(b"iprp", b""), item):
            if kind == b"av1C":
                return item, content
    return None


def _tiles_of(content: bytes, item: int) -> list[int]:
    """Return the first item that ``item`` is derived from, if any."""
    code = ">H" if content[:1] == b"\0" else ">I"
    size = struct.calcsize(code)
    for kind, inner in _boxes(content[4:]):
        if kind == b"dimg" and struct.unpack_from(code, inner)[0] == item:
            return [struct.unpack_from(code, inner, size + 2)[0]]
    return []


def _coded_colour(parts: dict[bytes, bytes], stream: BinaryIO) -> Av1Colour | None:
    """Read the sequence header of the primary item; None where it is not found."""
    found = _coded_item(parts)
    if found is None:
        return None
    item, configuration = found
    try:
        if (colour := read_av1_colour(configuration[4 : 4 + _HEADER_BYTES])) is not None:
            return colour
        return read_av1_colour(_start_of_item(parts, item, stream))
    except IndexError:
        return None


def _start_of_item(parts: dict[bytes, bytes], wanted: int, stream: BinaryIO) -> bytes:
    """Read the first bytes of an item of a file, or b"" where a box does not say where it is."""
    content = parts.get(b"iloc", b"")
    version, sizes = content[0], content[4:6]
    offset_bytes, length_bytes = sizes[0] >> 4, sizes[0] & 15
    base_bytes, index_bytes = sizes[1] >> 4, sizes[1] & 15 if version else 0
    boxes = io.BytesIO(content[6:])

    def number(count: int) -> int:
        return int.from_bytes(boxes.read(count), "big")

    id_bytes = 4 if version > 1 else 2
    for _ in range(min(number(id_bytes), _MAX_ITEMS)):
        item = number(id_bytes)
        is_within_meta = bool(version and number(2) & 15 == 1)
        number(2)  # the file that holds it
        base, extents = number(base_bytes), number(2)
        if item == wanted:
            number(index_bytes)
            start = base + number(offset_bytes)
            if is_within_meta:
                return parts.get(b"idat", b"")[start:][:_HEADER_BYTES]
            stream.seek(min(start, _MAX_OFFSET))
            return stream.read(_HEADER_BYTES)
        boxes.seek(extents * (index_bytes + offset_bytes + length_bytes), io.SEEK_CUR)
    return b""


def _file_boxes(stream: BinaryIO) -> Iterator[Box]:
    """Walk through the boxes of a file; only those of a bearable size come with content."""
    stream.seek(0)
    for _ in range(_MAX_BOXES):
        head = stream.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        body = length - 8
        if length == 1:
            body = int.from_bytes(stream.read(8), "big") - 16
        if length == 0 or body < 0:
            return
        if kind == b"meta" and body <= _MAX_META_BYTES:
            yield kind, stream.read(body)
        else:
            yield kind, b""
            stream.seek(body, 1)


def _boxes(data: bytes) -> Iterator[Box]:
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        length = len(data) - at if length == 0 else length
        if length < 8:
            return
        yield kind, data[at + 8 : at + length]
        at += length


def _primary_item(content: bytes) -> int:
    code = ">H" if content[0] == 0 else ">I"
    return int(struct.unpack_from(code, content, 4)[0])


def _item_kinds(content: bytes) -> Iterator[bytes]:
    if not content:
        return
    start = 6 if content[0] == 0 else 8
    for kind, entry in _boxes(content[start:]):
        if kind == b"infe" and entry[:1] in (b"\2", b"\3"):
            at = 8 if entry[0] == 2 else 10
            yield entry[at : at + 4]


def _properties_of(content: bytes, item: int) -> Iterator[Box]:
    parts = list(_boxes(content))
    properties = [box for kind, inner in parts if kind == b"ipco" for box in _boxes(inner)]
    for kind, inner in parts:
        if kind != b"ipma":
            continue
        for number, indices in _associations(inner):
            if number == item:
                yield from (properties[index - 1] for index in indices if index)


def _associations(content: bytes) -> Iterator[tuple[int, list[int]]]:
    """Read which item has which properties, by index from 1."""
    version, flags = content[0], content[3]
    stream = io.BytesIO(content[4:])
    (count,) = struct.unpack(">I", stream.read(4))
    id_bytes, index_bytes = (2 if version < 1 else 4), (2 if flags & 1 else 1)
    for _ in range(min(count, _MAX_ITEMS)):
        number = stream.read(id_bytes)
        if len(number) < id_bytes:
            return
        num_indices = stream.read(1)[0]
        mask = (1 << (8 * index_bytes - 1)) - 1
        indices = [
            int.from_bytes(stream.read(index_bytes), "big") & mask for _ in range(num_indices)
        ]
        yield int.from_bytes(number, "big"), indices


@dataclass(frozen=True, slots=True, kw_only=True)
class _NewItem:
    """A file within the file, which describes the picture."""

    kind: bytes
    """``Exif``, or ``mime`` for XMP."""
    data: bytes
    """Its bytes."""

    def entry(self, number: int) -> bytes:
        """Make its entry for the list of items."""
        content_type = b"application/rdf+xml\0" if self.kind == b"mime" else b""
        return _box(b"infe", struct.pack(">IHH4sx", 2 << 24, number, 0, self.kind) + content_type)


def heif_head(
    *, colour: StatedColour | None, profile: bytes | None, exif: bytes | None, xmp: bytes | None
) -> HeadRewriter:
    """Put colour and metadata into an AVIF that libheif has written.

    Args:
        colour: stated in place of sRGB where ``code_points`` has numbers for it.
        profile: ICC profile, or None.
        exif: EXIF block with its prefix, or None.
        xmp: XMP packet, or None.
    """
    items: list[_NewItem] = []
    if exif:
        items.append(_NewItem(kind=b"Exif", data=struct.pack(">I", _EXIF_PREFIX_BYTES) + exif))
    if xmp:
        items.append(_NewItem(kind=b"mime", data=xmp))
    points = (colour.code_points if colour is not None else None) or SRGB_CODE_POINTS
    nclx = struct.pack(">4sHHHB", b"nclx", *points, _MATRIX_BT601, _FULL_RANGE)
    properties = [_box(b"colr", nclx)]
    if profile:
        properties.append(_box(b"colr", b"prof" + profile))

    def rewrite(written: bytes) -> tuple[bytes, int] | None:
        at = 0
        while len(written) >= at + 8:
            length, kind = struct.unpack_from(">I4s", written, at)
            if kind == b"meta":
                if len(written) < at + length:
                    return None
                meta = written[at + 12 : at + length]
                return written[:at] + _extended(meta, at, length, items, properties), at + length
            at += length
        return None

    return rewrite


def _extended(
    meta: bytes, meta_at: int, old_length: int, items: list[_NewItem], properties: list[bytes]
) -> bytes:
    """Write the boxes of a file anew with more items and properties, whose data follow at once."""
    parts = dict(_boxes(meta))
    primary = _primary_item(parts[b"pitm"])
    number = 1 + max(n for n, *_ in _locations(parts[b"iloc"]))

    def written(shift: int, data_at: int) -> bytes:
        content = {
            **parts,
            b"iloc": _moved(parts[b"iloc"], shift, items, number, data_at),
            b"iinf": _with_items(parts[b"iinf"], items, number),
            b"iprp": _with_properties(parts[b"iprp"], primary, properties),
        }
        references = b"".join(
            _box(b"cdsc", struct.pack(">HHH", number + index, 1, primary))
            for index in range(len(items))
        )
        if references:
            content[b"iref"] = parts.get(b"iref", bytes(4)) + references
        return _box(b"meta", bytes(4) + b"".join(_box(k, c) for k, c in content.items()))

    length = len(written(0, 0))
    data = b"".join(item.data for item in items)
    shift = length - old_length + (8 + len(data) if items else 0)
    return written(shift, meta_at + length + 8) + (_box(b"mdat", data) if items else b"")


def _locations(content: bytes) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Read a box ``iloc`` as libheif writes it: version 0, 32-bit numbers."""
    if content[:4] != bytes(4) or content[4] != 0x44:
        raise struct.error("an item location box of another kind")
    base_bytes = content[5] >> 4
    (count,) = struct.unpack_from(">H", content, 6)
    at = 8
    for _ in range(count):
        number, _ = struct.unpack_from(">HH", content, at)
        base = int.from_bytes(content[at + 4 : at + 4 + base_bytes], "big")
        (extents,) = struct.unpack_from(">H", content, at + 4 + base_bytes)
        at += 6 + base_bytes
        yield number, base, [struct.unpack_from(">II", content, at + 8 * i) for i in range(extents)]
        at += 8 * extents


def _moved(content: bytes, shift: int, items: list[_NewItem], number: int, data_at: int) -> bytes:
    entries: list[tuple[int, list[tuple[int, int]]]] = [
        (found, [(base + offset + shift, length) for offset, length in extents])
        for found, base, extents in _locations(content)
    ]
    for index, item in enumerate(items):
        entries.append((number + index, [(data_at, len(item.data))]))
        data_at += len(item.data)
    written = bytes(4) + b"\x44\0" + struct.pack(">H", len(entries))
    for found, extents in entries:
        written += struct.pack(">HHH", found, 0, len(extents))
        written += b"".join(struct.pack(">II", *extent) for extent in extents)
    return written


def _with_items(content: bytes, items: list[_NewItem], number: int) -> bytes:
    (count,) = struct.unpack_from(">H", content, 4)
    entries = b"".join(item.entry(number + index) for index, item in enumerate(items))
    return content[:4] + struct.pack(">H", count + len(items)) + content[6:] + entries


def _with_properties(content: bytes, item: int, properties: list[bytes]) -> bytes:
    """Add properties to an item, in place of any colour that the encoder stated."""
    parts = dict(_boxes(content))
    present = list(_boxes(parts[b"ipco"]))
    colours = {index for index, (kind, _) in enumerate(present, start=1) if kind == b"colr"}
    added = [len(present) + 1 + index for index in range(len(properties))]
    associations = list(_associations(parts[b"ipma"]))
    essential = _essential(parts[b"ipma"])
    written = struct.pack(">BxxBI", 0, 0, len(associations))
    for number, indices in associations:
        kept = [index for index in indices if index not in colours]
        kept += added if number == item else []
        written += struct.pack(">HB", number, len(kept))
        written += bytes(index | 0x80 * ((number, index) in essential) for index in kept)
    return _box(b"ipco", parts[b"ipco"] + b"".join(properties)) + _box(b"ipma", written)


def _essential(content: bytes) -> set[tuple[int, int]]:
    """Return which properties readers must understand, as pairs of item and index."""
    found: set[tuple[int, int]] = set()
    at = 8
    for number, indices in _associations(content):
        flags = content[at + 3 : at + 3 + len(indices)]
        found |= {
            (number, index) for index, flag in zip(indices, flags, strict=True) if flag & 0x80
        }
        at += 3 + len(indices)
    return found


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content
