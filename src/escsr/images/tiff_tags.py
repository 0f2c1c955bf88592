"""The tag directories of TIFF files and of EXIF blocks, which are small TIFF files.

libvips neither reads nor writes EXIF in TIFF, and does not say which pages of a TIFF are mere
previews of the first; both are answered here.
"""

import io
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

_UNIT_BYTES = {
    **{1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4},
    **{16: 8, 17: 8, 18: 8},  # BigTIFF's
}
"""Bytes of what is swapped as one between byte orders, by field type."""

_RATIONALS = (5, 10)
"""Field types that hold two units per value."""

_VALUE_BYTES = np.array(
    [_UNIT_BYTES.get(kind, 0) * (2 if kind in _RATIONALS else 1) for kind in range(20)]
)
"""Bytes of one value, by field type; 0 for unknown ones."""

_NEW_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _SUB_DIRECTORIES = 254, 255, 330
_PHOTOMETRIC, _SAMPLES_PER_PIXEL = 262, 277
_NUMBER_OF_INKS, _EXTRA_SAMPLES, _INK_SET = 334, 338, 332
_WIDTH, _HEIGHT = 256, 257
_JPEG_TABLES, _STRIPS, _TILES = 347, (273, 279), (324, 325)
_COMPRESSION, _TILE_WIDTH, _TILE_LENGTH = 259, 322, 323
_ROWS_PER_STRIP, _PLANAR_CONFIGURATION = 278, 284
_ALL_ROWS = 2**32 - 1
"""RowsPerStrip where it is not stated."""
_NO_PICTURE = 1 | 4
"""Bits of NewSubfileType: a reduced copy of another page, and a transparency mask."""

PAGE_TAGS = frozenset(
    {
        *(_NEW_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _SUB_DIRECTORIES),
        *(_PHOTOMETRIC, _SAMPLES_PER_PIXEL, _NUMBER_OF_INKS, _EXTRA_SAMPLES, _INK_SET),
        *(_COMPRESSION, _TILE_WIDTH, _TILE_LENGTH),
        *(_HEIGHT, _ROWS_PER_STRIP, _PLANAR_CONFIGURATION),
    }
)
"""Tags that say what a page is."""

ExtraSample = Literal["straight", "premultiplied", "data"]
"""A channel beside the colours: opacity, opacity that colours are multiplied by, or neither."""

_MAX_CHANNELS = 16
"""Of which the meaning is looked at; more than five are not read."""
_MAX_DIRECTORIES = 1_024
_MAX_ENTRIES = 4_096
_MAX_TOTAL_ENTRIES = 1 << 17
"""Over all directories of a file."""
_MAX_PAYLOAD_BYTES = 1 << 26
"""The longest value that is kept; a longer one (Photoshop's layers) is left out."""
_MAX_TOTAL_BYTES = 1 << 29
"""All values of a directory, since libtiff reads all of them."""
_SLACK_BYTES = 1 << 16
"""What values of a directory may share; beyond it they cannot all be in the file."""


class TagFormatError(ValueError):
    """The bytes are no TIFF structure, or a broken one; callers turn it into their own answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """One entry of a directory."""

    kind: int
    """Field type, as TIFF numbers them: 2 text, 3 uint16, 4 uint32, 5 rational, 7 bytes, …"""
    count: int
    """Number of values."""
    payload: bytes
    """The values in little-endian order."""
    more: "tuple[Tag, ...]" = ()
    """Further entries of the same number, as some programs write a second description."""

    def alone(self) -> "Tag":
        """Return the entry without those that follow it."""
        return replace(self, more=())

    def followed_by(self, more: "Sequence[Tag]") -> "Tag":
        """Return the entry with others of the same number behind it."""
        return replace(self, more=tuple(more))

    def first_integer(self) -> int:
        """Return the first value of an integer field."""
        return int.from_bytes(self.payload[: _UNIT_BYTES[self.kind]], "little")


Directory = dict[int, Tag]
"""Entries by tag number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagLayout:
    """How a file writes its directories: byte order, and 32 or 64-bit offsets (BigTIFF)."""

    order: str
    """``<`` or ``>``."""
    big: bool
    """Whether offsets have 64 bits."""
    first_at: int
    """Where the offset of the first directory stands, in bytes from the start."""

    @property
    def offset(self) -> str:
        """The struct code of an offset."""
        return self.order + ("Q" if self.big else "I")

    @property
    def offset_bytes(self) -> int:
        """Bytes of an offset, which are also the bytes of a value that needs none."""
        return 8 if self.big else 4

    @property
    def entry_count(self) -> str:
        """The struct code of the number of entries."""
        return self.order + ("Q" if self.big else "H")


