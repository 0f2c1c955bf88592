"""TIFF files: what their channels mean, and what their tags say of the result."""

import json
from pathlib import Path

import numpy as np
import pytest

from escsr.errors import ImageFormatError, ImageReadError
from escsr.images.files import SourceImage, probe_image, read_image
from escsr.images.writer import check_output, write_image
from tests.images.tiff_bytes import (
    DOUBLE,
    LONG,
    RATIONAL,
    SHORT,
    TEXT,
    Value,
    directory,
    tags_of,
    tiff_bytes,
)

EXTRA_SAMPLES, DESCRIPTION, ORIENTATION = 338, 270, 274
PIXEL_SCALE, TIE_POINTS, TRANSFORMATION, GEO_KEYS = 33550, 33922, 34264, 34735
DATA, PREMULTIPLIED, STRAIGHT = 0, 1, 2


def _source(
    tmp_path: Path, pixels: np.ndarray, *tags: Value, photometric: int | None = None
) -> Path:
    path = tmp_path / "source.tif"
    path.write_bytes(tiff_bytes(pixels, *tags, photometric=photometric))
    return path


def _enlarged(source: SourceImage, path: Path, *, x: int = 2, y: int = 2) -> Path:
    """Write every pixel ``x`` times ``y`` times, as a network that changes nothing would."""
    pixels = source.pixels.repeat(y, axis=0).repeat(x, axis=1)
    write_image(path, pixels, metadata=source.metadata, overwrite=True)
    return path


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("channels", [2, 4])
def test_the_channel_beside_the_colours_is_what_extra_samples_says(
    picture, tmp_path: Path, channels: int, bit_depth: int
) -> None:
    """Data stay data, also where nothing is said; opacity stays opacity; results say the same."""
    pixels = picture(channels=channels, bit_depth=bit_depth)
    said: list[tuple[tuple[Value, ...], str, int]] = [
        ((), "data", DATA),
        (((EXTRA_SAMPLES, SHORT, DATA),), "data", DATA),
        (((EXTRA_SAMPLES, SHORT, 999),), "data", DATA),
        (((EXTRA_SAMPLES, SHORT, STRAIGHT),), "alpha", STRAIGHT),
    ]
    for tags, meaning, label in said:
        path = _source(tmp_path, pixels, *tags)
        source = read_image(path)
        assert source.extra == probe_image(path).extra == meaning
        assert source.has_alpha == (meaning == "alpha")
        np.testing.assert_array_equal(source.pixels, pixels)
        result = _enlarged(source, tmp_path / "result.tif")
        assert tags_of(result)[EXTRA_SAMPLES] == [(label,)]
        np.testing.assert_array_equal(read_image(result).pixels[::2, ::2], pixels)


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_of_four_channels_of_grey_the_last_is_what_its_entry_says(
    picture, tmp_path: Path, bit_depth: int
) -> None:
    """RGB and another, as GDAL writes them, keep their label; opacity before them is refused."""
    pixels = picture(channels=4, bit_depth=bit_depth)
    for entry, meaning, label in ((0, "data", DATA), (2, "alpha", STRAIGHT)):
        extra: Value = (EXTRA_SAMPLES, SHORT, (0, 0, entry))
        source = read_image(_source(tmp_path, pixels, extra, photometric=1))
        assert source.extra == meaning
        np.testing.assert_array_equal(source.pixels, pixels)
        assert tags_of(_enlarged(source, tmp_path / "result.tif"))[EXTRA_SAMPLES] == [(label,)]
    for channels, entries in ((4, (2, 0, 0)), (4, (0, 1, 2)), (3, (0, 2)), (3, (2, 0))):
        extra = (EXTRA_SAMPLES, SHORT, entries)
        path = _source(tmp_path, picture(channels=channels), extra, photometric=1)
        with pytest.raises(ImageReadError, match="grey with opacity"):
            read_image(path)
    with pytest.raises(ImageReadError, match="0 is white"):
        read_image(_source(tmp_path, picture(channels=3), photometric=0))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colours", [1, 3])
