"""XMP packets: correct them for a result, and join or part what JPEG splits.

Packets are edited as text, so that everything else in them stays byte for byte.

Source: XMP Specification, parts 1 and 3 (Adobe, 2016 and 2020).
"""

import re
from collections.abc import Iterator
from decimal import Decimal

_ANY_NAME = rb"[\w.-]+"

_XMP = b"http://ns.adobe.com/xap/1.0/"
_XMP_NOTE = b"http://ns.adobe.com/xmp/note/"
_GAIN_MAP = b"http://ns.adobe.com/hdr-gain-map/1.0/"
_APPLE_GAIN_MAP = b"http://ns.apple.com/HDRGainMap/1.0/"
_CONTAINER = b"http://ns.google.com/photos/1.0/container/"
_CAMERA = b"http://ns.google.com/photos/1.0/camera/"

_EXIF = b"http://ns.adobe.com/exif/1.0/"
_AREA = b"http://ns.adobe.com/xmp/sType/Area#"
_DIMENSIONS = b"http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_REGIONS = (b"http://www.metadataworkinggroup.com/schemas/regions/", rb"Regions")
_UNTURNED = {
    (b"http://ns.microsoft.com/photo/1.2/", rb"RegionInfo"): "face regions (Microsoft)",
    (b"http://iptc.org/std/Iptc4xmpExt/2008-02-29/", rb"ImageRegion"): "image regions (IPTC)",
    (b"http://ns.google.com/photos/1.0/panorama/", _ANY_NAME): "the extents of a panorama",
}
"""Namespace and properties of places in the picture that are removed from a turned one."""

_MAX_BYTES = 1 << 24
"""Of a packet that is kept."""
_MAX_PREFIXES = 2
"""Of one namespace; more is no packet that a program has written."""
_SPACE = rb"(?<!\s)\s+"
"""Space before an attribute; matched from its start alone, or long runs would take for ever."""
_SEMANTIC = re.compile(rb""":Semantic(?:\s*=\s*["']|>)\s*(\w+)""")
_EMBEDDED_FILES = {
    b"GainMap": "the gain map (HDR)",
    b"MotionPhoto": "the video of a motion photo",
    b"Depth": "the depth map",
}
_NO_FILE_OF_ITS_OWN = b"Primary"


def settled_xmp(xmp: bytes, *, orientation: int = 1) -> tuple[bytes, list[str]]:
    """Correct a packet for pixels that already stand upright, alone in their file.

    Args:
        xmp: the packet.
        orientation: how the pixels were turned, 1 to 8; resolutions and face regions turn too.
    Returns:
        The packet with orientation 1, without thumbnails and without claims of gain maps, videos
        and further packets; and in words what those claims were about, and what was not turned.
    """
    if len(xmp) > _MAX_BYTES:
        return b"", [f"XMP of {len(xmp)} bytes"]
    dropped = [
        _EMBEDDED_FILES.get(found, f"an embedded file ({found.decode('ascii')})")
        for found in _SEMANTIC.findall(xmp)
        if found != _NO_FILE_OF_ITS_OWN
    ]
    bare = _without_properties(xmp, _CONTAINER, rb"Directory")
    for namespace in (_GAIN_MAP, _APPLE_GAIN_MAP):
        without = _without_properties(bare, namespace, _ANY_NAME)
        if without != bare:
            dropped.append(_EMBEDDED_FILES[b"GainMap"])
        bare = _without_namespace(without, namespace)
    without = _without_properties(bare, _CAMERA, rb"(?:MicroVideo|MotionPhoto)\w*")
    if without != bare:
        dropped.append(_EMBEDDED_FILES[b"MotionPhoto"])
    bare = _without_properties(without, _XMP_NOTE, rb"HasExtendedXMP")
    bare = _without_properties(bare, _XMP, rb"Thumbnails")
    # Also in EXIF, where they are corrected.
    bare = _without_properties(bare, _EXIF, rb"(?:Subject(?:Area|Location)|FocalPlane[XY]\w+)")
    bare = _ORIENTATION.sub(rb"\g<1>1", bare)
    if orientation != 1:
        bare, unturned = _with_turned_places(bare, orientation)
        dropped += unturned
    return _with_turned_density(bare) if orientation >= 5 else bare, list(dict.fromkeys(dropped))


def resized_xmp(xmp: bytes, *, width: int, height: int, scale: tuple[float, float]) -> bytes:
    """Correct the size of the image, and lengths in its pixels, in a packet.

    Args:
        xmp: the packet.
        width: of the result, in pixels.
        height: of the result, in pixels.
        scale: (x, y) pixels of the result per pixel of the source.
    """
    for prefix, name, axis in _SIZES:
        if prefix in xmp:
            xmp = _simple(prefix + name).sub(rb"\g<1>%d" % (width, height)[axis], xmp)
    for prefix, name, axis in _LENGTHS:
        if prefix in xmp:
            factor = scale[axis]
            xmp = _simple(prefix + name).sub(
                lambda match, factor=factor: b"%b%d" % (match[1], round(int(match[2]) * factor)),
                xmp,
            )
    return xmp


