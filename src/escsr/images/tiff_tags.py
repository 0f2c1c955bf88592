"""The tag directories of TIFF files and of EXIF blocks, which are small TIFF files.

libvips neither reads nor writes EXIF in TIFF, and does not say which pages of a TIFF are mere
previews of the first; both are answered here.
"""

import io
import json
import re
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Literal, NamedTuple, cast

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


# Tags that depend on the size of the image.

_DESCRIPTION, _TARGET_PRINTER = 270, 337
_BITS = 258
_TRANSFER_FUNCTION, _WHITE_POINT, _PRIMARIES = 301, 318, 319
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION = 33550, 33922, 34264
_GEO_KEYS, _GEO_DOUBLES, _GEO_TEXTS = 34735, 34736, 34737
_GDAL_METADATA, _GDAL_NO_DATA, _RATIONAL_POLYNOMIAL = 42112, 42113, 50844
_RASTER_TYPE_KEY, _POINT = 1025, 2

_PLACES = frozenset(
    {
        *(_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _RATIONAL_POLYNOMIAL),
        *(_GEO_KEYS, _GEO_DOUBLES, _GEO_TEXTS),
    }
)
"""Tags of GeoTIFF (OGC 19-008r4), and the rational polynomial coefficients of satellites."""
GEO_TIFF = "the place on earth (GeoTIFF)"
"""Its name in messages."""
_RESOLUTION = frozenset({_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT})
_COLOUR = frozenset({_TRANSFER_FUNCTION, _WHITE_POINT, _PRIMARIES})
_STORAGE = frozenset({_BITS, _PHOTOMETRIC})
TAGS_TO_READ = (
    _PLACES
    | _RESOLUTION
    | _COLOUR
    | _STORAGE
    | {_DESCRIPTION, _TARGET_PRINTER, _GDAL_METADATA, _GDAL_NO_DATA}
)
"""What ``SizedTags`` are made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedTags:
    """What a TIFF says in pixels of its own."""

    tags: Directory = field(default_factory=dict[int, Tag])
    """As they stand in the source."""
    size: tuple[int, int] = (1, 1)
    """Width and height of the source in pixels."""

    lost_places: bool = False
    """Whether places on earth were left out, since pixels no longer lie as they did."""

    @property
    def only_in_tiff(self) -> list[str]:
        """Name in words what no other format holds."""
        named = [] if _PLACES.isdisjoint(self.tags) else [GEO_TIFF]
        described = self.tags.get(_DESCRIPTION)
        return [*named, *(["the OME description"] if described and _is_ome(described) else [])]

    def fitted(self, width: int, height: int) -> Directory:
        """Return the tags for a result.

        Args:
            width: of the result, in pixels.
            height: likewise.
        """
        x, y = width / self.size[0], height / self.size[1]
        offset = 0.5 if _counts_from_centres(self.tags) else 0.0
        rules: dict[int, Callable[[Tag], Tag | None]] = {
            _PIXEL_SCALE: lambda tag: _scaled(tag, (1 / x, 1 / y, 1)),
            _TIE_POINTS: lambda tag: _moved_tie_points(tag, x, y, offset),
            _TRANSFORMATION: lambda tag: _finer_transformation(tag, x, y, offset),
            _RATIONAL_POLYNOMIAL: lambda tag: _finer_polynomial(tag, x, y),
            _DESCRIPTION: lambda tag: _fitted_description(tag, self.size, (width, height)),
        }
        fitted = {n: rules[n](tag) if n in rules else tag for n, tag in self.tags.items()}
        if _is_calibrated_by_imagej(self.tags):
            for number, factor in ((_X_RESOLUTION, x), (_Y_RESOLUTION, y)):
                fitted[number] = _scaled_ratio(self.tags[number], factor)
        else:
            fitted = {n: tag for n, tag in fitted.items() if n not in _RESOLUTION}
        return {number: tag for number, tag in fitted.items() if tag is not None}


def settled_tags(tags: Directory, size: tuple[int, int], *, orientation: int) -> SizedTags:
    """Take up what a TIFF says in pixels of its own.

    Args:
        tags: of its page.
        size: width and height of the upright picture in pixels.
        orientation: how the pixels lay in the file, 1 to 8. Places on earth hold for pixels as they
            lay; those of a turned picture are left out.
    """
    kept = {number: tag for number, tag in tags.items() if number in TAGS_TO_READ - _STORAGE}
    for number in _COLOUR & kept.keys():
        # CMYK is converted, and curves have a point for each level of the source.
        is_converted = _first(tags, _PHOTOMETRIC) == _SEPARATED
        if is_converted or (number == _TRANSFER_FUNCTION and _first(tags, _BITS) not in (8, 16)):
            del kept[number]
    lost = orientation != 1 and not _PLACES.isdisjoint(kept)
    if lost:
        kept = {number: tag for number, tag in kept.items() if number not in _PLACES}
    return SizedTags(tags=kept, size=size, lost_places=lost)


def _first(tags: Directory, number: int) -> int | None:
    return tags[number].first_integer() if number in tags else None


def plain_description(tag: Tag) -> Tag | None:
    """Return a description for another file, without those of sizes (tifffile's and OME's)."""
    entries = (tag.alone(), *tag.more)
    kept = [entry for entry in entries if _shape_of(entry) is None and not _is_ome(entry)]
    return _joined(kept)


def _joined(entries: list[Tag]) -> Tag | None:
    return entries[0].followed_by(entries[1:]) if entries else None


def _doubles(tag: Tag) -> list[float]:
    return list(struct.unpack(f"<{tag.count}d", tag.payload)) if tag.kind == 12 else []


def _of_doubles(values: list[float]) -> Tag:
    return Tag(kind=12, count=len(values), payload=struct.pack(f"<{len(values)}d", *values))


def _scaled(tag: Tag, factors: tuple[float, ...]) -> Tag | None:
    values = _doubles(tag)
    if len(values) != len(factors):
        return None
    return _of_doubles([value * factor for value, factor in zip(values, factors, strict=True)])


def _counts_from_centres(tags: Directory) -> bool:
    """Tell whether raster coordinates are those of points, so that 0 is a pixel's centre."""
    keys = tags.get(_GEO_KEYS)
    if keys is None or keys.kind != 3:
        return False
    values = struct.unpack(f"<{keys.count}H", keys.payload)
    entries = (values[k : k + 4] for k in range(4, len(values) - 3, 4))
    return any(key == _RASTER_TYPE_KEY and value == _POINT for key, _, _, value in entries)


