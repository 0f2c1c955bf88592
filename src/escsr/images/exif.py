r"""EXIF blocks: correct them for a result, and carry them through TIFF files.

An EXIF block is ``Exif\0\0`` and a small TIFF file of up to five directories: the image's
(camera, date, orientation), the camera settings', the place's, the interoperability rule's, and a
thumbnail's. Blocks are corrected in place: what is changed is appended and everything else keeps
its offset, so that unknown tags survive, and maker notes that count from the block's start.
"""

import io
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Literal

import numpy as np

from escsr.images.colour import (
    StatedColour,
    possible_chromaticities,
    possible_gamma,
)
from escsr.images.file_blocks import Density, FileBlocks
from escsr.images.tiff_tags import (
    TAGS_TO_READ,
    Directory,
    Tag,
    TagFormatError,
    TagLayout,
    plain_description,
    read_directory,
    read_layout,
    read_offset,
    serialise,
    stored_bytes,
)

_PREFIX = b"Exif\0\0"
_LITTLE = TagLayout(order="<", big=False, first_at=4)

_WIDTH, _HEIGHT, _DESCRIPTION, _ORIENTATION = 256, 257, 270, 274
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PROFILE, _IPTC = 258, 262, 34675, 33723
_GREY_AND_RGB = (0, 1, 2, 3)
_SRGB_MIDDLE = ((0.5 + 0.055) / 1.055) ** 2.4
"""Light of half the highest value in sRGB."""
_TRANSFER_FUNCTION, _WHITE_POINT, _PRIMARIES = 301, 318, 319
_THUMBNAIL_AT, _THUMBNAIL_BYTES = 513, 514
_SETTINGS, _PLACE, _INTEROPERABILITY = 34665, 34853, 40965
_PIXEL_X_DIMENSION, _PIXEL_Y_DIMENSION = 40962, 40963
_COLOUR_SPACE, _INTEROPERABILITY_INDEX = 40961, 1
_SUBJECTS = (37396, 41492)
"""SubjectArea and SubjectLocation, in pixels before turning."""
_FOCAL_PLANE_X, _FOCAL_PLANE_Y = 41486, 41487
"""Pixels per unit of the sensor."""
_RELATED_WIDTH, _RELATED_HEIGHT = 4097, 4098

_STRUCTURAL = frozenset(
    {
        *range(254, 267),  # size, bits, compression, photometry
        *(273, 274, *range(277, 285), *range(288, 294), 296),  # strips, turning, density
        *(301, *range(317, 352)),  # curves, predictor, white point, palette, tiles, inks, samples
        *range(512, 533),  # thumbnails, old JPEG, YCbCr
        *(559, 700, 33723, 34377, 34675, 37724),  # XMP, IPTC, Photoshop, profile, layers
        *(33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113),  # places on earth, GDAL
        *(50838, 50839),  # ImageJ's hyperstacks
        *range(50706, 51200),  # DNG: a file with these is taken for a raw one
        *(_SETTINGS, _PLACE, _INTEROPERABILITY),
    }
)
"""Tags that say how one file stores its pixels, or that have a way of their own to the result."""


def settled_exif(
    exif: bytes, *, orientation: int = 1, size: tuple[int, int] = (1, 1)
) -> bytes | None:
    """Return an EXIF block for pixels that already stand upright, without its thumbnail.

    The thumbnail goes, since it would show the image as it was before turning.

    Args:
        exif: a block, with or without its ``Exif`` prefix.
        orientation: how the pixels were turned, 1 to 8; resolutions and subjects turn with them.
        size: width and height of the upright image in pixels.
    Returns:
        The block with prefix, orientation 1 and no thumbnail; None where it cannot be read.
    """
    try:
        block = _ExifBlock(exif)
        block.drop_thumbnail()
        main, _ = block.entries(block.main_at)
        if _ORIENTATION in main:
            block.set_short(main[_ORIENTATION], 1)
        if orientation >= 5 and {_X_RESOLUTION, _Y_RESOLUTION} <= main.keys():
            block.exchange(main[_X_RESOLUTION], main[_Y_RESOLUTION])
        if orientation != 1 and (settings := block.pointed_at(_SETTINGS)) is not None:
            _turn_settings(block, settings, orientation, size)
            block.entries(block.main_at)  # still whole, unless directories overlap
    except (TagFormatError, struct.error):
        return None
    return block.data()


