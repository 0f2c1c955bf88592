"""The file formats: what each can hold, and how to recognise it.

One literal table, ``FORMATS``. Nothing here decodes pixels.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from escsr.errors import ImageFormatError

FormatName = Literal["JPEG", "PNG", "WebP", "TIFF", "AVIF", "GIF"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFormat:
    """What one file format can hold."""

    name: FormatName
    """Its name in messages."""
    suffixes: tuple[str, ...]
    """Lower-case file suffixes; the first is the usual one."""
    writable: bool
    """Whether escsr writes it."""
    max_side_pixels: int
    """The longest side that its encoder accepts."""
    max_bit_depth: int
    """Bits per channel that survive a round trip."""
    holds_alpha: bool
    """Whether it stores opacity."""
    holds_grey: bool
    """Whether it stores a single channel; otherwise grey is written as equal R, G and B."""
    streams: bool
    """Whether rows are encoded as they come; otherwise the encoder holds the whole result."""


FORMATS: tuple[ImageFormat, ...] = (
    ImageFormat(
        name="JPEG",
        suffixes=(".jpg", ".jpeg", ".jpe", ".jfif"),
        writable=True,
        max_side_pixels=65_500,  # the format ends at 65,535, libjpeg's encoder at 65,500
        max_bit_depth=8,
        holds_alpha=False,
        holds_grey=True,
        streams=True,
    ),
    ImageFormat(
        name="PNG",
        suffixes=(".png",),
        writable=True,
        max_side_pixels=10_000_000,  # libvips' limit; the format ends at 2**31 - 1
        max_bit_depth=16,
        holds_alpha=True,
        holds_grey=True,
        streams=True,
    ),
    ImageFormat(
        name="WebP",
        suffixes=(".webp",),
        writable=True,
        max_side_pixels=16_383,
        max_bit_depth=8,
        holds_alpha=True,
        holds_grey=False,
        streams=False,
    ),
    ImageFormat(
        name="TIFF",
        suffixes=(".tif", ".tiff"),
        writable=True,
        max_side_pixels=10_000_000,  # libvips' limit; the format ends at 2**32 - 1
        max_bit_depth=16,
        holds_alpha=True,
        holds_grey=True,
        streams=True,
    ),
    ImageFormat(
        name="AVIF",
        suffixes=(".avif", ".heic", ".heif"),
        writable=True,
        max_side_pixels=16_384,  # libvips' limit, which is libheif's default
        max_bit_depth=12,  # a 16-bit result keeps its upper 12 bits
        holds_alpha=True,
        holds_grey=False,
        streams=False,
    ),
    ImageFormat(
        name="GIF",
        suffixes=(".gif",),
        writable=False,
        max_side_pixels=65_535,
        max_bit_depth=8,
        holds_alpha=True,
        holds_grey=False,
        streams=False,
    ),
)

_READ_ONLY_SUFFIXES = frozenset({".heic", ".heif"})
"""Read where the installed libvips has an HEVC decoder (the bundled one has none)."""

READABLE_SUFFIXES = frozenset(suffix for form in FORMATS for suffix in form.suffixes)
"""Lower-case suffixes of the files that ``read_image`` tries."""

WRITABLE_SUFFIXES = (
    frozenset(suffix for form in FORMATS if form.writable for suffix in form.suffixes)
    - _READ_ONLY_SUFFIXES
)
"""Lower-case suffixes of the files that ``ImageWriter`` writes."""


_UNREAD_KINDS = {
    "BMP": "bmp dib",
    "TGA": "tga",
    "DDS": "dds",
    "Netpbm": "pbm pgm ppm pnm pam pfm",
    "PCX": "pcx",
    "icon": "ico cur icns",
    "JPEG 2000": "jp2 j2k j2c jpc jpf jpx jph",
    "JPEG XL": "jxl",
    "JPEG XR": "jxr wdp hdp",
    "Photoshop": "psd psb",
    "GIMP": "xcf",
    "Krita": "kra",
    "OpenRaster": "ora",
    "OpenEXR": "exr",
    "Radiance HDR": "hdr rgbe",
    "SVG": "svg svgz",
    "camera raw": "3fr arw cr2 cr3 crw dcr dng erf iiq kdc mef mrw nef nrw orf pef raf rw2 sr2 srw",
    "FITS": "fits fts",
    "DICOM": "dcm",
    "QOI": "qoi",
    "FLIF": "flif",
    "BPG": "bpg",
    "WBMP": "wbmp",
    "X bitmap": "xbm xpm",
    "SGI": "sgi rgb",
    "Sun raster": "ras",
    "KTX": "ktx ktx2",
    "animated PNG": "apng",
    "MNG": "mng",
    "stereo JPEG": "mpo jps",
    "Windows metafile": "wmf emf",
}

UNREAD_SUFFIXES = {
    f".{suffix}": kind for kind, suffixes in _UNREAD_KINDS.items() for suffix in suffixes.split()
}
"""Lower-case suffixes of images that ``read_image`` does not read, and their kinds."""


def format_for_writing(path: Path) -> ImageFormat:
    """Choose the output format by the suffix of ``path``.

    Raises:
        ImageFormatError: the suffix is missing, unknown, or of a format that is only read.
    """
    suffix = path.suffix.lower()
    for form in FORMATS:
        if suffix in form.suffixes and suffix in WRITABLE_SUFFIXES:
            return form
    raise ImageFormatError(
        f"{path} has the suffix {suffix!r}, which escsr cannot write; use one of "
        f"{', '.join(sorted(WRITABLE_SUFFIXES))}."
    )


def recognise(opening: bytes) -> FormatName | None:
    """Name the format of a file by its first 32 bytes, whatever its suffix says."""
    if opening.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if opening.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if opening[:4] == b"RIFF" and opening[8:12] == b"WEBP":
        return "WebP"
    if opening[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None if opening[8:11] == b"CR\x02" else "TIFF"
    if opening[4:8] == b"ftyp" and re.search(rb"avif|avis|mif1|msf1|hei|hev", opening[8:32]):
        return "AVIF"
    if opening[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    return None


_UNREAD_OPENINGS = (
    (rb"BM.{4}\0\0\0\0", "BMP"),
    (rb"8BPS\0", "Photoshop (PSD)"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL (JXL)"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000 (JP2)"),
    (rb"II\xbc\x01", "JPEG XR (JXR)"),
    (rb"v/1\x01", "OpenEXR (EXR)"),
    (rb"#\?R(?:ADIANCE|GBE)", "Radiance HDR"),
    (rb"P[1-7][\s#]", "Netpbm (PPM, PGM, PBM)"),
    (rb"P[Ff]\s", "floating-point Netpbm (PFM)"),
    (rb"\0\0\x01\0[^\0]", "icon (ICO)"),
    (rb"\0\0\x02\0[^\0]", "cursor (CUR)"),
    (rb"icns", "icon (ICNS)"),
    (rb"DDS ", "DirectDraw Surface (DDS)"),
    (rb"\xabKTX ", "Khronos texture (KTX)"),
    (rb"qoif", "QOI"),
    (rb"\x0a[\0-\x05]\x01[\x01\x02\x04\x08]", "PCX"),
    (rb"(?:\xef\xbb\xbf)?\s*<\?xml|(?:\xef\xbb\xbf)?\s*<svg", "SVG or another XML"),
    (rb"(?i)\s*<(?:!doctype html|html)", "HTML (a web page)"),
    (rb"%PDF-", "PDF"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (rb"gimp xcf", "GIMP (XCF)"),
    (rb"AT&TFORM", "DjVu"),
    (rb"SIMPLE  =", "FITS"),
    (rb"FLIF", "FLIF"),
    (rb"BPG\xfb", "BPG"),
    (rb"\x01\xda[\0\x01]", "SGI"),
    (rb"\x59\xa6\x6a\x95", "Sun raster"),
    (rb"/\* XPM", "XPM"),
    (rb"\x8a[MJ]NG|\x8bJNG", "MNG"),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "Windows metafile (WMF, EMF)"),
    (rb"FUJIFILMCCD-RAW|IIR[OS]|IIU\0|MMOR|FOVb|\0MRM|.{4}ftypcrx ", "camera raw"),
    (rb"II\*\0.{4}CR\x02", "camera raw (CR2)"),
    (rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI |\0\0\x01[\xb0-\xbf]", "video"),
    (rb"PK\x03\x04|PK\x05\x06", "ZIP archive (also KRA, ORA, CBZ)"),
    (rb"\x1f\x8b", "gzip archive"),
    (rb"7z\xbc\xaf|Rar!|\xfd7zXZ|BZh|\x28\xb5\x2f\xfd", "archive"),
    (rb"version https://git-lfs", "Git LFS pointer (fetch the file itself with 'git lfs pull')"),
)
"""How files begin that are not read, though people may try."""


def name_unread(opening: bytes) -> str | None:
    """Name the kind of a file that is not read by its first 32 bytes; None where it is unknown."""
    for pattern, name in _UNREAD_OPENINGS:
        if re.match(pattern, opening, re.DOTALL):
            return name
    return None


def is_hevc(opening: bytes) -> bool:
    """Tell by its first 32 bytes whether a HEIF file is coded with HEVC (HEIC)."""
    return opening[4:8] == b"ftyp" and re.search(rb"hei[cxms]|hev[cx]", opening[8:32]) is not None


class HeaderError(ValueError):
    """A header claims what no sound file does; callers turn it into their own answer."""


_MAX_CHUNKS = 10_000
"""Of a PNG, beside those of its pixels."""
_MAX_PIXEL_CHUNKS = 1 << 20
_MAX_BOXES = 1 << 12
_MAX_UNPACKED_BYTES = 1 << 25
"""What compressed texts and profiles of a PNG may unpack to, all together."""
_COMPRESSED_CHUNKS = (b"iCCP", b"zTXt", b"iTXt")


@dataclass(frozen=True, slots=True, kw_only=True)
class PngFacts:
    """What the chunks of a PNG say before its pixels."""

    width: int
    """In pixels, as claimed."""
    height: int
    """In pixels, as claimed."""
    frames: int
    """1, or the number of frames of an animation (APNG)."""


def read_png_facts(stream: BinaryIO) -> PngFacts | None:
    """Read a PNG's size and number of frames, which libvips' reader does not tell.

    Args:
        stream: opened at its start.
    Returns:
        None where the file ends before its header.
    Raises:
        HeaderError: its texts and profiles unpack to more than 32 MiB, or it has too many
            chunks.
    """
    width = height = unpacked = 0
    frames = 1
    for kind, length in png_chunks(stream):
        if kind == b"IHDR" and length >= 8:
            width, height = struct.unpack(">II", stream.read(8).ljust(8, b"\0"))
        if kind == b"acTL" and length >= 4:
            (frames,) = struct.unpack(">I", stream.read(4).ljust(4, b"\0"))
        if kind in _COMPRESSED_CHUNKS:
            unpacked += _unpacked_bytes(kind, stream.read(length), _MAX_UNPACKED_BYTES - unpacked)
            if unpacked >= _MAX_UNPACKED_BYTES:
                raise HeaderError(
                    f"its texts and profiles unpack to more than {_MAX_UNPACKED_BYTES >> 20} MiB"
                )
    return PngFacts(width=width, height=height, frames=max(frames, 1)) if width else None


def png_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Walk through the chunks of a PNG.

    Args:
        stream: the file; it stands at a chunk's content when the chunk is told of.
    Yields:
        The name of each chunk, and the bytes of its content as far as they are in the file.
    Raises:
        HeaderError: more than 10,000 chunks, or 1,048,576 of pixels.
    """
    end = stream.seek(0, io.SEEK_END)
    start = stream.seek(8)
    left = {True: _MAX_PIXEL_CHUNKS, False: _MAX_CHUNKS}
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        left[kind == b"IDAT"] -= 1
        if left[kind == b"IDAT"] < 0:
            raise HeaderError("it has too many chunks")
        yield kind, min(length, end - start - 8)
        start += length + 12
        stream.seek(start)