def read_layout(stream: BinaryIO) -> TagLayout:
    """Read the header of a TIFF structure that begins at offset 0 of ``stream``.

    Raises:
        TagFormatError: it is none.
    """
    stream.seek(0)
    head = stream.read(4)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    version = struct.unpack(order + "H", head[2:])[0] if order and len(head) == 4 else 0
    if order is None or version not in (42, 43):
        raise TagFormatError("no TIFF header")
    return TagLayout(order=order, big=version == 43, first_at=8 if version == 43 else 4)


def read_offset(stream: BinaryIO, layout: TagLayout, position: int) -> int:
    """Read the offset that stands at ``position``."""
    stream.seek(position)
    data = stream.read(layout.offset_bytes)
    if len(data) < layout.offset_bytes:
        raise TagFormatError("the file ends before the offset of a directory")
    return int(struct.unpack(layout.offset, data)[0])


class _Entry(NamedTuple):
    """One entry of a directory, its value not read yet."""

    number: int
    """Of the tag."""
    kind: int
    """Field type."""
    num_values: int
    start: int
    """Where the value begins, in bytes from the start of the file."""
    length: int
    """Bytes of the value."""


def _read_entries(
    stream: BinaryIO, layout: TagLayout, offset: int, wanted: Collection[int] | None
) -> tuple[list[_Entry], int]:
    """Read the directory at ``offset``, but not the values that stand elsewhere.

    Returns:
        The wanted entries whose values lie within the file, and the offset at which the offset of
        the next directory stands.
    Raises:
        TagFormatError: the file ends within it, it has more than 4096 entries, or its values take
            more bytes than the file has, as they do if many tags share one.
    """
    size = stream.seek(0, io.SEEK_END)
    width = layout.offset_bytes
    head = struct.calcsize(layout.entry_count)
    if offset + head > size:
        raise TagFormatError("a directory is said to stand behind the end of the file")
    stream.seek(offset)
    count = int(struct.unpack(layout.entry_count, stream.read(head))[0])
    if count > _MAX_ENTRIES:
        raise TagFormatError(f"a directory of {count:,} entries")
    step = 4 + 2 * width
    data = stream.read(count * step)
    if len(data) < count * step:
        raise TagFormatError("the file ends within a directory")
    order, wide = layout.order, f"{layout.order}u{width}"
    table = np.frombuffer(
        data, [("number", order + "u2"), ("kind", order + "u2"), ("count", wide), ("place", wide)]
    )
    # As floating point, since products of hostile counts do not fit 64 bits.
    lengths = table["count"].astype(np.float64) * _VALUE_BYTES[np.minimum(table["kind"], 19)]
    places = offset + head + np.arange(count) * step + 4.0 + width
    places = np.where(lengths <= width, places, table["place"].astype(np.float64))
    lengths = np.where(places + lengths <= size, lengths, 0)
    _check_total(float(lengths.sum()), size)
    kept = lengths > 0
    if wanted is not None:
        kept &= np.isin(table["number"], list(wanted))
    entries = [
        _Entry(
            number=int(table["number"][k]),
            kind=int(table["kind"][k]),
            num_values=int(table["count"][k]),
            start=int(places[k]),
            length=int(lengths[k]),
        )
        for k in np.flatnonzero(kept)
    ]
    return entries, offset + head + len(data)


def _check_total(total: float, size: int) -> None:
    if total > min(size + _SLACK_BYTES, _MAX_TOTAL_BYTES):
        raise TagFormatError(
            f"tags that claim {total / 1e6:,.0f} MB, in a file of {size / 1e6:,.1f} MB; at most "
            f"{_MAX_TOTAL_BYTES / 1e6:,.0f} MB are read"
        )


