"""Tags that TIFF results take from TIFF sources: places on earth, described sizes, and colour.

A result has more pixels than its source, over the same ground or under the same lens. What counts
in pixels is brought to those of the result, or left out where that cannot be done.
"""

import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from escsr.images.tiff_tags import Directory, Tag

_DESCRIPTION, _TARGET_PRINTER = 270, 337
_BITS, _PHOTOMETRIC, _SEPARATED = 258, 262, 5
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
