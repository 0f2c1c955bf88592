"""What PNG, JPEG, WebP and AVIF each hold beside pixels: kept, mended, or named as left out."""

import hashlib
import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from escsr.images.files import read_image
from escsr.images.writer import write_image
from tests.images.png_editing import chunks_of, insert_chunks

RDF = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description rdf:about="" %b>%b</rdf:Description></rdf:RDF></x:xmpmeta>'
)
DC = b'xmlns:dc="http://purl.org/dc/elements/1.1/"'


def _doubled(source: Path, result: Path, *, quality: int | None = None) -> Path:
    """Read a file, make every pixel four, and write the result."""
    image = read_image(source)
    pixels = image.pixels.repeat(2, axis=0).repeat(2, axis=1)
    write_image(result, pixels, metadata=image.metadata, quality=quality)
    return result


def _insert_segments(path: Path, *segments: tuple[int, bytes]) -> None:
    """Put segments behind the first marker of a JPEG."""
    data = path.read_bytes()
    new = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
        for marker, payload in segments
    )
    path.write_bytes(data[:2] + new + data[2:])


def _jfif_density(path: Path) -> tuple[int, int, int]:
    data = path.read_bytes()
    at = data.index(b"JFIF\0")
    return struct.unpack(">BHH", data[at + 7 : at + 12])


def _state_jfif_density(path: Path, unit: int, x: int, y: int) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into(">BHH", data, data.index(b"JFIF\0") + 7, unit, x, y)
    path.write_bytes(data)


# Texts and comments


def test_texts_of_a_png_are_in_the_result_as_they_were(picture, tmp_path: Path) -> None:
    """Short, compressed and international texts, and one of 3 MB, have the same chunks."""
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a tree\nNegative prompt: grass\nSteps: 40, Seed: 968002204")
    info.add_text("Copyright", "2024 Somebody", zip=True)
    info.add_itxt("workflow", '{"nodes": ["é"]}', lang="en", tkey="flow", zip=True)
    info.add_text("prompt", "x" * 3_000_000)
    Image.fromarray(picture()).save(tmp_path / "a.png", pnginfo=info)
    path = _doubled(tmp_path / "a.png", tmp_path / "b.png")
    texts = [[c for c in chunks_of(p) if c[0][1:] in (b"EXt", b"TXt")] for p in tmp_path.iterdir()]
    assert len(texts[0]) == 4
    assert texts[0] == texts[1]
    assert read_image(path).metadata.left_out("PNG") == []


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_comment_goes_where_the_format_has_a_place(picture, tmp_path: Path, suffix: str) -> None:
    """A JPEG's comment is in a JPEG and in a PNG result; a GIF's and a PNG's likewise."""
    Image.fromarray(picture()).save(tmp_path / "a.jpg", comment="café".encode())
    Image.fromarray(picture(channels=1)[..., 0]).save(tmp_path / "b.gif", comment="café".encode())
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Comment", "café")
    Image.fromarray(picture()).save(tmp_path / "c.png", pnginfo=info)
    for name in ("a.jpg", "b.gif", "c.png"):
        path = _doubled(tmp_path / name, tmp_path / f"{name}_2{suffix}")
        with Image.open(path) as image:
            image.load()
            found = image.info.get("comment") or image.info.get("Comment")
        assert found in ("café", "café".encode())


def test_what_a_format_cannot_hold_is_named(picture, tmp_path: Path) -> None:
    """Texts, comments and IPTC are named where the result has no place for them."""
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a tree")
    Image.fromarray(picture()).save(tmp_path / "a.png", pnginfo=info)
    metadata = read_image(tmp_path / "a.png").metadata
    for form in ("JPEG", "WebP", "TIFF", "AVIF"):
        assert metadata.left_out(form) == ["without PNG texts (parameters)"]
    Image.fromarray(picture()).save(tmp_path / "b.jpg", comment=b"hello")
    _insert_segments(tmp_path / "b.jpg", (0xED, b"Photoshop 3.0\0" + _resource(0x0404, b"\x1c")))
    _insert_segments(tmp_path / "b.jpg", (0xEC, b"Ducky\0"), (0xE3, b"thermal\0\1\2"))
    metadata = read_image(tmp_path / "b.jpg").metadata
    thermal = "without application data (APP3 thermal)"
    assert metadata.left_out("JPEG") == metadata.left_out("PNG") == [thermal]
    assert metadata.left_out("WebP") == [thermal, "without the comment", "without IPTC"]