def _turn_settings(
    block: "_ExifBlock", settings: int, orientation: int, size: tuple[int, int]
) -> None:
    """Turn what the camera settings say of places in the picture and of both directions."""
    entries, _ = block.entries(settings)
    if orientation >= 5 and {_FOCAL_PLANE_X, _FOCAL_PLANE_Y} <= entries.keys():
        block.exchange(entries[_FOCAL_PLANE_X], entries[_FOCAL_PLANE_Y])

    def turned(values: tuple[int, ...]) -> tuple[int, ...]:
        pairs = [values[:2], values[2:]]
        if orientation >= 5:
            pairs = [pair[::-1] for pair in pairs]
        x, y = pairs[0]
        x = size[0] - 1 - x if orientation in (2, 3, 6, 7) else x
        y = size[1] - 1 - y if orientation in (3, 4, 7, 8) else y
        return x, y, *pairs[1]

    _change_subjects(block, settings, turned)


def _size_settings(
    block: "_ExifBlock", settings: int, size: tuple[int, int], scale: tuple[float, float]
) -> None:
    """Bring what the camera settings say in pixels to the pixels of a result."""
    block.set_present(settings, (_PIXEL_X_DIMENSION, _PIXEL_Y_DIMENSION), size)
    if (related := block.pointed_at(_INTEROPERABILITY, settings)) is not None:
        block.set_present(related, (_RELATED_WIDTH, _RELATED_HEIGHT), size)
    if scale == (1, 1):
        return
    entries, _ = block.entries(settings)
    for number, factor in zip((_FOCAL_PLANE_X, _FOCAL_PLANE_Y), scale, strict=True):
        if number in entries and (density := block.ratio(entries[number])) is not None:
            block.set_ratio(entries[number], density * factor)

    def sized(values: tuple[int, ...]) -> tuple[int, ...]:
        if len(values) == 3:  # a diameter
            return *sized(values[:2]), round(values[2] * (scale[0] * scale[1]) ** 0.5)
        return tuple(round(value * scale[at % 2]) for at, value in enumerate(values))

    _change_subjects(block, settings, sized)


def _change_subjects(
    block: "_ExifBlock",
    settings: int,
    change: Callable[[tuple[int, ...]], tuple[int, ...]],
) -> None:
    """Change where the subject is; a statement that is malformed or cannot hold it goes."""
    for number in _SUBJECTS:
        entries, _ = block.entries(settings)
        if number not in entries:
            continue
        values = block.integers(entries[number], 4)
        changed = change(values) if len(values) >= 2 else ()
        if not changed or not block.set_integers(entries[number], changed):
            block.drop(settings, number)


def sized_exif(
    exif: bytes | None,
    *,
    width: int,
    height: int,
    scale: tuple[float, float] = (1, 1),
    pixels_per_mm: tuple[float, float] | None = None,
    unit: str = "in",
    states_density: bool = False,
) -> bytes | None:
    """Return an EXIF block that states the size and density of a result.

    Args:
        exif: a block from ``settled_exif``, or None.
        width: of the result, in pixels.
        height: of the result, in pixels.
        scale: (x, y) pixels of the result per pixel of the source.
        pixels_per_mm: density; a block that states one states this one.
        unit: ``in`` or ``cm``, in which it is written.
        states_density: whether the block must state the density, since its file has no other place.
    Returns:
        The block; None where there was none and nothing has to be stated.
    """
    if exif is None:
        if pixels_per_mm is None or not states_density:
            return None
        exif = _PREFIX + b"II*\0" + struct.pack("<IHI", 8, 0, 0)
    block = _ExifBlock(exif)
    main, _ = block.entries(block.main_at)
    block.set_present(block.main_at, (_WIDTH, _HEIGHT), (width, height))
    if pixels_per_mm and (states_density or _X_RESOLUTION in main):
        block.state_density(pixels_per_mm, unit)
    if (settings := block.pointed_at(_SETTINGS)) is not None:
        with suppress(TagFormatError):  # directories that overlap
            _size_settings(block, settings, (width, height), scale)
    return block.data()


def stated_orientation(exif: bytes | None) -> int | None:
    """Return the orientation that an EXIF block states, 1 to 8; None where it states none."""
    try:
        main = _parse(exif).tags if exif is not None else {}
    except TagFormatError:
        return None
    orientation = main[_ORIENTATION].first_integer() if _ORIENTATION in main else 0
    return orientation if 1 <= orientation <= 8 else None


