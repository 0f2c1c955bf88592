"""Colour profile, EXIF, XMP, IPTC and resolution travel from source to result."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import pyvips
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational

from escsr.images.exif import (
    exif_of_tiff,
    finish_tiff,
    settled_exif,
    sized_exif,
    stated_orientation,
)
from escsr.images.files import ImageMetadata, read_image
from escsr.images.writer import ImageWriter, write_image

MAKE, ORIENTATION, DATE, COPYRIGHT = 271, 274, 306, 33432
SETTINGS, PLACE, EXPOSURE, PIXEL_X, PIXEL_Y, LENS = 34665, 34853, 33434, 40962, 40963, 42036
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" '
    b'exif:PixelXDimension="56"><exif:PixelYDimension>40</exif:PixelYDimension>'
    b"<dc:rights>\xc2\xa9 me</dc:rights></rdf:Description></x:xmpmeta>"
)
IPTC = b"8BIM\x04\x04\0\0\0\0\0\x0a\x1c\x02\x78\0\x05hello"


def _grey_profile() -> bytes:
    """Write the smallest profile that describes grey with a gamma of 1."""
    curve = b"curv" + bytes(4) + struct.pack(">I", 0)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    body = struct.pack(">I", 2) + b"kTRC" + struct.pack(">II", 156, 12)
    body += b"wtpt" + struct.pack(">II", 168, 20) + curve + white
    head = struct.pack(">I4s", 128 + len(body), bytes(4)) + b"\x02\x40\0\0mntrGRAYXYZ " + bytes(12)
    head += b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + body


@pytest.fixture
def camera_file(picture, tmp_path: Path) -> Path:
    """A JPEG as a camera writes it: turned, with exposure, place, XMP, IPTC and a profile."""
    exif = Image.Exif()
    exif[MAKE], exif[ORIENTATION], exif[COPYRIGHT] = "Maker", 6, "me"
    exif[DATE] = "2024:05:06 07:08:09"
    settings = exif.get_ifd(SETTINGS)
    settings[EXPOSURE], settings[PIXEL_X], settings[PIXEL_Y] = IFDRational(1, 250), 56, 40
    settings[LENS] = "A lens with a name longer than four bytes"
    exif.get_ifd(PLACE)[1] = "N"
    exif.get_ifd(PLACE)[2] = (48.0, 8.0, 30.5)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "camera.jpg"
    image = Image.fromarray(picture())
    image.save(path, exif=exif, xmp=XMP, icc_profile=icc, dpi=(300, 300), quality=95)
    data = path.read_bytes()
    segment = b"Photoshop 3.0\0" + IPTC
    marker = b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment
    path.write_bytes(data[:2] + marker + data[2:])
    return path


def _exif(path: Path) -> Image.Exif:
    with Image.open(path) as image:
        exif = image.getexif()
        exif.get_ifd(SETTINGS)
        exif.get_ifd(PLACE)
        exif.get_ifd(INTEROPERABILITY)
        return exif


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_everything_travels_to_every_format(camera_file: Path, tmp_path: Path, suffix: str) -> None:
    """An independent reader finds camera, date, exposure, lens and place, and the new size."""
    source = read_image(camera_file)
    height, width = 2 * source.height, 2 * source.width
    path = tmp_path / f"big{suffix}"
    doubled = source.pixels.repeat(2, axis=0).repeat(2, axis=1)
    write_image(path, doubled, metadata=source.metadata)
    exif = _exif(path)
    assert (exif[MAKE], exif[COPYRIGHT], exif[DATE]) == ("Maker", "me", "2024:05:06 07:08:09")
    assert exif.get(ORIENTATION, 1) == 1
    settings, place = exif.get_ifd(SETTINGS), exif.get_ifd(PLACE)
    assert float(settings[EXPOSURE]) == pytest.approx(1 / 250)
    assert settings[LENS] == "A lens with a name longer than four bytes"
    assert (settings[PIXEL_X], settings[PIXEL_Y]) == (width, height) == (80, 112)
    assert [float(value) for value in place[2]] == pytest.approx([48, 8, 30.5])
    again = read_image(path)
    assert (again.width, again.height) == (width, height)
    assert again.metadata.icc_profile == source.metadata.icc_profile
    assert again.metadata.pixels_per_mm == pytest.approx((300 / 25.4, 300 / 25.4), rel=1e-3)
    xmp = again.metadata.xmp or b""
    assert b'tiff:Orientation="1"' in xmp
    assert b'exif:PixelXDimension="80"' in xmp
    assert b"<exif:PixelYDimension>112<" in xmp
    assert b"\xc2\xa9 me" in xmp


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_iptc_travels_where_the_format_has_a_place(
    camera_file: Path, tmp_path: Path, suffix: str
) -> None:
    """JPEG and TIFF hold IPTC, each in its own wrapping."""
    source = read_image(camera_file)
    assert source.metadata.photoshop == IPTC
    path = tmp_path / f"out{suffix}"
    write_image(path, source.pixels, metadata=source.metadata)
    assert read_image(path).metadata.photoshop == IPTC
    with Image.open(path) as image:
        tags = {} if suffix == ".jpg" else image.tag_v2  # pyright: ignore
        carried = tags[34377] if tags else image.info["photoshop"]
        assert b"hello" in (carried[0x0404] if isinstance(carried, dict) else carried)
        if suffix == ".tif":
            # Programs other than Photoshop look for IPTC in a tag of its own.
            assert tags[33723].startswith(IPTC[12:])


def test_the_size_tags_tell_the_final_size(camera_file: Path, tmp_path: Path) -> None:
    """With target_size, EXIF tells the size of the file and not of the rows."""
    source = read_image(camera_file)
    for suffix in (".jpg", ".tif"):
        path = tmp_path / f"small{suffix}"
        with ImageWriter(
            path,
            width=source.width,
            height=source.height,
            channels=3,
            bit_depth=8,
            metadata=source.metadata,
            target_size=(20, 28),
        ) as writer:
            writer.write_rows(source.pixels)
        settings = _exif(path).get_ifd(SETTINGS)
        assert (settings[PIXEL_X], settings[PIXEL_Y]) == (20, 28)


def test_a_tiff_keeps_its_exif(camera_file: Path, tmp_path: Path) -> None:
    """EXIF that went into a TIFF comes out of it again, which libvips alone would lose."""
    source = read_image(camera_file)
    write_image(tmp_path / "a.tif", source.pixels, metadata=source.metadata)
    middle = read_image(tmp_path / "a.tif")
    write_image(tmp_path / "b.jpg", middle.pixels, metadata=middle.metadata)
    exif = _exif(tmp_path / "b.jpg")
    assert exif[MAKE] == "Maker"
    assert exif.get_ifd(SETTINGS)[LENS].startswith("A lens")
    assert exif.get_ifd(PLACE)[1] == "N"


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["little", "big"])
def test_exif_is_added_to_tiffs_of_every_layout(
    picture, camera_file: Path, tmp_path: Path, big: bool, order: str
) -> None:
    """Classic and BigTIFF take an EXIF block of either byte order, and stay readable."""
    path = tmp_path / "a.tif"
    pixels = picture()
    pyvips.Image.new_from_array(pixels, interpretation="srgb").tiffsave(str(path), bigtiff=big)
    exif = Image.Exif()
    exif.endian = "<" if order == "little" else ">"
    exif[MAKE] = "Maker"
    exif.get_ifd(SETTINGS)[EXPOSURE] = IFDRational(1, 250)
    with path.open("r+b") as stream:
        finish_tiff(
            stream, b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0"), width=56, height=40
        )
    read = _exif(path)
    assert read[MAKE] == "Maker"
    assert float(read.get_ifd(SETTINGS)[EXPOSURE]) == pytest.approx(1 / 250)
    assert read.get_ifd(SETTINGS)[PIXEL_X] == 56
    np.testing.assert_array_equal(read_image(path).pixels, pixels)


@given(st.binary(max_size=200), st.booleans())
def test_broken_exif_does_no_harm(noise: bytes, headed: bool) -> None:
    """Any bytes may stand where EXIF should: no error, and a TIFF stays as it was."""
    exif = (b"Exif\0\0II*\0\x08\0\0\0" if headed else b"") + noise
    settled = settled_exif(exif)
    assert settled is None or stated_orientation(settled) in (1, None)
    exif_of_tiff(io.BytesIO(exif.removeprefix(b"Exif\0\0")))


def test_without_metadata_nothing_is_made_up(picture, tmp_path: Path) -> None:
    """A result without a source's metadata has no profile, XMP or place."""
    for suffix in (".jpg", ".png", ".tif", ".webp"):
        write_image(tmp_path / f"a{suffix}", picture())
        metadata = read_image(tmp_path / f"a{suffix}").metadata
        assert (metadata.icc_profile, metadata.xmp, metadata.photoshop) == (None, None, None)