# PNG's other chunks


def test_offsets_in_pixels_grow_with_the_picture(picture, tmp_path: Path) -> None:
    """OFFs and grAb double at x2; micrometres, time and unknown chunks that are safe stay."""
    Image.fromarray(picture()).save(tmp_path / "a.png")
    time = (b"tIME", struct.pack(">H5B", 2024, 5, 6, 7, 8, 9))
    new = [
        time,
        (b"oFFs", struct.pack(">iiB", 3, -5, 0)),
        (b"grAb", struct.pack(">ii", 7, 9)),
        (b"abCd", b"whatever"),
        (b"sBIT", b"\5\6\5"),
        (b"bKGD", struct.pack(">3H", 1, 2, 3)),
    ]
    insert_chunks(tmp_path / "a.png", *new)
    found = dict(chunks_of(_doubled(tmp_path / "a.png", tmp_path / "b.png")))
    assert found[b"oFFs"] == struct.pack(">iiB", 6, -10, 0)
    assert found[b"grAb"] == struct.pack(">ii", 14, 18)
    assert all(found[kind] == payload for kind, payload in new if kind not in (b"oFFs", b"grAb"))


def test_chunks_that_would_be_wrong_are_left_out_and_named(picture, tmp_path: Path) -> None:
    """Content credentials sign other pixels; a chunk that is not safe to copy may describe them."""
    Image.fromarray(picture()).save(tmp_path / "a.png")
    insert_chunks(tmp_path / "a.png", (b"caBX", b"jumb"), (b"teST", b"?"), (b"npTc", bytes(32)))
    path = _doubled(tmp_path / "a.png", tmp_path / "b.png")
    assert {kind for kind, _ in chunks_of(path)} == {b"IHDR", b"IDAT", b"IEND"}
    left = read_image(tmp_path / "a.png").metadata.left_out("PNG")
    assert left == ["without PNG chunks caBX (content credentials), teST"]


def test_malformed_chunks_are_left_out(picture, tmp_path: Path) -> None:
    """Chunks of a length, a unit or a number of bits that they cannot have are not copied."""
    Image.fromarray(picture()).save(tmp_path / "a.png")
    new = [
        (b"tIME", bytes(6)),
        (b"oFFs", bytes(8)),
        (b"grAb", bytes(9)),
        (b"pHYs", struct.pack(">IIB", 2000, 1000, 7)),
        (b"gAMA", bytes(3)),
        (b"sBIT", b"\5\6\5\5"),
        (b"bKGD", bytes(2)),
    ]
    insert_chunks(tmp_path / "a.png", *new)
    found = dict(chunks_of(_doubled(tmp_path / "a.png", tmp_path / "b.png")))
    assert not found.keys() & {kind for kind, _ in new}
    Image.fromarray(picture()).save(tmp_path / "c.png")
    insert_chunks(tmp_path / "c.png", (b"sBIT", b"\0\x09\x08"), (b"pHYs", bytes(8)))
    found = dict(chunks_of(_doubled(tmp_path / "c.png", tmp_path / "d.png")))
    assert not found.keys() & {b"sBIT", b"pHYs"}


def test_a_palette_keeps_its_background_as_a_colour(picture, tmp_path: Path) -> None:
    """BKGD names an entry of the palette; the result has no palette, so it names the colour."""
    image = Image.fromarray(np.zeros((8, 8), np.uint8), "P")
    image.putpalette([1, 2, 3, 40, 50, 60])
    image.save(tmp_path / "a.png")
    insert_chunks(tmp_path / "a.png", (b"bKGD", b"\1"))
    found = dict(chunks_of(_doubled(tmp_path / "a.png", tmp_path / "b.png")))
    assert found[b"bKGD"] == struct.pack(">3H", 40, 50, 60)