def read_directory(
    stream: BinaryIO, layout: TagLayout, offset: int, *, wanted: Collection[int] | None = None
) -> tuple[Directory, int]:
    """Read the directory at ``offset``.

    Args:
        stream: the file.
        layout: of the file.
        offset: of the directory.
        wanted: numbers of the tags to read; None for all.
    Returns:
        Its entries (those of unknown type, beyond the file or longer than 64 MB left out), and the
        offset at which the offset of the next directory stands.
    Raises:
        TagFormatError: the file ends within it, it has more than 4096 entries, or its values take
            more bytes than the file has, as they do if many tags share one.
    """
    entries, next_at = _read_entries(stream, layout, offset, wanted)
    directory: Directory = {}
    for entry in entries:
        if entry.length <= _MAX_PAYLOAD_BYTES:
            stream.seek(entry.start)
            payload = _swapped(stream.read(entry.length), entry.kind, layout.order)
            tag = Tag(kind=entry.kind, count=entry.num_values, payload=payload)
            first = directory.setdefault(entry.number, tag)
            if first is not tag:
                directory[entry.number] = first.followed_by((*first.more, tag))
    return directory, next_at


def stored_bytes(tag: Tag, layout: TagLayout) -> bytes:
    """Return the value of a tag as it stands in the file, whatever type of numbers it claims."""
    return _swapped(tag.payload, tag.kind, layout.order)


def read_pages(stream: BinaryIO) -> list[Directory]:
    """Read what the pages of a TIFF are, one directory for each: ``PAGE_TAGS`` alone.

    Raises:
        TagFormatError: the chain is broken, endless, or of more than 1024 directories or 131,072
            entries.
    """
    layout = read_layout(stream)
    offset = read_offset(stream, layout, layout.first_at)
    seen: set[int] = set()
    directories: list[Directory] = []
    num_entries = 0
    step = 4 + 2 * layout.offset_bytes
    while offset:
        if offset in seen:
            raise TagFormatError("an endless chain of directories")
        seen.add(offset)
        directory, next_at = read_directory(stream, layout, offset, wanted=PAGE_TAGS)
        directories.append(directory)
        num_entries += (next_at - offset) // step
        if len(seen) > _MAX_DIRECTORIES or num_entries > _MAX_TOTAL_ENTRIES:
            raise TagFormatError(
                f"more than {_MAX_DIRECTORIES:,} directories or {_MAX_TOTAL_ENTRIES:,} tags"
            )
        offset = read_offset(stream, layout, next_at)
    return directories


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffFacts:
    """What the directories of a TIFF say that libvips does not tell."""

    pictures: int
    """Pages that are pictures of their own: no smaller copies of the first, and no masks."""
    is_reduced: bool
    """The first page is a smaller copy or a mask of a picture that stands elsewhere in the file."""
    extra_sample: ExtraSample | None
    """The last channel if it is beyond those of the colour space; None where there is none."""
    unread_kind: str | None
    """The colour space, where it is none that escsr reads and libvips might take for another."""
    tile_pixels: int
    """Of one tile; 0 where there are none."""
    as_straight: Mapping[int, bytes]
    """Bytes by offset that would label grey or RGB as not multiplied by opacity, where it is."""


def read_tiff_facts(stream: BinaryIO) -> TiffFacts:
    """Read what the pages of a TIFF are, and what its channels mean.

    Args:
        stream: the file.
    Raises:
        TagFormatError: the chain of pages is broken.
    """
    pages = read_pages(stream)
    if not pages:
        raise TagFormatError("it has no page")
    _check_strips(stream)
    return TiffFacts(
        pictures=1 + sum(not _is_beside(page) for page in pages[1:]),
        is_reduced=_is_beside(pages[0]) and (len(pages) > 1 or _SUB_DIRECTORIES in pages[0]),
        extra_sample=_extra_sample(pages[0]),
        unread_kind=_unread_kind(pages[0]),
        tile_pixels=_integer(pages[0], _TILE_WIDTH, 0) * _integer(pages[0], _TILE_LENGTH, 0),
        as_straight=_labels_as_straight(stream, pages[0]),
    )