def test_a_profile_that_does_not_fit_is_left_out(picture, tmp_path: Path) -> None:
    """A grey profile says nothing about RGB pixels, and an RGB one nothing about grey."""
    rgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, channels in ((rgb, 1), (_grey_profile(), 3)):
        for suffix in (".png", ".jpg", ".tif"):
            path = tmp_path / f"{channels}{suffix}"
            write_image(
                path, picture(channels=channels), metadata=ImageMetadata(icc_profile=profile)
            )
            assert read_image(path).metadata.icc_profile is None


def test_a_grey_profile_stays_with_grey(picture, tmp_path: Path) -> None:
    """PNG, JPEG and TIFF keep it; WebP, which knows no grey, gets converted RGB."""
    pixels = picture(channels=1, noise=0)
    metadata = ImageMetadata(icc_profile=_grey_profile())
    for suffix in (".png", ".jpg", ".tif"):
        write_image(tmp_path / f"a{suffix}", pixels, metadata=metadata)
        read = read_image(tmp_path / f"a{suffix}")
        assert read.is_grey
        assert read.metadata.icc_profile == metadata.icc_profile
    write_image(tmp_path / "a.webp", pixels, metadata=metadata)
    read = read_image(tmp_path / "a.webp")
    assert (read.metadata.icc_profile or b"")[16:20] == b"RGB "
    # The profile is linear: a level of 100 of 255 is 168 in sRGB.
    linear = pixels.astype(float) / 255
    expected = 255 * np.where(linear < 0.0031, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(read.pixels.astype(float) - expected).mean() < 3


RATING, HOST, IMAGE_NUMBER, XP_TITLE, INTEROPERABILITY = 18246, 316, 37393, 40091, 40965
TITLE = "Title é".encode("utf-16-le") + b"\0\0"


def _rich_exif(*, endian: str = "<") -> bytes:
    """An EXIF block with tags that few libraries know, a maker note and Adobe RGB by DCF's rule."""
    exif = Image.Exif()
    exif.endian = endian
    exif[MAKE], exif[RATING], exif[HOST], exif[IMAGE_NUMBER] = "Maker", 4, "host", 77
    exif[XP_TITLE] = TITLE
    settings = exif.get_ifd(SETTINGS)
    settings[37500] = b"MakerX\0" + bytes(range(200))
    settings[37510] = b"UNICODE\0" + "a tree é中".encode("utf-16-be")
    settings[36881], settings[37521] = "+02:00", "123"
    settings[INTEROPERABILITY] = {1: "R03"}
    return b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_tags_that_few_libraries_know_arrive(
    picture, tmp_path: Path, suffix: str, endian: str
) -> None:
    """Rating, host, Windows titles, maker note, time zone and R03 have the values that they had."""
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=_rich_exif(endian=endian))
    source = read_image(tmp_path / "a.jpg")
    write_image(tmp_path / f"b{suffix}", source.pixels, metadata=source.metadata)
    exif = _exif(tmp_path / f"b{suffix}")
    assert (exif[MAKE], exif[RATING], exif[HOST], exif[IMAGE_NUMBER]) == ("Maker", 4, "host", 77)
    assert bytes(exif[XP_TITLE]) == TITLE
    settings = exif.get_ifd(SETTINGS)
    assert settings[37500] == b"MakerX\0" + bytes(range(200))
    assert settings[37510] == b"UNICODE\0" + "a tree é中".encode("utf-16-be")
    assert (settings[36881], settings[37521]) == ("+02:00", "123")
    assert exif.get_ifd(INTEROPERABILITY)[1].rstrip("\0") == "R03"