def test_premultiplied_colour_is_made_straight_and_put_back(
    tmp_path: Path, colours: int, dtype: type[np.unsignedinteger]
) -> None:
    """Division by opacity is rounded to the nearest level, and undone to the same file."""
    peak = int(np.iinfo(dtype).max)
    rng = np.random.default_rng(3)
    alpha = rng.integers(0, peak + 1, (64, 64, 1))
    stored = np.floor(rng.random((64, 64, colours)) * (alpha + 0.999)).astype(np.int64)
    pixels = np.concatenate((stored, alpha), axis=2).astype(dtype)
    path = _source(tmp_path, pixels, (EXTRA_SAMPLES, SHORT, PREMULTIPLIED))
    source = read_image(path)
    exact = np.where(alpha > 0, stored * peak / np.maximum(alpha, 1), 0)
    assert np.abs(source.pixels[..., :-1] - exact).max() <= 0.5
    assert not source.metadata.notes
    np.testing.assert_array_equal(source.pixels[..., -1:], alpha)
    result = _enlarged(source, tmp_path / "result.tif", x=1, y=1)
    assert tags_of(result)[EXTRA_SAMPLES] == [(PREMULTIPLIED,)]
    again = read_image(result)
    np.testing.assert_array_equal(again.pixels, source.pixels)
    png = read_image(_enlarged(source, tmp_path / "result.png", x=1, y=1))
    np.testing.assert_array_equal(png.pixels, source.pixels)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("channels", "entries"), [(2, (1,)), (4, (1,)), (4, (0, 0, 1))])
def test_glow_that_straight_opacity_cannot_hold_is_named(
    tmp_path: Path,
    dtype: type[np.unsignedinteger],
    channels: int,
    entries: tuple[int, ...],
    order: str,
) -> None:
    """Premultiplied colours above their opacity are cut to it, and results of any format say so."""
    level = int(np.iinfo(dtype).max) // 255
    path = tmp_path / "source.tif"
    for alpha in (0, 20):
        for excess in (1, 2):
            pixels = np.full((9, 9, channels), alpha * level, dtype)
            pixels[4, 4, 0] += excess * level
            tags: tuple[Value, ...] = ((EXTRA_SAMPLES, SHORT, entries),)
            kind = 1 if len(entries) > 1 or channels == 2 else 2
            path.write_bytes(tiff_bytes(pixels, *tags, photometric=kind, order=order))
            source = read_image(path)
            assert source.metadata.extra_sample == "premultiplied"
            assert (source.pixels[..., :-1] == (255 * level if alpha else 0)).all()
            assert (source.pixels[..., -1] == alpha * level).all()
            for form in ("PNG", "TIFF", "WebP"):
                named = any("glow" in said for said in source.metadata.left_out(form))
                assert named == (excess == 2)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".avif", ".jpg"])
def test_data_are_not_written_as_transparency(picture, tmp_path: Path, suffix: str) -> None:
    """A format whose fourth channel is opacity refuses a channel of data, before the work too."""
    source = read_image(_source(tmp_path, picture(channels=4)))
    path = tmp_path / f"result{suffix}"
    with pytest.raises(ImageFormatError, match="ExtraSamples"):
        _enlarged(source, path)
    with pytest.raises(ImageFormatError, match="ExtraSamples"):
        check_output(path, width=9, height=9, channels=4, bit_depth=8, extra="data")
    assert not path.exists()


@pytest.mark.parametrize(
    ("photometric", "tags", "told"),
    [
        (6, (), "YCbCr"),
        (8, (), "CIELAB"),
        (9, (), "ICC Lab"),
        (10, (), "ITU Lab"),
        (32845, (), "LogLuv"),
        (34892, (), "linear raw"),
        (777, (), "photometric 777"),
        (5, ((332, SHORT, 2),), "inks other than CMYK"),
        (5, ((334, SHORT, 3),), "inks other than CMYK"),
    ],
)
def test_colour_spaces_that_are_not_read_are_named(
    picture, tmp_path: Path, photometric: int, tags: tuple[Value, ...], told: str
) -> None:
    """Channels of Lab, YCbCr or other inks are not taken for red, green and blue."""
    for bit_depth in (8, 16):
        pixels = picture(channels=4 if photometric == 5 else 3, bit_depth=bit_depth)
        path = _source(tmp_path, pixels, *tags, photometric=photometric)
        for refuse in (probe_image, read_image):
            with pytest.raises(ImageReadError, match=told):
                refuse(path)