def _check_strips(stream: BinaryIO) -> None:
    """Refuse a first page with fewer strips or tiles than its size needs; libtiff takes them empty.

    Raises:
        TagFormatError: strips or tiles are missing.
    """
    layout = read_layout(stream)
    offset = read_offset(stream, layout, layout.first_at)
    sizes = (_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_LENGTH)
    others = (_ROWS_PER_STRIP, _PLANAR_CONFIGURATION, _SAMPLES_PER_PIXEL)
    page, _ = read_directory(stream, layout, offset, wanted={*sizes, *others, *_STRIPS, *_TILES})
    width, height, tile_width, tile_height = (_integer(page, number, 0) for number in sizes)
    planes = _integer(page, _SAMPLES_PER_PIXEL, 1) if _has_planes(page) else 1
    if tile_width and tile_height:
        numbers, name = _TILES, "tiles"
        needed = -(-width // tile_width) * -(-height // tile_height) * planes
    else:
        numbers, name = _STRIPS, "strips"
        rows = _integer(page, _ROWS_PER_STRIP, _ALL_ROWS)
        needed = -(-height // max(rows, 1)) * planes
    if any(number in page and page[number].count < needed for number in numbers):
        raise TagFormatError(f"it lacks some of its {needed:,} {name}")


def _labels_as_straight(stream: BinaryIO, page: Directory) -> dict[int, bytes]:
    if _extra_sample(page) != "premultiplied" or _integer(page, _PHOTOMETRIC, 1) == _SEPARATED:
        return {}
    layout = read_layout(stream)
    offset = read_offset(stream, layout, layout.first_at)
    entries, _ = _read_entries(stream, layout, offset, {_EXTRA_SAMPLES})
    label = page[_EXTRA_SAMPLES]
    unit = f"<u{_UNIT_BYTES[label.kind]}"
    values = np.frombuffer(label.payload, unit)
    straight = np.where(values == 1, 2, values).astype(unit).tobytes()
    return {entries[0].start: _swapped(straight, label.kind, layout.order)}


def _has_planes(page: Directory) -> bool:
    """Tell whether each channel is stored by itself."""
    several = _integer(page, _SAMPLES_PER_PIXEL, 1) > 1
    return several and _integer(page, _PLANAR_CONFIGURATION, 1) == 2


def jpeg_streams(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the strips or tiles of a TIFF's first page as JPEG files, if they are compressed so.

    Args:
        stream: the file.
    Raises:
        TagFormatError: its directory cannot be read.
    """
    layout = read_layout(stream)
    offset = read_offset(stream, layout, layout.first_at)
    wanted = {_COMPRESSION, _JPEG_TABLES, *_STRIPS, *_TILES}
    page, _ = read_directory(stream, layout, offset, wanted=wanted)
    starts, lengths = _TILES if _TILES[0] in page else _STRIPS
    if _integer(page, _COMPRESSION, 1) != _JPEG or not {starts, lengths} <= page.keys():
        return
    tables = page[_JPEG_TABLES].payload[:-2] if _JPEG_TABLES in page else b""
    for start, length in zip(_integers(page[starts]), _integers(page[lengths]), strict=False):
        if length:  # a tile that is left out counts as empty
            stream.seek(start)
            data = stream.read(length)
            yield tables + data[2:] if tables else data


def _integers(tag: Tag) -> list[int]:
    return np.frombuffer(tag.payload, f"<u{_UNIT_BYTES[tag.kind]}").tolist()


def _is_beside(page: Directory) -> bool:
    """Tell whether a page is a smaller copy of another one, or its mask."""
    reduced = _integer(page, _OLD_SUBFILE_TYPE, 1) == 2
    return reduced or bool(_integer(page, _NEW_SUBFILE_TYPE, 0) & _NO_PICTURE)


def _extra_sample(page: Directory) -> ExtraSample | None:
    """Name the last channel if it is no colour; what ExtraSamples does not describe is data.

    Of four channels of grey, as GDAL writes them, three are taken for RGB, and the fourth counts.
    """
    named = _extra_samples(page)
    return named[-1] if named else None


def _extra_samples(page: Directory) -> list[ExtraSample]:
    """Name the channels beyond those of the colour space."""
    by_photometric = {2: 3, _SEPARATED: 4, _YCBCR: 3}
    colours = by_photometric.get(_integer(page, _PHOTOMETRIC, 1), 1)
    num_extra = max(0, _integer(page, _SAMPLES_PER_PIXEL, 1) - colours)
    said = _integers(page[_EXTRA_SAMPLES])[:num_extra] if _EXTRA_SAMPLES in page else []
    # Fewer descriptions than channels are those of the last ones.
    said = [0] * min(num_extra - len(said), _MAX_CHANNELS) + said
    named: dict[int, ExtraSample] = {1: "premultiplied", 2: "straight"}
    return [named.get(value, "data") for value in said]


def _grey_channels_unlike_rgb(page: Directory) -> str | None:
    """Name three or four channels of grey that cannot be taken for RGB and another."""
    photometric, extra = _integer(page, _PHOTOMETRIC, 1), _extra_samples(page)
    if photometric not in (0, 1) or len(extra) not in (2, 3):
        return None
    if photometric == 0:
        return f"{1 + len(extra)} channels of which 0 is white in the first"
    return "grey with opacity and further channels" if set(extra[:2]) != {"data"} else None


_UNREAD_KINDS = {
    4: "a transparency mask",
    8: "CIELAB",
    9: "ICC Lab",
    10: "ITU Lab (fax)",
    32803: "a colour filter array (raw)",
    32844: "LogL (HDR)",
    32845: "LogLuv (HDR)",
    34892: "linear raw",
    51177: "a depth map",
}
_YCBCR, _SEPARATED, _JPEG, _WEBP = 6, 5, 7, 50001
_GREY_OR_PALETTE = (0, 1, 3)


def _unread_kind(page: Directory) -> str | None:
    photometric = _integer(page, _PHOTOMETRIC, 1)
    if _has_planes(page) and _TILE_WIDTH in page:
        return "separate planes in tiles (PlanarConfiguration 2)"
    rows = min(_integer(page, _ROWS_PER_STRIP, _ALL_ROWS), _integer(page, _HEIGHT, 0))
    if _has_planes(page) and photometric in _GREY_OR_PALETTE and rows > 1:
        # libvips reads these as if the channels of a pixel stood side by side.
        return "separate planes of grey or of a palette (PlanarConfiguration 2)"
    if photometric == _YCBCR and _integer(page, _COMPRESSION, 1) not in (_JPEG, _WEBP):
        return "YCbCr that is not compressed as JPEG"
    if photometric == _SEPARATED:
        inks, is_other = _integer(page, _NUMBER_OF_INKS, 4), _integer(page, _INK_SET, 1) != 1
        return "inks other than CMYK" if inks != 4 or is_other else None
    known = _UNREAD_KINDS.get(photometric) or _grey_channels_unlike_rgb(page)
    return known or (f"photometric {photometric}" if photometric > _YCBCR else None)


def _integer(directory: Directory, number: int, default: int) -> int:
    return directory[number].first_integer() if number in directory else default


def serialise(
    directory: Mapping[int, Tag], layout: TagLayout, offset: int, *, next_offset: int = 0
) -> bytes:
    """Write a directory and its values as the bytes that will stand at ``offset``.

    Args:
        directory: entries by tag number.
        layout: of the file that will hold it.
        offset: even position in that file, in bytes.
        next_offset: of the directory that follows, 0 for none.
    """
    width = layout.offset_bytes
    head = struct.calcsize(layout.entry_count)
    tags = [(number, tag) for number in sorted(directory) for tag in _in_a_row(directory[number])]
    values_at = offset + head + len(tags) * (4 + 2 * width) + width
    entries, values = bytearray(struct.pack(layout.entry_count, len(tags))), bytearray()
    for number, tag in tags:
        payload = _swapped(tag.payload, tag.kind, layout.order)
        field = payload.ljust(width, b"\0")
        if len(payload) > width:
            field = struct.pack(layout.offset, values_at + len(values))
            values += payload.ljust(len(payload) + len(payload) % 2, b"\0")
        entries += struct.pack(layout.order + "HH", number, tag.kind)
        entries += struct.pack(layout.offset, tag.count) + field
    return bytes(entries + struct.pack(layout.offset, next_offset) + values)


def _in_a_row(tag: Tag) -> tuple[Tag, ...]:
    return (tag, *tag.more)


def _swapped(payload: bytes, kind: int, order: str) -> bytes:
    """Convert between the file's byte order and little-endian; its own inverse."""
    unit = _UNIT_BYTES[kind]
    if order == "<" or unit == 1:
        return payload
    code = {2: "H", 4: "I", 8: "Q"}[unit]
    count = len(payload) // unit
    return struct.pack(f"<{count}{code}", *struct.unpack(f">{count}{code}", payload))