def states_adobe_rgb(exif: bytes) -> bool:
    """Tell whether an EXIF block says that its pixels are Adobe RGB (1998).

    Source: DCF 2.0, section 5: the interoperability index R03 with an uncalibrated colour space.
    """
    try:
        tree = _parse(exif)
    except TagFormatError:
        return False
    settings = tree.children.get(_SETTINGS, _TagTree())
    rule = settings.children.get(_INTEROPERABILITY, _TagTree()).tags
    index = rule[_INTEROPERABILITY_INDEX].payload if _INTEROPERABILITY_INDEX in rule else b""
    space = settings.tags[_COLOUR_SPACE].first_integer() if _COLOUR_SPACE in settings.tags else 2
    return index.startswith(b"R03") and space != 1


def density_of_exif(exif: bytes) -> Density | None:
    """Return the density that an EXIF block states, if it does."""
    try:
        return density_of_tags(_parse(exif).tags)
    except TagFormatError:
        return None


def density_of_tags(main: Directory) -> Density | None:
    """Return the density that the tags of a TIFF or EXIF directory state, if they do."""
    unit = main[_RESOLUTION_UNIT].first_integer() if _RESOLUTION_UNIT in main else 2
    if unit not in (2, 3):
        return None
    if not main.keys() >= {_X_RESOLUTION, _Y_RESOLUTION}:
        return None
    x, y = (_ratio(main[number]) for number in (_X_RESOLUTION, _Y_RESOLUTION))
    if not (x > 0 and y > 0):
        return None
    per_mm, name = (10.0, "cm") if unit == 3 else (25.4, "in")
    return Density(pixels_per_mm=(x / per_mm, y / per_mm), unit=name)


def _colour_of_tags(main: Directory) -> StatedColour | None:
    """Read the colour that WhitePoint, PrimaryChromaticities and TransferFunction state."""
    if _integer_of(main, _PHOTOMETRIC) not in _GREY_AND_RGB:
        return None
    values = [v for n in (_WHITE_POINT, _PRIMARIES) if n in main for v in _ratios(main[n])]
    chromaticities = possible_chromaticities(values)
    gamma = _gamma_of(main)
    if chromaticities is None and gamma is None:
        return None
    return StatedColour(chromaticities=chromaticities, gamma=gamma)