@pytest.mark.parametrize("photometric", [0, 1, 2])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_separate_planes_are_read_right_or_refused(
    picture, tmp_path: Path, channels: int, photometric: int
) -> None:
    """Planes of RGB are put together; of grey those of one row per strip, and others refused."""
    if photometric == 2 and channels == 2:
        return
    for bit_depth in (8, 16):
        pixels = picture(24, 16, channels=channels, bit_depth=bit_depth)
        planes = np.moveaxis(pixels, 2, 0).reshape(24, 16, channels)
        for rows in (1, 7, 24):
            # Every row is one strip, or the last strip of a plane is a shorter one.
            sizes = [min(rows, 24 - top) for top in range(0, 24, rows)] * channels
            lengths = tuple(16 * bit_depth // 8 * size for size in sizes)
            starts = tuple(8 + sum(lengths[:k]) for k in range(len(lengths)))
            tags: list[Value] = [(278, LONG, rows), (284, SHORT, 2)]
            tags += [(273, LONG, starts), (279, LONG, lengths)]
            path = _source(tmp_path, planes, *tags, photometric=photometric)
            if photometric != 2 and rows > 1:
                for refuse in (probe_image, read_image):
                    with pytest.raises(ImageReadError, match="separate planes of grey"):
                        refuse(path)
            elif photometric > 0:
                np.testing.assert_array_equal(read_image(path).pixels, pixels)


def test_separate_planes_in_tiles_are_refused(picture, tmp_path: Path) -> None:
    """They are named before any pixel is decoded."""
    places: list[Value] = [(324, LONG, (8, 136, 264)), (325, LONG, (512,) * 3)]
    tags: list[Value] = [(284, SHORT, 2), (322, LONG, 16), (323, LONG, 32), *places]
    with pytest.raises(ImageReadError, match="separate planes in tiles"):
        probe_image(_source(tmp_path, picture(24, 16), *tags))


def _two_pages(pixels: np.ndarray, first: tuple[Value, ...], second: tuple[Value, ...]) -> bytes:
    """A picture and, in the place of its first strip, another page of 8x8."""
    data = bytearray(tiff_bytes(pixels, *first))
    at = len(data)
    grey: tuple[Value, ...] = ((258, SHORT, 8), (262, SHORT, 1), (277, SHORT, 1), (279, LONG, 64))
    sizes: tuple[Value, ...] = ((256, LONG, 8), (257, LONG, 8), (273, LONG, 8), (278, LONG, 8))
    data += directory(sorted([*grey, *sizes, *second]), at)
    # The offset of the next directory stands behind the entries of the first.
    start = int.from_bytes(data[4:8], "little")
    where = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    data[where : where + 4] = at.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize("kind", [(254, LONG, 1), (254, LONG, 4), (254, LONG, 5), (255, SHORT, 2)])
def test_masks_and_smaller_copies_are_no_second_picture(
    picture, tmp_path: Path, kind: Value
) -> None:
    """A file with overviews or a transparency mask, as GDAL writes it, is one picture."""
    path = tmp_path / "source.tif"
    path.write_bytes(_two_pages(picture(), (), (kind,)))
    np.testing.assert_array_equal(read_image(path).pixels, picture())
    path.write_bytes(_two_pages(picture(), (kind,), ()))
    with pytest.raises(ImageReadError, match="smaller copy or a mask"):
        read_image(path)
    path.write_bytes(_two_pages(picture(), (), ((254, LONG, 2),)))
    with pytest.raises(ImageReadError, match="2 frames or pages"):
        read_image(path)


GEO_TAGS: tuple[Value, ...] = (
    (PIXEL_SCALE, DOUBLE, (10.0, 10.0, 0.0)),
    (TIE_POINTS, DOUBLE, (0.0, 0.0, 0.0, 500_000.0, 5_200_000.0, 0.0)),
    (GEO_KEYS, SHORT, (1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, 1)),
    (34737, TEXT, "WGS 84 / UTM zone 32N|"),
    (42112, TEXT, "<GDALMetadata></GDALMetadata>"),
    (42113, TEXT, "-9999"),
)


def test_places_on_earth_are_brought_to_the_pixels_of_the_result(picture, tmp_path: Path) -> None:
    """Pixels of 10 m become pixels of 5 m by 2.5 m over the same ground, and all else stays."""
    source = read_image(_source(tmp_path, picture(), *GEO_TAGS))
    tags = tags_of(_enlarged(source, tmp_path / "result.tif", x=2, y=4))
    assert tags[PIXEL_SCALE] == [(5.0, 2.5, 0.0)]
    for number, _, value in GEO_TAGS[1:]:
        assert tags[number] == [value]


def test_tie_points_count_in_pixels_of_the_result(picture, tmp_path: Path) -> None:
    """A corner keeps its place, and so does the centre of a pixel where coordinates mean centres.

    Enlarged by 2, the corner (3, 5) becomes (6, 10); the centre (3, 5), 3.5 and 5.5 pixels from the
    picture's corner, becomes 7 and 11 pixels from it, which is (6.5, 10.5) from the first centre.
    """
    for raster_type, expected in ((1, (6.0, 10.0)), (2, (6.5, 10.5))):
        keys = (1, 1, 0, 1, 1025, 0, 1, raster_type)
        points = (3.0, 5.0, 0.0, 7.0, 8.0, 0.0)
        tags: tuple[Value, ...] = ((GEO_KEYS, SHORT, keys), (TIE_POINTS, DOUBLE, points))
        source = read_image(_source(tmp_path, picture(), *tags))
        written = tags_of(_enlarged(source, tmp_path / "result.tif"))[TIE_POINTS]
        assert written == [(*expected, 0.0, 7.0, 8.0, 0.0)]


@pytest.mark.parametrize("raster_type", [1, 2])
def test_transformations_lead_to_the_same_places(picture, tmp_path: Path, raster_type: int) -> None:
    """The corners of the picture stand where they stood, under a turned and sheared grid."""
    matrix = np.array([[9, 2, 0, 100], [-1, -8, 0, 200], [0, 0, 0, 0], [0, 0, 0, 1]], float)
    keys = (1, 1, 0, 1, 1025, 0, 1, raster_type)
    tags: tuple[Value, ...] = (
        (GEO_KEYS, SHORT, keys),
        (TRANSFORMATION, DOUBLE, tuple(matrix.ravel())),
    )
    source = read_image(_source(tmp_path, picture(40, 56), *tags))
    (written,) = tags_of(_enlarged(source, tmp_path / "result.tif", x=2, y=3))[TRANSFORMATION]
    finer = np.array(written, float).reshape(4, 4)
    # Raster coordinates of a corner: half a pixel less where they count from centres.
    half = 0.5 if raster_type == 2 else 0.0
    for x, y in ((0, 0), (56, 0), (0, 40), (56, 40)):
        before = matrix @ (x - half, y - half, 0, 1)
        after = finer @ (2 * x - half, 3 * y - half, 0, 1)
        np.testing.assert_allclose(after, before, atol=1e-9)


def test_lost_places_on_earth_are_named(picture, tmp_path: Path) -> None:
    """A turned picture and other formats lose them, and say so; other results do not."""
    source = read_image(_source(tmp_path, picture(), *GEO_TAGS))
    assert not source.metadata.left_out("TIFF")
    for form in ("PNG", "JPEG", "WebP", "AVIF"):
        assert any("GeoTIFF" in said for said in source.metadata.left_out(form))
    turned = read_image(_source(tmp_path, picture(), (ORIENTATION, SHORT, 6), *GEO_TAGS))
    assert any("turned" in said for said in turned.metadata.left_out("TIFF"))
    assert PIXEL_SCALE not in tags_of(_enlarged(turned, tmp_path / "result.tif"))
    assert not read_image(_source(tmp_path, picture())).metadata.left_out("PNG")


def test_sizes_in_descriptions_are_those_of_the_result(picture, tmp_path: Path) -> None:
    """Shapes that tifffile writes are corrected, or go; text beside them stays; OME's sizes fit."""
    shape = json.dumps({"shape": [40, 56, 3], "axes": "YXS"})
    both: tuple[Value, ...] = ((DESCRIPTION, TEXT, "A letter"), (DESCRIPTION, TEXT, shape))
    source = read_image(_source(tmp_path, picture(40, 56), *both))
    first, second = tags_of(_enlarged(source, tmp_path / "result.tif", x=2, y=3))[DESCRIPTION]
    assert first == "A letter"
    assert json.loads(str(second)) == {"shape": [120, 112, 3], "axes": "YXS"}
    stale = (DESCRIPTION, TEXT, '{"shape": [7, 7]}')
    source = read_image(_source(tmp_path, picture(40, 56), stale))
    assert DESCRIPTION not in tags_of(_enlarged(source, tmp_path / "result.tif"))
    pixels = '<Pixels SizeX="56" SizeY="40" PhysicalSizeX="0.5" PhysicalSizeY="0.5" SizeC="3"/>'
    source = read_image(
        _source(tmp_path, picture(40, 56), (DESCRIPTION, TEXT, f"<OME>{pixels}</OME>"))
    )
    (written,) = tags_of(_enlarged(source, tmp_path / "result.tif"))[DESCRIPTION]
    finer = '<Pixels SizeX="112" SizeY="80" PhysicalSizeX="0.25" PhysicalSizeY="0.25" SizeC="3"/>'
    assert written == f"<OME>{finer}</OME>"


@pytest.mark.parametrize("description", ["A letter", '{"shape": [40, 56, 3]}'])
def test_other_formats_get_descriptions_but_no_shapes(
    picture, tmp_path: Path, description: str
) -> None:
    """Text of people goes into EXIF; the shape of an array, which would be wrong, does not."""
    source = read_image(_source(tmp_path, picture(40, 56), (DESCRIPTION, TEXT, description)))
    result = _enlarged(source, tmp_path / "result.png").read_bytes()
    assert (b"A letter" in result) == (description == "A letter")
    assert b"shape" not in result


def test_scales_of_imagej_are_brought_to_the_pixels_of_the_result(picture, tmp_path: Path) -> None:
    """4 pixels per micrometre become 8; a print resolution stays what it is."""
    ratios: tuple[Value, ...] = ((282, RATIONAL, (4, 1)), (283, RATIONAL, (4, 1)))
    imagej = (DESCRIPTION, TEXT, "ImageJ=1.54\nunit=micron\n")
    source = read_image(_source(tmp_path, picture(), *ratios, (296, SHORT, 1), imagej))
    tags = tags_of(_enlarged(source, tmp_path / "result.tif"))
    assert tags[282] == tags[283] == [(8, 1)]
    assert tags[296] == [(1,)]
    source = read_image(_source(tmp_path, picture(), *ratios, (296, SHORT, 2)))
    (numerator, denominator) = tags_of(_enlarged(source, tmp_path / "result.tif"))[282][0]
    assert float(numerator) == 4 * float(denominator)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_of_archives_are_kept(picture, tmp_path: Path, order: str) -> None:
    """Names of documents and pages, scanners and printers, and stated colour reach a TIFF."""
    texts = {269: "Box 7", 271: "Epson", 285: "leaf 12 recto", 315: "J. S.", 316: "scanner-3"}
    texts |= {305: "scan 1.0", 306: "1998:01:02 03:04:05", 337: "none", 33432: "(c) Archive"}
    white = (3127, 10_000, 329, 1000)
    tags: list[Value] = [(number, TEXT, text) for number, text in texts.items()]
    path = tmp_path / "source.tif"
    path.write_bytes(tiff_bytes(picture(), *tags, (318, RATIONAL, white), order=order))
    written = tags_of(_enlarged(read_image(path), tmp_path / "result.tif"))
    assert {number: written[number][0] for number in texts} == texts
    assert written[318] == [white]
    assert not {282, 283, 296} & written.keys()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, LONG])
def test_iptc_is_the_bytes_of_its_tag(picture, tmp_path: Path, kind: int, order: str) -> None:
    """Declared as bytes or as 32-bit numbers, of either byte order, beside other resources too."""
    iptc = b"\x1c\x02\x5a\0\x07K\xc3\xb6ln 2\0\0\0\0"
    numbers = np.frombuffer(iptc, "u1" if kind == 1 else order + "u4").tolist()
    resource = b"8BIM\x04\x0a\0\0\0\0\0\x01\x01\0"
    path = tmp_path / "source.tif"
    for others in ((), ((34377, 1, tuple(resource)),)):
        tags: list[Value] = [(33723, kind, tuple(numbers)), *others]
        path.write_bytes(tiff_bytes(picture(), *tags, order=order))
        written = tags_of(_enlarged(read_image(path), tmp_path / "result.tif"))
        assert written[33723] == [tuple(iptc)]
        carried = bytes(map(int, written[34377][0]))
        assert carried.startswith(resource) == bool(others)
        assert iptc in carried