def test_exif_behind_the_pixels_of_a_png_arrives_without_turning(picture, tmp_path: Path) -> None:
    """Browsers do not turn by it; camera data are kept, and nothing turns the result later."""
    exif = Image.Exif()
    exif[271], exif[274] = "Maker", 6
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    Image.fromarray(picture(20, 30)).save(tmp_path / "a.png")
    insert_chunks(tmp_path / "a.png", (b"eXIf", body), before=b"IEND")
    with Image.open(_doubled(tmp_path / "a.png", tmp_path / "b.png")) as image:
        image.load()
        assert image.size == (60, 40)
        assert (image.getexif()[271], image.getexif()[274]) == ("Maker", 1)


def test_exif_and_iptc_in_the_text_form_of_imagemagick_are_read(picture, tmp_path: Path) -> None:
    """'Raw profile type exif' turns the picture and reaches eXIf; 'iptc' reaches a JPEG."""
    exif = Image.Exif()
    exif[271], exif[274] = "Maker", 6
    body = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunks = []
    for name, data in (("exif", body), ("iptc", _resource(0x0404, b"\x1c\x02\x78\0\x05hello"))):
        digits = data.hex()
        lines = [digits[at : at + 72] for at in range(0, len(digits), 72)]
        text = "\n".join(["", name, f"{len(data):8}", *lines, ""]).encode()
        chunks.append((b"zTXt", f"Raw profile type {name}\0\0".encode() + zlib.compress(text)))
    Image.fromarray(picture(20, 30)).save(tmp_path / "a.png")
    insert_chunks(tmp_path / "a.png", *chunks)
    for name in ("b.png", "b.jpg"):
        with Image.open(_doubled(tmp_path / "a.png", tmp_path / name)) as image:
            image.load()
            assert image.size == (40, 60)
            assert (image.getexif()[271], image.getexif()[274]) == ("Maker", 1)
    assert b"hello" in (tmp_path / "b.jpg").read_bytes()
    photoshop = read_image(tmp_path / "b.png").metadata.photoshop
    assert photoshop is not None
    assert b"hello" in photoshop


# Density


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".avif"])
def test_no_density_is_invented(picture, tmp_path: Path, suffix: str) -> None:
    """A source without density gives results without: no pHYs, JFIF unit 0, no TIFF tags."""
    Image.fromarray(picture()).save(tmp_path / "a.png")
    path = _doubled(tmp_path / "a.png", tmp_path / f"b{suffix}")
    assert read_image(path).metadata.pixels_per_mm is None
    if suffix == ".jpg":
        assert _jfif_density(path) == (0, 1, 1)
    if suffix == ".png":
        assert b"pHYs" not in dict(chunks_of(path))
    if suffix == ".tif":
        with Image.open(path) as image:
            assert not {282, 283, 296} & set(image.tag_v2)  # pyright: ignore


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_ratio_of_densities_stays_a_ratio(picture, tmp_path: Path, suffix: str) -> None:
    """JFIF unit 0 and pHYs unit 0 state the shape of pixels; the result states it, and no dpi."""
    Image.fromarray(picture()).save(tmp_path / "a.jpg")
    _state_jfif_density(tmp_path / "a.jpg", 0, 2, 1)
    Image.fromarray(picture()).save(tmp_path / "a.png")
    insert_chunks(tmp_path / "a.png", (b"pHYs", struct.pack(">IIB", 2, 1, 0)))
    for name in ("a.jpg", "a.png"):
        path = _doubled(tmp_path / name, tmp_path / f"{name}_2{suffix}")
        metadata = read_image(path).metadata
        assert metadata.pixels_per_mm is None
        assert metadata.density_ratio == (2, 1)
    if suffix == ".tif":
        with Image.open(path) as image:
            assert image.tag_v2[296] == 1  # pyright: ignore


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".avif"])
def test_density_turns_with_the_picture(picture, tmp_path: Path, suffix: str) -> None:
    """200 x 100 dpi lying on its side is 100 x 200 dpi upright, in the file and in its EXIF."""
    exif = Image.Exif()
    exif[274], exif[282], exif[283], exif[296] = 6, 200.0, 100.0, 2
    Image.fromarray(picture()).save(tmp_path / "a.jpg", dpi=(200, 100), exif=exif)
    path = _doubled(tmp_path / "a.jpg", tmp_path / f"b{suffix}")
    density = read_image(path).metadata.pixels_per_mm
    assert density == pytest.approx((100 / 25.4, 200 / 25.4), rel=1e-3)
    with Image.open(path) as image:
        tags = image.getexif()
        assert (tags[282], tags[283], tags[296]) == (100, 200, 2)