def _moved_tie_points(tag: Tag, x: float, y: float, offset: float) -> Tag | None:
    values = _doubles(tag)
    if not values or len(values) % 6:
        return None
    for start in range(0, len(values), 6):
        for axis, factor in enumerate((x, y)):
            at = values[start + axis]
            values[start + axis] = (at + offset) * factor - offset
    return _of_doubles(values)


def _finer_transformation(tag: Tag, x: float, y: float, offset: float) -> Tag | None:
    values = _doubles(tag)
    if len(values) != 16:
        return None
    for row in range(0, 16, 4):
        # A column i of the result is (i + offset) / x - offset of the source.
        for axis, factor in enumerate((x, y)):
            step = values[row + axis]
            values[row + 3] += step * (offset / factor - offset)
            values[row + axis] = step / factor
    return _of_doubles(values)


def _finer_polynomial(tag: Tag, x: float, y: float) -> Tag | None:
    """Bring line and sample, their offsets and scales, to finer pixels, counted from centres."""
    values = _doubles(tag)
    if len(values) != 92:
        return None
    for at, factor in ((2, y), (3, x)):
        values[at] = (values[at] + 0.5) * factor - 0.5
    for at, factor in ((7, y), (8, x)):
        values[at] *= factor
    return _of_doubles(values)


def _is_calibrated_by_imagej(tags: Directory) -> bool:
    """Tell whether the resolution is no print resolution, but in pixels per unit of ImageJ's."""
    unit = tags[_RESOLUTION_UNIT].first_integer() if _RESOLUTION_UNIT in tags else 2
    described = tags[_DESCRIPTION].payload if _DESCRIPTION in tags else b""
    has_ratios = all(n in tags and tags[n].kind == 5 for n in (_X_RESOLUTION, _Y_RESOLUTION))
    return unit == 1 and has_ratios and described.startswith(b"ImageJ=")


def _scaled_ratio(tag: Tag, factor: float) -> Tag:
    numerator, denominator = struct.unpack("<II", tag.payload[:8])
    value = numerator * factor
    while max(value, denominator) >= 2**32:
        value, denominator = value / 2, denominator // 2
    return Tag(kind=5, count=1, payload=struct.pack("<II", round(value), denominator))


Size = tuple[int, int]


def _fitted_description(tag: Tag, source: Size, result: Size) -> Tag | None:
    """Correct sizes in descriptions that programs read, and leave out those that cannot be."""
    entries = [
        fitted
        for entry in (tag.alone(), *tag.more)
        if (fitted := _fitted_text(entry, source, result)) is not None
    ]
    return _joined(entries)


def _fitted_text(tag: Tag, source: Size, result: Size) -> Tag | None:
    content = _shape_of(tag)
    if content is not None:
        return _fitted_shape(content, source, result)
    if _is_ome(tag):
        return _of_text(_fitted_ome(tag.payload, source, result))
    return tag


def _is_ome(tag: Tag) -> bool:
    return b"<OME" in tag.payload


def _of_text(text: bytes) -> Tag:
    text = text.rstrip(b"\0") + b"\0"
    return Tag(kind=2, count=len(text), payload=text)


def _shape_of(tag: Tag) -> dict[str, object] | None:
    """Read the description that tifffile writes: JSON with the shape of the array."""
    text = tag.payload.rstrip(b"\0")
    if not text.startswith(b"{") or b'"shape"' not in text:
        return None
    try:
        content = cast("object", json.loads(text))
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    described = cast("dict[str, object]", content)
    return described if isinstance(described.get("shape"), list) else None


def _fitted_shape(content: dict[str, object], source: Size, result: Size) -> Tag | None:
    """Put the result's height and width into the shape, where the source's stand in a row."""
    shape = cast("list[object]", content["shape"])
    width, height = source
    places = [k for k in range(len(shape) - 1) if shape[k : k + 2] == [height, width]]
    if len(places) != 1:
        return None
    fitted = [*shape[: places[0]], result[1], result[0], *shape[places[0] + 2 :]]
    return _of_text(json.dumps(content | {"shape": fitted}).encode())


def _fitted_ome(text: bytes, source: Size, result: Size) -> bytes:
    """Correct size and pixel size in OME-XML."""
    for axis, old, new in zip((b"X", b"Y"), source, result, strict=True):
        text = re.sub(rb'(\bSize%b=")\d+(")' % axis, rb"\g<1>%d\2" % new, text)
        finer = rb'(\bPhysicalSize%b=")([0-9.eE+-]+)(")' % axis

        def divided(match: re.Match[bytes], factor: float = new / old) -> bytes:
            try:
                value = float(match[2]) / factor
            except ValueError:
                return match[0]
            return match[1] + repr(value).encode() + match[3]

        text = re.sub(finer, divided, text)
    return text