def _gamma_of(main: Directory) -> float | None:
    """Return the power that comes nearest to TransferFunction in the middle; None for sRGB's."""
    if _TRANSFER_FUNCTION not in main or main[_TRANSFER_FUNCTION].kind != 3:
        return None
    curve = np.frombuffer(main[_TRANSFER_FUNCTION].payload, "<u2")
    curve = curve[: 1 << min(_integer_of(main, _BITS_PER_SAMPLE) or 8, 16)]
    middle = float(curve[len(curve) // 2]) / 65535
    if len(curve) not in (256, 65536) or not 0 < middle < 1 or abs(middle - _SRGB_MIDDLE) < 0.005:
        return None
    return possible_gamma(float(np.log(middle) / np.log(0.5)))


def _integer_of(main: Directory, number: int) -> int | None:
    return main[number].first_integer() if number in main else None


def _ratios(tag: Tag) -> tuple[float, ...]:
    if tag.kind != 5:
        return ()
    pairs = struct.iter_unpack("<II", tag.payload)
    return tuple(numerator / max(denominator, 1) for numerator, denominator in pairs)


def _ratio(tag: Tag) -> float:
    """Return the first value of a rational tag; 0 where it is none."""
    if tag.kind != 5:
        return 0.0
    numerator, denominator = struct.unpack("<II", tag.payload[:8])
    return numerator / denominator if denominator else 0.0


def read_tiff_blocks(stream: BinaryIO) -> FileBlocks:
    """Read what libvips does not tell of a TIFF: EXIF, IPTC, density and colour as tags state them.

    Args:
        stream: the file.
    """
    try:
        layout = read_layout(stream)
        offset = read_offset(stream, layout, layout.first_at)
        main, _ = read_directory(stream, layout, offset)
    except TagFormatError:
        return FileBlocks()
    sized = {number: tag for number, tag in main.items() if number in TAGS_TO_READ}
    colour = _colour_of_tags(main) if _PROFILE not in main else None
    # Bytes, though usually declared as 32-bit numbers, which libvips takes for such.
    iptc = stored_bytes(main[_IPTC], layout) if _IPTC in main else None
    blocks = FileBlocks(exif=exif_of_tiff(stream), sized_tags=sized, colour=colour, iptc=iptc)
    if (density := density_of_tags(main)) is not None:
        return replace(blocks, density=density)
    if main.keys() >= {_X_RESOLUTION, _Y_RESOLUTION}:
        x, y = _ratio(main[_X_RESOLUTION]), _ratio(main[_Y_RESOLUTION])
        if x > 0 and y > 0 and x != y:
            return replace(blocks, density=Density(ratio=(x, y)))
    return blocks


def exif_of_tiff(stream: BinaryIO) -> bytes | None:
    """Collect the EXIF of a TIFF file's first page into a block.

    Args:
        stream: the TIFF file.
    Returns:
        The block, or None where the file has neither EXIF nor descriptive tags.
    """
    try:
        layout = read_layout(stream)
        tree = _read_tree(stream, layout, read_offset(stream, layout, layout.first_at))
    except TagFormatError:
        return None
    tags = _without_structure(tree.tags)
    if _DESCRIPTION in tags:
        description = plain_description(tags.pop(_DESCRIPTION))
        tags |= {_DESCRIPTION: description} if description is not None else {}
    described = _TagTree(tags=tags, children=tree.children)
    if not (described.tags or described.children):
        return None
    data, main_at = _serialise_tree(described, _LITTLE, 8)
    return _PREFIX + b"II*\0" + struct.pack("<I", main_at) + data


def finish_tiff(
    stream: BinaryIO,
    exif: bytes | None,
    *,
    width: int,
    height: int,
    density: Literal["known", "ratio", "unknown"] = "known",
    tags: Directory | None = None,
) -> None:
    """Complete a one-page TIFF file that libvips has written: EXIF, and no invented density.

    Args:
        stream: the TIFF file, opened for reading and writing.
        exif: a block, or None; one that cannot be read is left out.
        width: of the image in the file, in pixels.
        height: likewise.
        density: whether the file's resolution is one, means only a ratio, or nothing at all.
        tags: others, which go before those of the block and of the file.
    """
    try:
        tree = _parse(exif) if exif is not None else _TagTree()
    except TagFormatError:
        tree = _TagTree()
    if exif is None and density == "known" and not tags:
        return
    if tree.children.get(_SETTINGS) is not None:
        settings = tree.children[_SETTINGS].tags
        for number, side in ((_PIXEL_X_DIMENSION, width), (_PIXEL_Y_DIMENSION, height)):
            settings[number] = Tag(kind=4, count=1, payload=struct.pack("<I", side))
    layout = read_layout(stream)
    main, _ = read_directory(stream, layout, read_offset(stream, layout, layout.first_at))
    if density == "ratio":
        main[_RESOLUTION_UNIT] = Tag(kind=3, count=1, payload=struct.pack("<H", 1))
    elif density == "unknown":
        for number in (_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT):
            main.pop(number, None)
    own = _without_structure(tree.tags) | main | (tags or {})
    whole = _TagTree(tags=own, children=tree.children)
    end = stream.seek(0, io.SEEK_END)
    start = end + -end % 8
    data, offset = _serialise_tree(whole, layout, start)
    stream.write(bytes(start - end) + data)
    stream.seek(layout.first_at)
    stream.write(struct.pack(layout.offset, offset))


def _without_structure(tags: Directory) -> Directory:
    return {number: tag for number, tag in tags.items() if number not in _STRUCTURAL}


@dataclass(slots=True)
class _TagTree:
    """A directory and those that it points to."""

    tags: Directory = field(default_factory=dict[int, Tag])
    """Entries, without the pointers."""
    children: "dict[int, _TagTree]" = field(default_factory=dict[int, "_TagTree"])
    """Directories by the number of the tag that points to them."""


_CHILDREN: dict[int, tuple[int, ...]] = {0: (_SETTINGS, _PLACE), _SETTINGS: (_INTEROPERABILITY,)}
"""Which pointers are followed in which directory; 0 is the image's."""


def _parse(exif: bytes) -> _TagTree:
    stream = io.BytesIO(exif.removeprefix(_PREFIX))
    layout = read_layout(stream)
    return _read_tree(stream, layout, read_offset(stream, layout, layout.first_at))


def _read_tree(stream: BinaryIO, layout: TagLayout, offset: int, parent: int = 0) -> _TagTree:
    tags, _ = read_directory(stream, layout, offset)
    children: dict[int, _TagTree] = {}
    for pointer in _CHILDREN.get(parent, ()):
        if pointer in tags:
            at = tags.pop(pointer).first_integer()
            try:
                children[pointer] = _read_tree(stream, layout, at, pointer)
            except TagFormatError:
                continue  # the rest is whole, and worth keeping
    return _TagTree(tags=tags, children=children)


def _serialise_tree(tree: _TagTree, layout: TagLayout, position: int) -> tuple[bytes, int]:
    """Write directories in a row from ``position``, children first.

    Returns:
        The bytes, and where the directory of ``tree`` itself stands.
    """
    # 64-bit integers: readers other than libtiff overlook the type made for such offsets (18).
    kind, code = (16, "<Q") if layout.big else (4, "<I")
    written, pointers = b"", Directory()
    for number, child in tree.children.items():
        data, at = _serialise_tree(child, layout, position + len(written))
        written += data
        pointers[number] = Tag(kind=kind, count=1, payload=struct.pack(code, at))
    at = position + len(written)
    return written + serialise(tree.tags | pointers, layout, at), at


class _ExifBlock:
    """The bytes of an EXIF block, changed without moving anything that is kept.

    Args:
        exif: with or without prefix.
    Raises:
        TagFormatError: it is none, or its first directory cannot be read.
    """

    def __init__(self, exif: bytes) -> None:
        self._body = bytearray(exif.removeprefix(_PREFIX))
        layout = read_layout(io.BytesIO(self._body))
        if layout.big:
            raise TagFormatError("an EXIF block with 64-bit offsets")
        self._order = layout.order
        self.entries(self.main_at)

    @property
    def main_at(self) -> int:
        """Where the image's directory stands."""
        return self._integer("I", 4)

    def data(self) -> bytes:
        """Return the whole block, with its prefix."""
        return _PREFIX + bytes(self._body)

    def entries(self, offset: int) -> tuple[dict[int, int], int]:
        """Find the entries of a directory.

        Returns:
            Where each entry stands, by tag number, and where the offset of the next directory does.
        Raises:
            TagFormatError: the block ends within the directory.
        """
        end = offset + 2 + 12 * (self._integer("H", offset) if offset >= 8 else 0)
        if offset < 8 or end + 4 > len(self._body):
            raise TagFormatError("the block ends within a directory")
        return {self._integer("H", at): at for at in range(offset + 2, end, 12)}, end

    def pointed_at(self, pointer: int, parent: int | None = None) -> int | None:
        """Return where the directory stands that a tag points to, by default one of the image's."""
        entries, _ = self.entries(self.main_at if parent is None else parent)
        if pointer not in entries:
            return None
        offset = self._integer("I", entries[pointer] + 8)
        try:
            self.entries(offset)
        except TagFormatError:
            return None
        return offset

    def set_short(self, at: int, value: int) -> None:
        """Make an entry hold one 16-bit value."""
        struct.pack_into(self._order + "HIHH", self._body, at + 2, 3, 1, value, 0)

    def set_long(self, at: int, value: int) -> None:
        """Make an entry hold one 32-bit value."""
        struct.pack_into(self._order + "HII", self._body, at + 2, 4, 1, value)

    def integers(self, at: int, limit: int) -> tuple[int, ...]:
        """Return the 16- or 32-bit values of an entry; none where it is of another kind."""
        kind, count = self._integer("H", at + 2), self._integer("I", at + 4)
        code = {3: "H", 4: "I"}.get(kind)
        if code is None or count > limit:
            return ()
        layout = f"{self._order}{count}{code}"
        length = struct.calcsize(layout)
        where = at + 8 if length <= 4 else self._integer("I", at + 8)
        if where + length > len(self._body):
            return ()
        return struct.unpack_from(layout, self._body, where)

    def set_integers(self, at: int, values: tuple[int, ...]) -> bool:
        """Give an entry other values of its kind, as many as it has; tell whether they fit."""
        code = {3: "H", 4: "I"}[self._integer("H", at + 2)]
        try:
            data = struct.pack(f"{self._order}{len(values)}{code}", *values)
        except struct.error:
            return False
        self._set_data(at, data)
        return True

    def ratio(self, at: int) -> float | None:
        """Return the one rational number of an entry; None where it is of another kind."""
        kind, count = self._integer("H", at + 2), self._integer("I", at + 4)
        where = self._integer("I", at + 8)
        if (kind, count) != (5, 1) or where + 8 > len(self._body):
            return None
        numerator, denominator = struct.unpack_from(self._order + "II", self._body, where)
        return numerator / denominator if denominator else None

    def set_ratio(self, at: int, value: float) -> None:
        """Let an entry hold a rational number, to a thousandth where that fits."""
        denominator = 1000 if value * 1000 < 2**32 else 1
        numerator = min(round(value * denominator), 2**32 - 1)
        self._set_data(at, struct.pack(self._order + "II", numerator, denominator))

    def drop(self, directory: int, number: int) -> None:
        """Take an entry out of a directory; all that follows it in there moves up."""
        entries, end = self.entries(directory)
        at = entries[number]
        self._body[at : end + 4] = self._body[at + 12 : end + 4] + bytes(12)
        count = self._integer("H", directory) - 1
        struct.pack_into(self._order + "H", self._body, directory, count)

    def set_present(self, directory: int, numbers: Sequence[int], values: Sequence[int]) -> None:
        """Make those of some entries that a directory has hold one 32-bit value each."""
        entries, _ = self.entries(directory)
        for number, value in zip(numbers, values, strict=True):
            if number in entries:
                self.set_long(entries[number], value)

    def exchange(self, first: int, second: int) -> None:
        """Let two entries change their types and values."""
        body = self._body
        one, other = slice(first + 2, first + 12), slice(second + 2, second + 12)
        body[one], body[other] = body[other], body[one]

    def state_density(self, pixels_per_mm: tuple[float, float], unit: str) -> None:
        """Set both resolutions and their unit, adding what is missing."""
        self._require_entries(_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT)
        main, _ = self.entries(self.main_at)
        self.set_short(main[_RESOLUTION_UNIT], 3 if unit == "cm" else 2)
        per_unit = 10 if unit == "cm" else 25.4
        numbers = (_X_RESOLUTION, _Y_RESOLUTION)
        for number, density in zip(numbers, pixels_per_mm, strict=True):
            ratio = min(round(density * per_unit * 1000), 2**32 - 1)
            value = (ratio // 1000, 1) if ratio % 1000 == 0 else (ratio, 1000)
            where = self._append(struct.pack(self._order + "II", *value))
            struct.pack_into(self._order + "HII", self._body, main[number] + 2, 5, 1, where)

    def drop_thumbnail(self) -> None:
        """Cut the chain of directories behind the first, and erase the picture that hangs on it."""
        _, next_at = self.entries(self.main_at)
        thumbnails_at = self._integer("I", next_at)
        struct.pack_into(self._order + "I", self._body, next_at, 0)
        try:
            entries, _ = self.entries(thumbnails_at)
        except TagFormatError:
            return
        if {_THUMBNAIL_AT, _THUMBNAIL_BYTES} <= entries.keys():
            start = self._integer("I", entries[_THUMBNAIL_AT] + 8)
            end = start + self._integer("I", entries[_THUMBNAIL_BYTES] + 8)
            self._erase(start, min(end, len(self._body)))

    def _erase(self, start: int, end: int) -> None:
        if not self._body.startswith(b"\xff\xd8", start):
            return
        if end + 4 >= len(self._body) and self._last_directory_end() <= start:
            del self._body[start:]
        else:
            self._body[start:end] = bytes(max(end - start, 0))

    def _last_directory_end(self) -> int:
        offsets = [self.main_at, *filter(None, map(self.pointed_at, (_SETTINGS, _PLACE)))]
        return max(self.entries(offset)[1] + 4 for offset in offsets)

    def _require_entries(self, *numbers: int) -> None:
        """Write the image's directory anew at the end, with room for tags that it lacks."""
        main, next_at = self.entries(self.main_at)
        missing = [number for number in numbers if number not in main]
        if not missing:
            return
        kept = {number: bytes(self._body[at : at + 12]) for number, at in main.items()}
        kept |= {n: struct.pack(self._order + "HHII", n, 4, 1, 0) for n in missing}
        following = bytes(self._body[next_at : next_at + 4])
        head = struct.pack(self._order + "H", len(kept))
        where = self._append(head + b"".join(kept[n] for n in sorted(kept)) + following)
        struct.pack_into(self._order + "I", self._body, 4, where)

    def _set_data(self, at: int, data: bytes) -> None:
        """Put data into an entry, or behind all else, since entries may share where theirs are."""
        if len(data) <= 4:
            self._body[at + 8 : at + 12] = data.ljust(4, b"\0")
        else:
            struct.pack_into(self._order + "I", self._body, at + 8, self._append(data))

    def _append(self, data: bytes) -> int:
        self._body += bytes(len(self._body) % 2)
        where = len(self._body)
        self._body += data
        return where

    def _integer(self, code: str, at: int) -> int:
        size = 2 if code == "H" else 4
        if at + size > len(self._body):
            raise TagFormatError("the block ends within a directory")
        return int(struct.unpack_from(self._order + code, self._body, at)[0])