def joined_xmp(xmp: bytes, extension: bytes) -> bytes:
    """Join a packet of JPEG with its extension into one that needs no second."""
    inner, names = _descriptions(extension), _namespaces(extension)
    end = xmp.rfind(b"</rdf:RDF")
    if not inner or end < 0:
        return xmp
    declared = b"".join(
        b' xmlns:%b="%b"' % (prefix, uri) for prefix, uri in names.items() if prefix != b"rdf"
    )
    # A declaration that stands on the element itself must not be repeated there.
    wrapped = b"".join(_with_missing(element, declared) for element in inner)
    return xmp[:end] + wrapped + xmp[end:]


def split_xmp(xmp: bytes, limit: int) -> tuple[bytes, bytes]:
    """Part a packet into one of at most ``limit`` bytes and an extension, as JPEG needs it.

    Returns:
        The packet, and the extension, which is empty where all fits.
    """
    if len(xmp) <= limit:
        return xmp, b""
    elements = _descriptions(xmp)
    start, end = xmp.find(elements[0]) if elements else -1, xmp.rfind(b"</rdf:RDF")
    if start < 0 or end < start:
        return b"", b""
    head, tail = xmp[:start], b"</rdf:RDF></x:xmpmeta>"
    if head.rfind(b"<x:xmpmeta") < 0:
        tail = b"</rdf:RDF>"
    room = limit - len(head) - len(tail)
    first: list[bytes] = []
    second: list[bytes] = []
    for element in elements:
        fits = not second and len(element) <= room
        (first if fits else second).append(element)
        room -= len(element) if fits else 0
    return (b"".join((head, *first, tail)), b"".join((head, *second, tail)))


def with_extension_named(xmp: bytes, digest: bytes) -> bytes:
    """Add the property that says which extension belongs to a packet."""
    end = xmp.rfind(b"</rdf:RDF")
    note = b'<rdf:Description rdf:about="" xmlns:xmpNote="%b" xmpNote:HasExtendedXMP="%b"/>' % (
        _XMP_NOTE,
        digest,
    )
    return xmp[:end] + note + xmp[end:]


def _descriptions(xmp: bytes) -> list[bytes]:
    """Find the elements directly within rdf:RDF that are rdf:Description."""
    found: list[bytes] = []
    at = xmp.find(b"<rdf:Description")
    while at >= 0:
        opening_end = xmp.find(b">", at)
        if opening_end < 0:
            break
        is_empty = xmp[opening_end - 1 : opening_end] == b"/"
        end = opening_end + 1 if is_empty else _end_of_element(xmp, opening_end, b"rdf:Description")
        if end < 0:
            break
        found.append(xmp[at:end])
        at = xmp.find(b"<rdf:Description", end)
    return found


def _end_of_element(xmp: bytes, start: int, name: bytes) -> int:
    """Return where the element ends whose opening tag ends at ``start``; -1 where it does not."""
    depth = 1
    for match in re.compile(rb"<(/?)" + name + rb"(?=[\s/>])[^<>]*?(/?)>").finditer(xmp, start):
        depth += -1 if match[1] else (0 if match[2] else 1)
        if depth == 0:
            return match.end()
    return -1


_NAMESPACE = re.compile(rb"""\sxmlns:([\w.-]+)\s*=\s*["']([^"'<>]*)["']""")


def _namespaces(xmp: bytes) -> dict[bytes, bytes]:
    """Collect what is declared before the first description, outside of it."""
    head = xmp[: max(xmp.find(b"<rdf:Description"), 0)]
    return {match[1]: match[2] for match in _NAMESPACE.finditer(head)}


def _with_missing(element: bytes, declared: bytes) -> bytes:
    opening, end, rest = element.partition(b">")
    missing = b"".join(
        match[0] for match in _NAMESPACE.finditer(declared) if match[1] + b"=" not in opening
    )
    name = b"<rdf:Description"
    return opening.replace(name, name + missing, 1) + end + rest


def _prefixes(xmp: bytes, namespace: bytes) -> Iterator[bytes]:
    if namespace not in xmp:
        return
    declaration = rb"""xmlns:([\w.-]+)\s*=\s*["']""" + re.escape(namespace) + rb"""["']"""
    yield from sorted(set(re.findall(declaration, xmp)))[:_MAX_PREFIXES]


def _without_properties(xmp: bytes, namespace: bytes, names: bytes) -> bytes:
    """Remove properties, whether they stand as attributes or as elements."""
    for prefix in _prefixes(xmp, namespace):
        name = re.escape(prefix) + b":" + names
        xmp = re.sub(_SPACE + name + rb"""\s*=\s*(?:"[^"<]*"|'[^'<]*')""", b"", xmp)
        xmp = _without_elements(xmp, re.compile(rb"<(" + name + rb")(?=[\s/>])[^<>]*>"))
    return xmp


