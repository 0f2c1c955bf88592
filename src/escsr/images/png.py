"""The chunks of a PNG beside its pixels: read from a file, and put into one as it is written.

Source: Portable Network Graphics (PNG) Specification, third edition.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

from escsr.images.colour import (
    StatedColour,
    possible_chromaticities,
    possible_gamma,
)
from escsr.images.exif import stated_orientation
from escsr.images.file_blocks import Chunk, Density, FileBlocks, HeadRewriter

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
COLOUR_CHUNKS = (b"cICP", b"mDCV", b"cLLI", b"sRGB", b"gAMA", b"cHRM")
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_RAW_PROFILE = b"Raw profile type "
_READ_PROFILES = frozenset(
    b"raw profile type " + name
    for name in (b"exif", b"app1", b"iptc", b"8bim", b"xmp", b"icc", b"icm")
)
_MAX_KEPT_BYTES = 1 << 26
"""All chunks of a file that are kept, together; the same holds for one that is inflated."""

_REWRITTEN = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"iCCP", b"eXIf", b"pHYs"})
"""Read by libvips or by us, and written anew."""
_MEANINGLESS = frozenset({b"hIST", b"acTL", b"fcTL", b"fdAT", b"iDOT", b"CgBI", b"npTc"})
"""About the palette, the animation or the coded bytes of the source."""
_KEPT_THOUGH_UNSAFE = frozenset(
    {b"bKGD", b"sBIT", b"tIME", b"sTER", b"pCAL", b"sCAL", *COLOUR_CHUNKS}
)
"""Not marked as safe to copy, but of known meaning."""

_LENGTHS = {
    **{b"tIME": 7, b"sTER": 1, b"oFFs": 9, b"grAb": 8, b"vpAg": 9, b"caNv": 16},
    **{b"cICP": 4, b"mDCV": 24, b"cLLI": 8, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32},
}
"""In bytes, of chunks of one length; one of another is malformed, and not read."""
_SIGNIFICANT_BITS_LENGTHS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
"""Of sBIT, by colour type."""
_BACKGROUND_LENGTHS = {0: 2, 2: 6, 3: 1, 4: 2, 6: 6}
"""Of bKGD, by colour type."""

_UNIT_PIXELS, _UNIT_METRES = 0, 1


def read_png_blocks(stream: BinaryIO) -> FileBlocks:
    """Read what a PNG holds beside its pixels.

    Args:
        stream: the file.
    Returns:
        The blocks; chunks that are damaged, malformed or behind the end of a truncated file are
        left out.
    """
    ahead: list[Chunk] = []
    behind: list[Chunk] = []
    header, found = b"", ahead
    for kind, payload in _chunks(stream):
        if kind == b"IHDR":
            header = payload
        elif kind == b"IDAT":
            found = behind
        elif len(payload) == _LENGTHS.get(kind, len(payload)):
            found.append((kind, payload))
    blocks = FileBlocks(colour=_colour_of(ahead), density=_density_of(ahead))
    exif = _payload(ahead, b"eXIf")
    if exif is None and (exif := _payload(behind, b"eXIf")) is not None:
        # Readers do not turn by an eXIf that comes behind the pixels; its camera data are sound.
        blocks = replace(blocks, orientation=1)
    else:
        blocks = replace(blocks, orientation=stated_orientation(exif))
    blocks = _with_raw_profiles(replace(blocks, exif=exif), ahead, behind)
    kept, left = _sorted_out(ahead + behind, header)
    return replace(
        blocks, chunks=kept, notes=(f"PNG chunks {', '.join(left)}",) if left else blocks.notes
    )


def _chunks(stream: BinaryIO) -> Iterator[Chunk]:
    """Walk through the chunks; those of pixels come without payload, damaged ones not at all."""
    stream.seek(len(_SIGNATURE))
    room = _MAX_KEPT_BYTES
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"IDAT", b"fdAT") or length > room:
            if kind == b"IDAT":
                yield kind, b""
            stream.seek(length + 4, 1)
            continue
        payload, check = stream.read(length), stream.read(4)
        if len(check) < 4:
            return
        if int.from_bytes(check, "big") == zlib.crc32(kind + payload):
            room -= length
            yield kind, payload
        if kind == b"IEND":
            return


def _payload(chunks: Sequence[Chunk], wanted: bytes) -> bytes | None:
    return next((payload for kind, payload in chunks if kind == wanted), None)


def _colour_of(chunks: Sequence[Chunk]) -> StatedColour | None:
    """Read the colour that counts: cICP before iCCP before sRGB before gAMA and cHRM."""
    cicp = _payload(chunks, b"cICP")
    if cicp is not None and len(cicp) == 4:
        return StatedColour(primaries=cicp[0], transfer=cicp[1], is_full_range=cicp[3] != 0)
    if _payload(chunks, b"iCCP") is not None:
        return None
    if _payload(chunks, b"sRGB") is not None:
        return StatedColour(primaries=1, transfer=13)
    gamma, colours = _payload(chunks, b"gAMA"), _payload(chunks, b"cHRM")
    power = int.from_bytes(gamma, "big") if gamma is not None and len(gamma) == 4 else 0
    numbers = struct.unpack(">8I", colours) if colours is not None and len(colours) == 32 else ()
    exponent = possible_gamma(100_000 / power) if power else None
    chromaticities = possible_chromaticities([number / 100_000 for number in numbers])
    if exponent is None and chromaticities is None:
        return None
    return StatedColour(gamma=exponent, chromaticities=chromaticities)


def _density_of(chunks: Sequence[Chunk]) -> Density | None:
    physical = _payload(chunks, b"pHYs")
    if physical is None or len(physical) != 9:
        return None
    x, y, unit = struct.unpack(">IIB", physical)
    if not (x and y) or unit > _UNIT_METRES:
        return None
    if unit == _UNIT_METRES:
        return Density(pixels_per_mm=(x / 1000, y / 1000))
    return Density(ratio=(float(x), float(y))) if x != y else None


def _with_raw_profiles(
    blocks: FileBlocks, ahead: Sequence[Chunk], behind: Sequence[Chunk]
) -> FileBlocks:
    """Take XMP, and what ImageMagick and GIMP write as hexadecimal text, from the text chunks."""
    raw: dict[str, bytes] = {}
    for kind, payload in [*ahead, *behind]:
        if kind not in _TEXTS:
            continue
        keyword = payload.partition(b"\0")[0]
        if keyword == _XMP_KEYWORD and kind == b"iTXt":
            raw.setdefault("xmp", text_of(kind, payload))
        elif keyword.startswith(_RAW_PROFILE):
            name = keyword.removeprefix(_RAW_PROFILE).decode("latin-1").lower()
            data = _from_hexadecimal(text_of(kind, payload))
            raw.setdefault(*_unwrapped(name, data))
    if blocks.exif is None and raw.get("exif"):
        blocks = replace(blocks, exif=raw["exif"], orientation=stated_orientation(raw["exif"]))
    iccp = _payload(ahead, b"iCCP")
    return replace(
        blocks,
        xmp=raw.get("xmp") or None,
        photoshop=raw.get("iptc") or None,
        # libpng drops a profile that is damaged or for other pixels; users are told so.
        icc_profile=raw.get("icc") if iccp is None else _inflated(iccp.partition(b"\0")[2][1:]),
    )


def _unwrapped(name: str, data: bytes) -> tuple[str, bytes]:
    """Name a raw profile by its content."""
    if name in ("exif", "app1") and data.startswith(b"Exif\0\0"):
        return "exif", data
    if name == "xmp" or data.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
        return "xmp", data.removeprefix(b"http://ns.adobe.com/xap/1.0/\0")
    return {"8bim": "iptc", "icm": "icc"}.get(name, name), data


def text_of(kind: bytes, payload: bytes) -> bytes:
    """Return the text of a text chunk, inflated: Latin-1, or UTF-8 for iTXt; b"" if broken."""
    _, _, rest = payload.partition(b"\0")
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _inflated(rest[1:])
    if len(rest) < 2:
        return b""
    _, _, text = rest[2:].partition(b"\0")[2].partition(b"\0")
    return _inflated(text) if rest[0] else text


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MAX_KEPT_BYTES)
    except zlib.error:
        return b""


def _from_hexadecimal(text: bytes) -> bytes:
    r"""Decode ``\nexif\n    1234\n4578…``."""
    lines = text.strip().split(b"\n", 2)
    if len(lines) < 3:
        return b""
    try:
        return bytes.fromhex(lines[2].decode("ascii"))
    except ValueError:
        return b""


def _sorted_out(chunks: Sequence[Chunk], header: bytes) -> tuple[tuple[Chunk, ...], list[str]]:
    """Part the chunks that go into a PNG result from the names of those that cannot.

    A chunk of unknown meaning goes along where its name marks it as safe to copy.
    """
    kept: list[Chunk] = []
    left: list[str] = []
    for kind, payload in chunks:
        keyword = payload.partition(b"\0")[0]
        if kind in _REWRITTEN or kind in _MEANINGLESS:
            continue
        if kind in _TEXTS and (keyword == _XMP_KEYWORD or keyword.lower() in _READ_PROFILES):
            continue
        if kind in (b"bKGD", b"sBIT"):
            kept += _for_true_colour(kind, payload, header, _payload(chunks, b"PLTE"))
        elif kind in _KEPT_THOUGH_UNSAFE or kind[3:].islower():
            kept.append((kind, payload))
        else:
            left.append(kind.decode("latin-1") + (" (content credentials)" * (kind == b"caBX")))
    return tuple(kept), left


def _for_true_colour(
    kind: bytes, payload: bytes, header: bytes, palette: bytes | None
) -> list[Chunk]:
    """Bring bKGD and sBIT to what results have: 8 or 16 bits, and no palette."""
    if len(header) != 13:
        return []
    depth, colour_type = header[8], header[9]
    lengths = _SIGNIFICANT_BITS_LENGTHS if kind == b"sBIT" else _BACKGROUND_LENGTHS
    if len(payload) != lengths.get(colour_type):
        return []
    if kind == b"sBIT":
        is_sound = all(0 < bits <= depth for bits in payload)
        return [(kind, payload)] if is_sound and colour_type != 3 and depth >= 8 else []
    if colour_type == 3:
        entry = (palette or b"")[3 * payload[0] :][:3]
        return [(kind, struct.pack(">3H", *entry))] if len(entry) == 3 else []
    if depth < 8:
        level = int.from_bytes(payload, "big") * 255 // (2**depth - 1)
        return [(kind, struct.pack(">H", min(level, 255)))]
    return [(kind, payload)]


def fitting_chunks(
    chunks: Sequence[Chunk], *, channels: int, bit_depth: int, scale: tuple[float, float]
) -> list[Chunk]:
    """Return chunks as they suit a result: lengths in pixels scaled, and only what fits its kind.

    Args:
        chunks: from ``read_png_blocks``.
        channels: of the result.
        bit_depth: of the result.
        scale: (x, y) pixels of the result per pixel of the source.
    """
    fitting: list[Chunk] = []
    for kind, payload in chunks:
        if kind == b"sBIT" and (len(payload) != channels or max(payload) > bit_depth):
            continue
        if kind == b"bKGD" and len(payload) != (2 if channels < 3 else 6):
            continue
        fitting.append((kind, _scaled(kind, payload, scale)))
    return fitting


def _scaled(kind: bytes, payload: bytes, scale: tuple[float, float]) -> bytes:
    layout = {b"oFFs": ">iiB", b"grAb": ">ii", b"vpAg": ">IIB", b"caNv": ">IIii"}.get(kind)
    if layout is None or len(payload) != struct.calcsize(layout):
        return payload
    values = list(struct.unpack(layout, payload))
    if layout.endswith("B") and values.pop() != _UNIT_PIXELS:
        return payload
    sized = [round(value * scale[index % 2]) for index, value in enumerate(values)]
    try:
        return struct.pack(layout, *sized, *[_UNIT_PIXELS] * layout.endswith("B"))
    except struct.error:
        return payload


def keywords_of(chunks: Sequence[Chunk]) -> list[str]:
    """Name the texts among chunks, each once."""
    names = [
        payload.partition(b"\0")[0].decode("latin-1") for kind, payload in chunks if kind in _TEXTS
    ]
    return list(dict.fromkeys(names))


def comments_of(chunks: Sequence[Chunk]) -> tuple[bytes, ...]:
    """Return the texts of the name Comment, which other formats hold too."""
    return tuple(
        text_of(kind, payload)
        for kind, payload in chunks
        if kind in _TEXTS and payload.startswith(b"Comment\0")
    )


def text_chunk(keyword: str, text: str) -> Chunk:
    """Make a text chunk: tEXt for ASCII, and iTXt for anything else."""
    name = keyword.encode("latin-1")
    if text.isascii():
        return b"tEXt", name + b"\0" + text.encode("ascii")
    return b"iTXt", name + b"\0\0\0\0\0" + text.encode()


def xmp_chunk(xmp: bytes) -> Chunk:
    """Make the text chunk that holds XMP."""
    return b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + xmp


def profile_chunk(profile: bytes) -> Chunk:
    """Make the chunk that holds an ICC profile."""
    return b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)


def raw_profile_chunk(name: str, data: bytes) -> Chunk:
    """Make the text chunk in which ImageMagick and exiftool look for ``name``, such as ``iptc``."""
    digits = data.hex()
    lines = [digits[start : start + 72] for start in range(0, len(digits), 72)]
    text = "\n".join(["", name, f"{len(data):8d}", *lines, ""])
    keyword = _RAW_PROFILE + name.encode("ascii")
    return b"zTXt", keyword + b"\0\0" + zlib.compress(text.encode("ascii"))


def density_chunk(
    pixels_per_mm: tuple[float, float] | None, ratio: tuple[float, float] | None
) -> list[Chunk]:
    """Make the chunk that states a density or the ratio of both, if either is known."""
    if pixels_per_mm is not None:
        x, y, unit = *(round(density * 1000) for density in pixels_per_mm), 1
    elif ratio is not None:
        x, y, unit = round(ratio[0]), round(ratio[1]), 0
    else:
        return []
    largest = 2**31 - 1
    return [(b"pHYs", struct.pack(">IIB", min(x, largest), min(y, largest), unit))]


def colour_chunks(colour: StatedColour) -> list[Chunk]:
    """Make the chunks that state a colour that came from another format."""
    if (points := colour.code_points) is None:
        return []
    return [(b"cICP", bytes([*points, 0, 1]))]


def png_head(chunks: Sequence[Chunk]) -> HeadRewriter:
    """Put chunks between the header and the pixels of a PNG, in place of the encoder's own.

    Args:
        chunks: in an order that the specification allows.
    """

    def rewrite(written: bytes) -> tuple[bytes, int] | None:
        at, kept = len(_SIGNATURE), [written[: len(_SIGNATURE)]]
        while len(written) >= at + 8:
            length, kind = struct.unpack_from(">I4s", written, at)
            if kind == b"IDAT":
                ours = [_serialised(*chunk) for chunk in chunks]
                return b"".join(kept[:2] + ours + kept[2:]), at
            if kind in (b"IHDR", b"PLTE", b"tRNS"):
                kept.append(written[at : at + length + 12])
            at += length + 12
        return None

    return rewrite


def _serialised(kind: bytes, payload: bytes) -> bytes:
    body = kind + payload
    return struct.pack(">I", len(payload)) + body + struct.pack(">I", zlib.crc32(body))