def test_photoshop_data_turn_too_and_lose_their_thumbnail(picture, tmp_path: Path) -> None:
    """Resolution is exchanged, the thumbnail and guides in pixels go, IPTC stays."""
    resolution = struct.pack(">IHHIHH", 200 << 16, 1, 2, 100 << 16, 1, 2)
    blocks = (
        _resource(0x03ED, resolution)
        + _resource(0x040C, b"thumbnail")
        + _resource(0x0404, b"\x1c\x02\x78\0\x05hello")
    )
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(picture()).save(tmp_path / "a.jpg", dpi=(200, 100), exif=exif)
    _insert_segments(tmp_path / "a.jpg", (0xED, b"Photoshop 3.0\0" + blocks))
    data = _doubled(tmp_path / "a.jpg", tmp_path / "b.jpg").read_bytes()
    assert resolution[8:] + resolution[:8] in data
    assert b"hello" in data
    assert b"thumbnail" not in data


def _resource(number: int, data: bytes) -> bytes:
    head = b"8BIM" + struct.pack(">HHI", number, 0, len(data))
    return head + data + bytes(len(data) % 2)


# EXIF and XMP


def test_the_thumbnail_of_exif_is_gone_to_its_last_byte(picture, tmp_path: Path) -> None:
    """It would show the picture unturned; the tags beside it keep their values."""
    small = io.BytesIO()
    Image.fromarray(picture(16, 20)).save(small, "JPEG")
    thumbnail = small.getvalue()
    body = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 271, 2, 6, 26)
    body += struct.pack("<I", 32) + b"Maker\0"
    body += struct.pack("<HHHIIHHIII", 2, 513, 4, 1, 62, 514, 4, 1, len(thumbnail), 0)
    assert len(body) == 62
    Image.fromarray(picture()).save(tmp_path / "a.jpg")
    _insert_segments(tmp_path / "a.jpg", (0xE1, b"Exif\0\0" + body + thumbnail))
    for suffix in (".jpg", ".png", ".webp", ".tif", ".avif"):
        path = _doubled(tmp_path / "a.jpg", tmp_path / f"b{suffix}")
        assert thumbnail[20:200] not in path.read_bytes()
        with Image.open(path) as image:
            assert image.getexif()[271] == "Maker"