def _unpacked_bytes(kind: bytes, content: bytes, limit: int) -> int:
    """Measure what the compressed part of a chunk unpacks to, up to ``limit``."""
    _, _, rest = content.partition(b"\0")
    if kind == b"iTXt":
        if rest[:1] != b"\1":
            return 0
        rest = b"\0" + rest[2:].split(b"\0", 2)[-1]
    unpacker = zlib.decompressobj()
    data, size = rest[1:], 0
    try:
        while data and size < limit and not unpacker.eof:
            size += len(unpacker.decompress(data, 1 << 20))
            data = unpacker.unconsumed_tail
    except zlib.error:
        return size
    return size


def count_sequence_frames(stream: BinaryIO) -> int:
    """Count the frames of an AVIF or HEIF image sequence.

    Args:
        stream: opened at its start.
    Returns:
        1 for a still image, whatever thumbnails or gain maps it carries; else the number of
        samples of its longest track, or 2 where the track does not tell.
    """
    movie = _find_box(stream, b"moov")
    if movie is None:
        return 1
    # stsz: version and flags (4), common sample size (4), number of samples (4)
    counts = [
        struct.unpack(">I", match.group(1))[0]
        for match in re.finditer(rb"stsz.{8}(.{4})", movie, re.DOTALL)
    ]
    still = counts and max(counts) == 1
    return 1 if still else max([2, *counts])


_LARGEST_MOVIE_BOX = 1 << 24


def _find_box(stream: BinaryIO, wanted: bytes) -> bytes | None:
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    for _ in range(_MAX_BOXES):
        head = stream.read(8)
        if len(head) < 8:
            return None
        length, kind = struct.unpack(">I4s", head)
        body = 8
        if length == 1:
            length, body = struct.unpack(">Q", stream.read(8).rjust(8, b"\0"))[0], 16
        if kind == wanted:
            return stream.read(min(max(length - body, 0), _LARGEST_MOVIE_BOX))
        end = stream.tell() + length - body
        if length < body or end > size:
            return None
        stream.seek(end)
    return None