SUBJECT_AREA, SUBJECT_LOCATION, FOCAL_X, FOCAL_Y = 37396, 41492, 41486, 41487
RELATED_WIDTH, RELATED_HEIGHT = 4097, 4098


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_places_in_pixels_follow_the_picture(
    picture, tmp_path: Path, suffix: str, endian: str
) -> None:
    """Area and place of the subject, pixels on the sensor and related sizes are the result's."""
    exif = Image.Exif()
    exif.endian = endian
    exif[ORIENTATION] = 6
    settings = exif.get_ifd(SETTINGS)
    settings[SUBJECT_AREA], settings[SUBJECT_LOCATION] = (10, 30, 8, 4), (0, 39)
    settings[FOCAL_X], settings[FOCAL_Y] = IFDRational(3001, 2), IFDRational(1000, 1)
    settings[INTEROPERABILITY] = {1: "R98", RELATED_WIDTH: 56, RELATED_HEIGHT: 40}
    Image.fromarray(picture(40, 56)).save(tmp_path / "a.jpg", exif=exif)
    source = read_image(tmp_path / "a.jpg")
    write_image(
        tmp_path / f"b{suffix}",
        source.pixels.repeat(3, 0).repeat(3, 1),
        metadata=source.metadata,
    )
    written = _exif(tmp_path / f"b{suffix}")
    settings, related = written.get_ifd(SETTINGS), written.get_ifd(INTEROPERABILITY)
    assert settings[SUBJECT_AREA] == (3 * (39 - 30), 3 * 10, 3 * 4, 3 * 8)
    assert settings[SUBJECT_LOCATION] == (0, 0)
    assert (settings[FOCAL_X], settings[FOCAL_Y]) == (3000, 4501.5)
    assert (related[RELATED_WIDTH], related[RELATED_HEIGHT]) == (120, 168)