def _without_elements(xmp: bytes, opening: re.Pattern[bytes]) -> bytes:
    kept: list[bytes] = []
    at = 0
    while (match := opening.search(xmp, at)) is not None:
        end = match.end()
        if not match[0].endswith(b"/>"):
            end = _end_of_element(xmp, match.end() - 1, re.escape(match[1]))
            if end < 0:
                break
        kept.append(xmp[at : match.start()])
        at = end
    return b"".join((*kept, xmp[at:]))


def _without_namespace(xmp: bytes, namespace: bytes) -> bytes:
    """Remove the declaration of a namespace that is no longer used."""
    for prefix in _prefixes(xmp, namespace):
        if not re.search(rb"[\s</]" + re.escape(prefix) + b":", xmp):
            xmp = re.sub(
                _SPACE + rb"""xmlns:""" + re.escape(prefix) + rb"""\s*=\s*(?:"[^"]*"|'[^']*')""",
                b"",
                xmp,
            )
    return xmp


def _simple(name: bytes) -> re.Pattern[bytes]:
    """Match a whole number, as an attribute or as an element; group 1 is what precedes it."""
    return re.compile(rb"(\b" + name + rb"""(?:\s*=\s*["']|\s*>)\s*)(\d{1,10})(?!\d)""")


_ORIENTATION = _simple(rb"tiff:Orientation")
_SIZES = (
    (b"tiff:", rb"ImageWidth", 0),
    (b"tiff:", rb"ImageLength", 1),
    (b"exif:", rb"PixelXDimension", 0),
    (b"exif:", rb"PixelYDimension", 1),
)
"""Prefix, name and axis of what states the size of the image."""
_LENGTHS = (
    (b"GPano:", rb"(?:FullPanoWidth|CroppedAreaImageWidth|CroppedAreaLeft)Pixels", 0),
    (b"GPano:", rb"(?:FullPanoHeight|CroppedAreaImageHeight|CroppedAreaTop)Pixels", 1),
    (b"stDim:", rb"w", 0),
    (b"stDim:", rb"h", 1),
)
"""Extents of panoramas (Google Photo Sphere) and of what face regions are relative to (MWG)."""

_TURNED_RESOLUTION = re.compile(rb"\btiff:([XY])Resolution\b")


def _with_turned_density(xmp: bytes) -> bytes:
    other = {b"X": b"Y", b"Y": b"X"}
    return _TURNED_RESOLUTION.sub(lambda match: b"tiff:%bResolution" % other[match[1]], xmp)


def _with_turned_places(xmp: bytes, orientation: int) -> tuple[bytes, list[str]]:
    """Turn face regions (MWG); remove other places in the picture, and name them."""
    dropped: list[str] = []
    for (namespace, names), what in _UNTURNED.items():
        without = _without_properties(xmp, namespace, names)
        if without != xmp:
            dropped.append(what)
        xmp = without
    if _REGIONS[0] not in xmp:
        return xmp, dropped
    turned = _with_turned_areas(xmp, orientation)
    if turned is None:
        return _without_properties(xmp, *_REGIONS), [*dropped, "face regions"]
    return turned, dropped


_EXCHANGED = {b"x": b"y", b"y": b"x", b"w": b"h", b"h": b"w"}


def _with_turned_areas(xmp: bytes, orientation: int) -> bytes | None:
    """Turn normalised areas, which state their centres; None where others are among them.

    Source: Guidelines for Handling Image Metadata 2.0 (Metadata Working Group), section 5.9.
    """
    for prefix in _prefixes(xmp, _AREA):
        area = rb"(?<!/)\b" + re.escape(prefix) + b":"
        begun = rb"""(?:\s*=\s*["']|\s*>)\s*"""
        number = rb"""-?\d{0,3}(?:\.\d{0,30})?(?:[eE]-?\d\d?)?(?=\s*["'<])"""
        plain = len(re.findall(area + b"[xy]" + begun + number, xmp))
        is_normalised = len(re.findall(area + b"unit" + begun + b"normalized", xmp)) == len(
            re.findall(area + rb"unit\s*[=>]", xmp)
        )
        if plain != len(re.findall(area + rb"[xy]\s*[=>]", xmp)) or not is_normalised:
            return None
        if orientation >= 5:
            xmp = _with_exchanged_names(xmp, prefix)
        mirrored = b"x" * (orientation in (2, 3, 6, 7)) + b"y" * (orientation in (3, 4, 7, 8))
        if mirrored:
            value = rb"(%b[%b]%b)(%b)" % (area, mirrored, begun, number)
            xmp = re.sub(value, _mirrored, xmp)
    if orientation >= 5:
        for prefix in _prefixes(xmp, _DIMENSIONS):
            xmp = _with_exchanged_names(xmp, prefix)
    return xmp


def _with_exchanged_names(xmp: bytes, prefix: bytes) -> bytes:
    """Let x and y, and w and h, change places."""
    name = rb"\b(" + re.escape(prefix) + rb":)([xywh])\b"
    return re.sub(name, lambda match: match[1] + _EXCHANGED[match[2]], xmp)


def _mirrored(match: re.Match[bytes]) -> bytes:
    try:
        return match[1] + f"{1 - Decimal(match[2].decode('ascii')):f}".encode("ascii")
    except ArithmeticError:
        return match[0]