@pytest.mark.parametrize("kind", [1, 3, 4], ids=["byte", "short", "long"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_of_any_integer_type_turns_once(
    picture, tmp_path: Path, kind: int, order: str
) -> None:
    """Cameras and phones write it as a byte and as 32 bits too; the result states 1."""
    value = {1: "B3x", 3: "H2x", 4: "I"}[kind]
    body = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1)
    body += struct.pack(f"{order}HHI{value}I", 274, kind, 1, 6, 0)
    Image.fromarray(picture(20, 30)).save(tmp_path / "a.jpg")
    _insert_segments(tmp_path / "a.jpg", (0xE1, b"Exif\0\0" + body))
    with Image.open(_doubled(tmp_path / "a.jpg", tmp_path / "b.png")) as image:
        assert image.size == (40, 60)
        assert image.getexif().get(274, 1) == 1


def _with_extended_xmp(path: Path, size: int) -> bytes:
    """Add XMP to a JPEG in two parts, the second of ``size`` bytes; return that one's value."""
    value = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    second = RDF % (DC, b"<dc:source>" + value + b"</dc:source>")
    digest = hashlib.md5(second).hexdigest().upper().encode()
    note = b'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="%b" ' % digest
    first = RDF % (note + DC, b"<dc:rights>me</dc:rights>")
    parts = [
        (0xE1, b"http://ns.adobe.com/xmp/extension/\0" + digest
         + struct.pack(">II", len(second), at) + second[at : at + 60_000])
        for at in range(0, len(second), 60_000)
    ]  # fmt: skip
    _insert_segments(path, (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + first), *parts)
    return value


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_extended_xmp_is_whole_in_every_format(picture, tmp_path: Path, suffix: str) -> None:
    """A JPEG's XMP of 200 kB in four segments is one packet elsewhere, and split in a JPEG."""
    Image.fromarray(picture()).save(tmp_path / "a.jpg")
    value = _with_extended_xmp(tmp_path / "a.jpg", 200_000)
    path = _doubled(tmp_path / "a.jpg", tmp_path / f"b{suffix}")
    xmp = read_image(path).metadata.xmp
    assert xmp is not None
    assert xmp.count(value) == 1
    assert xmp.count(b"<dc:rights>me</dc:rights>") == 1
    assert b"HasExtendedXMP" not in xmp
    data = path.read_bytes()
    if suffix == ".jpg":
        digest = data.partition(b'HasExtendedXMP="')[2][:32]
        assert data.count(b"http://ns.adobe.com/xmp/extension/\0" + digest) == 4
    else:
        assert b"HasExtendedXMP" not in data
        assert value in data


def test_xmp_too_large_for_one_segment_is_split_in_a_jpeg(picture, tmp_path: Path) -> None:
    """A PNG's packet of 150 kB: what fits stays in the first part, and both make up the whole."""
    value = b"0123456789abcdef" * 10_000
    xmp = RDF % (DC, b"<dc:rights>me</dc:rights>")
    large = b'<rdf:Description rdf:about="" %b><dc:source>%b</dc:source></rdf:Description>'
    xmp = xmp.replace(b"</rdf:RDF>", large % (DC, value) + b"</rdf:RDF>")
    Image.fromarray(picture()).save(tmp_path / "a.png")
    insert_chunks(tmp_path / "a.png", (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    path = _doubled(tmp_path / "a.png", tmp_path / "b.jpg")
    with Image.open(path) as image:
        assert b"<dc:rights>me</dc:rights>" in image.info["xmp"]
    joined = read_image(path).metadata.xmp
    assert joined is not None
    assert joined.count(value) == joined.count(b"<dc:rights>me</dc:rights>") == 1
    assert read_image(tmp_path / "a.png").metadata.left_out("JPEG") == []


ULTRA_HDR = RDF % (
    b'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" '
    b'xmlns:Container="http://ns.google.com/photos/1.0/container/" '
    b'xmlns:Item="http://ns.google.com/photos/1.0/container/item/" dc:source="me" ' + DC,
    b'<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item '
    b'Item:Semantic="Primary" Item:Mime="image/jpeg"/></rdf:li><rdf:li rdf:parseType="Resource">'
    b'<Container:Item Item:Semantic="GainMap" Item:Mime="image/jpeg" Item:Length="9"/></rdf:li>'
    b"</rdf:Seq></Container:Directory><hdrgm:GainMapMax><rdf:Seq><rdf:li>2</rdf:li></rdf:Seq>"
    b"</hdrgm:GainMapMax>",
)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_a_result_without_gain_map_does_not_claim_one(picture, tmp_path: Path, suffix: str) -> None:
    """Of an Ultra HDR file's XMP all claims go, the rest stays, and the user is told."""
    Image.fromarray(picture()).save(tmp_path / "a.jpg", xmp=ULTRA_HDR)
    path = _doubled(tmp_path / "a.jpg", tmp_path / f"b{suffix}")
    data = path.read_bytes()
    assert not [word for word in (b"hdrgm", b"GainMap", b"Container:Directory") if word in data]
    xmp = read_image(path).metadata.xmp
    assert xmp is not None
    assert b'dc:source="me"' in xmp
    left = read_image(tmp_path / "a.jpg").metadata.left_out("JPEG")
    assert left == ["without the gain map (HDR)"]


def test_a_second_picture_of_a_jpeg_is_named(picture, tmp_path: Path) -> None:
    """A stereo MPO: the result is the first picture, without an index, and the user is told."""
    first, second = Image.fromarray(picture()), Image.fromarray(picture()[::-1].copy())
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    left = read_image(tmp_path / "a.jpg").metadata.left_out("PNG")
    assert left == ["without 1 further picture (MPO)"]
    assert b"MPF\0" not in _doubled(tmp_path / "a.jpg", tmp_path / "b.jpg").read_bytes()


def test_extents_of_panoramas_in_pixels_grow_with_them(picture, tmp_path: Path) -> None:
    """Photo Sphere states lengths in pixels; viewers would show a part of the sphere."""
    namespace = b'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" '
    xmp = RDF % (
        namespace + b'GPano:FullPanoWidthPixels="56" GPano:CroppedAreaTopPixels="7"',
        b"<GPano:FullPanoHeightPixels>40</GPano:FullPanoHeightPixels>",
    )
    Image.fromarray(picture(40, 56)).save(tmp_path / "a.jpg", xmp=xmp)
    data = _doubled(tmp_path / "a.jpg", tmp_path / "b.jpg").read_bytes()
    assert b'GPano:FullPanoWidthPixels="112"' in data
    assert b'GPano:CroppedAreaTopPixels="14"' in data
    assert b"<GPano:FullPanoHeightPixels>80<" in data


REGIONS = (
    b'xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/" '
    b'xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#" '
    b'xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#"'
)
APPLIED = (
    b'<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="56" '
    b'stDim:h="40" stDim:unit="pixel"/><mwg-rs:RegionList><rdf:Bag><rdf:li '
    b'rdf:parseType="Resource"><mwg-rs:Name>Joe</mwg-rs:Name>%b</rdf:li></rdf:Bag>'
    b"</mwg-rs:RegionList></mwg-rs:Regions>"
)
AS_ATTRIBUTES = (
    b"<mwg-rs:Area stArea:x='%b' stArea:y='%b' stArea:w='%b' stArea:h='%b' stArea:unit='%b'/>"
)
AS_ELEMENTS = (
    b'<mwg-rs:Area rdf:parseType="Resource"><stArea:x>%b</stArea:x><stArea:y>%b</stArea:y>'
    b"<stArea:w>%b</stArea:w><stArea:h>%b</stArea:h><stArea:unit>%b</stArea:unit></mwg-rs:Area>"
)


@pytest.mark.parametrize("area", [AS_ATTRIBUTES, AS_ELEMENTS])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_face_regions_turn_with_the_picture(
    picture, tmp_path: Path, orientation: int, area: bytes
) -> None:
    """The centre of a region turns as a pixel does, its extents as the picture's."""
    xmp = RDF % (REGIONS, APPLIED % (area % (b"0.25", b"0.1", b"0.2", b"0.05", b"normalized")))
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(picture(40, 56)).save(tmp_path / "a.jpg", xmp=xmp, exif=exif)
    path = _doubled(tmp_path / "a.jpg", tmp_path / "b.jpg")
    found = (read_image(path).metadata.xmp or b"").decode()
    names = ("stDim:w", "stDim:h", "stArea:x", "stArea:y", "stArea:w", "stArea:h")
    stated = [re.findall(rf"(?<!/)\b{name}[=>][\"']?([\d.]+)", found) for name in names]
    x, y = [
        *((0.25, 0.1), (0.75, 0.1), (0.75, 0.9), (0.25, 0.9)),
        *((0.1, 0.25), (0.9, 0.25), (0.9, 0.75), (0.1, 0.75)),
    ][orientation - 1]
    sides = (80, 112, x, y, 0.05, 0.2) if orientation >= 5 else (112, 80, x, y, 0.2, 0.05)
    assert [[float(value) for value in values] for values in stated] == [[side] for side in sides]


def test_regions_that_cannot_be_turned_are_removed_and_named(picture, tmp_path: Path) -> None:
    """Areas in pixels, Microsoft's regions and panoramas go from a turned picture, else stay."""
    area = AS_ELEMENTS % (b"25", b"10", b"20", b"5", b"pixel")
    declared = REGIONS + (
        b' xmlns:MP="http://ns.microsoft.com/photo/1.2/"'
        b' xmlns:GPano="http://ns.google.com/photos/1.0/panorama/"'
        b' GPano:FullPanoWidthPixels="56"'
    )
    microsoft = b"<MP:RegionInfo><rdf:Description/></MP:RegionInfo><dc:rights>me</dc:rights>"
    xmp = RDF % (DC + b" " + declared, APPLIED % area + microsoft)
    for orientation in (1, 3, 6):
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(picture(40, 56)).save(tmp_path / "a.jpg", xmp=xmp, exif=exif)
        metadata = read_image(tmp_path / "a.jpg").metadata
        kept = [name in (metadata.xmp or b"") for name in (b"<mwg-rs:", b"<MP:", b" GPano:", b"me")]
        assert kept == [orientation == 1] * 3 + [True]
        assert metadata.left_out("JPEG") == [
            "without face regions (Microsoft)",
            "without the extents of a panorama",
            "without face regions",
        ] * (orientation != 1)


# Lossless WebP


def test_a_lossless_webp_gives_a_lossless_one(tmp_path: Path) -> None:
    """Red beside blue survives to the level; a lossy source stays lossy, unless asked."""
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:, ::2], pixels[:, 1::2] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True)
    Image.fromarray(pixels).save(tmp_path / "b.webp")
    lossless = _doubled(tmp_path / "a.webp", tmp_path / "c.webp")
    np.testing.assert_array_equal(read_image(lossless).pixels, pixels.repeat(2, 0).repeat(2, 1))
    assert b"VP8L" in lossless.read_bytes()
    assert b"VP8L" not in _doubled(tmp_path / "b.webp", tmp_path / "d.webp").read_bytes()
    assert (
        b"VP8L" not in _doubled(tmp_path / "a.webp", tmp_path / "e.webp", quality=80).read_bytes()
    )
    assert b"VP8L" in _doubled(tmp_path / "b.webp", tmp_path / "f.webp", quality=100).read_bytes()


def test_premultiplied_avif_is_read_straight(tmp_path: Path) -> None:
    """Where an AVIF says that colour is multiplied by opacity, it is divided by it again."""
    pixels = np.full((16, 16, 4), (120, 60, 20, 128), np.uint8)
    pixels[:, 8:, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.avif", quality=100, subsampling="4:4:4")
    straight = read_image(tmp_path / "a.avif").pixels
    assert np.abs(straight[8, 2].astype(int) - (120, 60, 20, 128)).max() <= 2
    _mark_as_premultiplied(tmp_path / "a.avif")
    pixels = read_image(tmp_path / "a.avif").pixels
    # An error of 2 levels is 4 after dividing by an opacity of a half.
    assert np.abs(pixels[8, 2].astype(int) - (239, 120, 40, 128)).max() <= 4
    np.testing.assert_array_equal(pixels[8, 12], straight[8, 12])


def test_pixels_of_an_avif_that_are_not_square_are_kept_or_named(picture, tmp_path: Path) -> None:
    """The ratio of densities of pixels twice as wide as high is in a PNG; an AVIF lacks it."""
    Image.fromarray(picture()).save(tmp_path / "a.avif")
    data = (tmp_path / "a.avif").read_bytes()
    # Both boxes have 16 bytes.
    at = data.index(b"pixi")
    (tmp_path / "a.avif").write_bytes(
        data[:at] + struct.pack(">4sII", b"pasp", 2, 1) + data[at + 12 :]
    )
    metadata = read_image(tmp_path / "a.avif").metadata
    assert metadata.left_out("AVIF") == ["without the shape of pixels"]
    found = dict(chunks_of(_doubled(tmp_path / "a.avif", tmp_path / "b.png")))
    assert found[b"pHYs"] == struct.pack(">IIB", 1, 2, 0)


def _mark_as_premultiplied(path: Path) -> None:
    """Add the reference by which an AVIF says so, and move what the file points to behind it."""
    data = bytearray(path.read_bytes())
    colour, opacity = 1, 2
    reference = struct.pack(">I4sHHH", 14, b"prem", colour, 1, opacity)
    meta, iref, iloc = (data.index(kind) - 4 for kind in (b"meta", b"iref", b"iloc"))
    (count,) = struct.unpack_from(">H", data, iloc + 14)
    assert data[iloc + 8 : iloc + 14] == b"\0\0\0\0\x44\0"  # version 0, numbers of 32 bits
    for entry in range(iloc + 16, iloc + 16 + 14 * count, 14):
        (offset,) = struct.unpack_from(">I", data, entry + 6)
        struct.pack_into(">I", data, entry + 6, offset + len(reference))
    for box in (meta, iref):
        (length,) = struct.unpack_from(">I", data, box)
        struct.pack_into(">I", data, box, length + len(reference))
    end = iref + struct.unpack_from(">I", data, iref)[0] - len(reference)
    path.write_bytes(data[:end] + reference + data[end:])