@pytest.mark.parametrize(
    ("orientation", "x", "y"),
    [
        (1, 5, 7),
        (2, 50, 7),
        (3, 50, 32),
        (4, 5, 32),
        (5, 7, 5),
        (6, 32, 5),
        (7, 32, 50),
        (8, 7, 50),
    ],
)
def test_the_subject_turns_with_every_orientation(
    tmp_path: Path, orientation: int, x: int, y: int
) -> None:
    """The one white pixel is where the EXIF of the upright picture says; what lies outside goes."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif.get_ifd(SETTINGS)[SUBJECT_LOCATION] = (5, 7)
    exif.get_ifd(SETTINGS)[SUBJECT_AREA] = (70_000, 70_000, 9)
    exif.get_ifd(SETTINGS)[LENS] = "A lens with a name"
    pixels = np.zeros((40, 56), np.uint8)
    pixels[7, 5] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    source = read_image(tmp_path / "a.png")
    assert source.pixels[y, x, 0] == 255
    write_image(tmp_path / "b.png", source.pixels, metadata=source.metadata)
    settings = _exif(tmp_path / "b.png").get_ifd(SETTINGS)
    assert settings[SUBJECT_LOCATION] == (x, y)
    assert settings[LENS] == "A lens with a name"
    assert (SUBJECT_AREA in settings) == (orientation in (1, 5))


@given(st.binary(max_size=60), st.integers(2, 8), st.just(38) | st.integers(0, 60))
def test_broken_settings_do_no_harm(noise: bytes, orientation: int, at: int) -> None:
    """Any bytes may be the camera settings of a turned picture, also those of a directory."""
    main = struct.pack("<HHHIIHHIII", 2, 274, 3, 1, orientation, SETTINGS, 4, 1, at, 0)
    exif = b"II*\0\x08\0\0\0" + main + struct.pack("<HHH", 1, SUBJECT_AREA, 3) + noise
    settled = settled_exif(exif, orientation=orientation, size=(40, 56))
    if settled is not None:
        sized = sized_exif(settled, width=80, height=112, scale=(2, 2))
        assert at != 38 or stated_orientation(sized) == 1
    assert at != 38 or settled is not None
