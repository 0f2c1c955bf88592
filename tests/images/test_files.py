"""Reading real files of every kind, and refusing what would come out wrong."""

import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms

from escsr.images.files import probe_image, read_image

ENCODINGS = {(1, 8): "b-w", (2, 8): "b-w", (3, 8): "srgb", (4, 8): "srgb"}
ENCODINGS |= {(1, 16): "grey16", (2, 16): "grey16", (3, 16): "rgb16", (4, 16): "rgb16"}


def _vips(pixels: np.ndarray) -> pyvips.Image:
    encoding = ENCODINGS[pixels.shape[2], 8 * pixels.dtype.itemsize]
    return pyvips.Image.new_from_array(pixels, interpretation=encoding)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_lossless_files_are_read_to_the_last_bit(
    picture, tmp_path: Path, suffix: str, bit_depth: int, channels: int
) -> None:
    """PNG and TIFF of every kind give the pixels that another writer put in."""
    pixels = picture(channels=channels, bit_depth=bit_depth)
    path = tmp_path / f"a{suffix}"
    _vips(pixels).write_to_file(str(path))
    image = read_image(path)
    assert image.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(image.pixels, pixels)
    assert (image.width, image.height, image.bit_depth) == (56, 40, bit_depth)
    assert (image.has_alpha, image.is_grey) == (channels in (2, 4), channels <= 2)
    header = probe_image(path)
    assert (header.width, header.height) == (56, 40)
    assert (header.channels, header.bit_depth) == (channels, bit_depth)


@pytest.mark.parametrize(
    ("name", "channels"),
    [("a.jpg", 1), ("a.jpg", 3), ("a.webp", 3), ("a.webp", 4), ("a.avif", 3), ("a.avif", 4)],
)
def test_lossy_files_are_read_closely(picture, tmp_path: Path, name: str, channels: int) -> None:
    """JPEG, WebP and AVIF at high quality come back within a few levels."""
    pixels = picture(channels=channels)
    path = tmp_path / name
    _vips(pixels).write_to_file(str(path), Q=95)
    image = read_image(path)
    assert image.pixels.shape == pixels.shape
    # WebP halves chroma and these gradients have little of it; 3 levels is twice what was seen.
    assert np.abs(image.pixels.astype(int) - pixels).mean() < 3
    assert probe_image(path).channels == channels


@pytest.mark.parametrize("name", ["photo[1].jpg", "[page=3].png", "Фото ñ 写真.png", "a b'\"$.tif"])
def test_odd_names_are_read(picture, tmp_path: Path, name: str) -> None:
    """Brackets, which libvips takes for options, Unicode, spaces and quotes are just names."""
    pixels = picture()
    plain = tmp_path / f"plain{Path(name).suffix}"
    _vips(pixels).write_to_file(str(plain))
    plain.rename(tmp_path / name)
    assert read_image(tmp_path / name).pixels.shape == pixels.shape
    assert probe_image(str(tmp_path / name)).width == 56


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_a_name_that_is_no_unicode_is_read(picture, tmp_path: Path) -> None:
    """A Latin-1 name on a UTF-8 system, which Python holds as surrogates, opens all the same."""
    _vips(picture()).write_to_file(str(tmp_path / "plain.png"))
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    (tmp_path / "plain.png").rename(path)
    assert read_image(path).width == 56


def test_content_decides_and_not_the_suffix(picture, tmp_path: Path) -> None:
    """A PNG that is called .jpg is read as PNG."""
    _vips(picture()).write_to_file(str(tmp_path / "a.png"))
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert probe_image(tmp_path / "a.jpg").format == "PNG"
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg").pixels, picture())


def test_a_file_that_changed_is_read_anew(picture, tmp_path: Path) -> None:
    """The second picture of one name is not answered from libvips' cache."""
    path = tmp_path / "a.png"
    for shift in (0, 9):
        Image.fromarray(picture() + np.uint8(shift)).save(path)
        np.testing.assert_array_equal(read_image(path).pixels, picture() + np.uint8(shift))


def test_palette_and_bilevel_files_become_plain_pixels(picture, tmp_path: Path) -> None:
    """Palette PNGs, with and without transparency, are RGB(A); 1-bit TIFF and PNG are grey."""
    palette = Image.fromarray(picture()).quantize(32)
    palette.save(tmp_path / "p.png")
    read = read_image(tmp_path / "p.png")
    np.testing.assert_array_equal(read.pixels, np.asarray(palette.convert("RGB")))
    palette.save(tmp_path / "t.png", transparency=3)
    read = read_image(tmp_path / "t.png")
    assert read.has_alpha
    np.testing.assert_array_equal(read.pixels[..., 3] == 0, np.asarray(palette) == 3)
    bilevel = Image.fromarray(picture()).convert("1")
    for name, options in (("b.png", {}), ("b.tif", {"compression": "group4"})):
        bilevel.save(tmp_path / name, **options)
        expected = np.asarray(bilevel).astype(np.uint8)[..., None] * 255
        np.testing.assert_array_equal(read_image(tmp_path / name).pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_orientation_is_applied_once(picture, tmp_path: Path, name: str, orientation: int) -> None:
    """Pixels stand as Pillow turns them, and the header tells the turned size."""
    pixels = picture()
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(tmp_path / name, exif=exif, quality=95)
    with Image.open(tmp_path / name) as opened:
        assert opened.getexif().get(274) == orientation
    image = read_image(tmp_path / name)
    steps = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: p[::-1].transpose(1, 0, 2),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: p[:, ::-1].transpose(1, 0, 2),
    }
    expected = steps[orientation](pixels)
    assert image.pixels.shape == expected.shape
    # Lossy formats stay within a few levels; a wrong turn is off by tens.
    assert np.abs(image.pixels.astype(int) - expected).mean() < 3
    header = probe_image(tmp_path / name)
    assert (header.width, header.height) == (image.width, image.height)


@pytest.mark.parametrize("profiled", [True, False])
@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_becomes_srgb(picture, tmp_path: Path, name: str, profiled: bool) -> None:
    """CMYK comes back as the RGB it was made from, with an RGB profile instead of its own."""
    pixels = picture(noise=0)
    # As a photo editor separates: the darkest ink stands for black.
    options = {"intent": "relative", "black_point_compensation": True}
    cmyk = _vips(pixels).icc_transform("cmyk", input_profile="srgb", **options)
    if not profiled:
        cmyk = cmyk.copy()
        cmyk.remove("icc-profile-data")
    cmyk.write_to_file(str(tmp_path / name), **({"Q": 98} if name == "a.jpg" else {}))
    image = read_image(tmp_path / name)
    assert image.pixels.shape == pixels.shape
    # These muted colours are in the press's gamut; JPEG and 8-bit profiles cost some levels.
    assert np.abs(image.pixels.astype(int) - pixels).mean() < 6
    assert image.metadata.icc_profile is not None
    assert image.metadata.icc_profile[16:20] == b"RGB "
    assert probe_image(tmp_path / name).channels == 3


def test_16_bit_cmyk_and_cmyk_with_alpha_become_rgb(picture, tmp_path: Path) -> None:
    """Depth and opacity survive the conversion."""
    cmyk = _vips(picture(bit_depth=16)).icc_transform("cmyk", input_profile="srgb", depth=16)
    cmyk.tiffsave(str(tmp_path / "deep.tif"))
    deep = read_image(tmp_path / "deep.tif")
    assert (deep.bit_depth, deep.pixels.shape[2]) == (16, 3)
    assert len(np.unique(deep.pixels)) > 256
    alpha = picture(channels=1)
    shallow = _vips(picture()).icc_transform("cmyk", input_profile="srgb")
    shallow.bandjoin(_vips(alpha)).copy(interpretation="cmyk").tiffsave(str(tmp_path / "a.tif"))
    seen = read_image(tmp_path / "a.tif")
    assert seen.has_alpha
    np.testing.assert_array_equal(seen.pixels[..., 3:], alpha)


def test_a_wide_gamut_keeps_its_encoding_and_profile(picture, tmp_path: Path) -> None:
    """Display P3 pixels come back as they are, with their profile."""
    wide = _vips(picture()).icc_transform("p3", input_profile="srgb")
    wide.pngsave(str(tmp_path / "p3.png"))
    image = read_image(tmp_path / "p3.png")
    np.testing.assert_array_equal(image.pixels, wide.numpy())
    assert image.metadata.icc_profile == bytes(wide.get("icc-profile-data"))


def test_deep_avif_fills_the_16_bit_range(tmp_path: Path) -> None:
    """10 and 12-bit AVIF become 16-bit, and white is 65535."""
    white = np.full((32, 32, 3), 65535, np.uint16)
    for bit_depth in (10, 12):
        path = tmp_path / f"{bit_depth}.avif"
        _vips(white).heifsave(str(path), compression="av1", bitdepth=bit_depth, lossless=True)
        image = read_image(path)
        assert image.bit_depth == 16
        assert image.pixels.max() == 65535


def test_a_single_frame_gif_is_read(picture, tmp_path: Path) -> None:
    """A GIF of one frame is an image like any other."""
    still = Image.fromarray(picture()).quantize(64)
    still.save(tmp_path / "a.gif")
    read = read_image(tmp_path / "a.gif").pixels[..., :3]
    np.testing.assert_array_equal(read, np.asarray(still.convert("RGB")))


@pytest.mark.parametrize("place", [(5, 6), (0, 0), (30, 6), (30, 20), (50, 6)])
def test_what_the_frame_of_a_gif_does_not_cover_is_transparent(
    place: tuple[int, int], tmp_path: Path
) -> None:
    """As browsers show it, also where the canvas is extended to hold the frame."""
    path = tmp_path / "a.gif"
    Image.new("RGB", (20, 15), (9, 80, 90)).save(path)
    data = path.read_bytes()
    descriptor = struct.pack("<c4H", b",", 0, 0, 20, 15)
    assert data.count(descriptor) == 1
    data = data.replace(descriptor, struct.pack("<c4H", b",", *place, 20, 15))
    path.write_bytes(data[:6] + struct.pack("<2H", 40, 30) + data[10:])
    left, top = place
    expected = np.zeros((max(30, top + 15), max(40, left + 20), 4), np.uint8)
    expected[top : top + 15, left : left + 20] = (9, 80, 90, 255)
    pixels = read_image(path).pixels
    assert probe_image(path).channels == 4
    assert np.array_equal(pixels[..., 3], expected[..., 3])
    assert np.array_equal(pixels[expected[..., 3] > 0], expected[expected[..., 3] > 0])


def test_a_tiff_with_a_preview_page_is_one_picture(picture, tmp_path: Path) -> None:
    """A reduced copy of the first page is no second picture."""
    pixels = picture()
    _vips(pixels).tiffsave(str(tmp_path / "a.tif"), pyramid=True, tile=True, tile_width=16)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, pixels)


def test_associated_alpha_is_made_straight(tmp_path: Path) -> None:
    """A TIFF whose colours are premultiplied reads as straight colours."""
    pixels = np.full((8, 8, 4), [200, 100, 50, 128], np.uint8)
    _vips(pixels).tiffsave(str(tmp_path / "a.tif"), premultiply=True)
    read = read_image(tmp_path / "a.tif").pixels.astype(int)
    # Premultiplied 8-bit colours at half opacity lose one bit.
    assert np.abs(read - pixels).max() <= 2


def test_metadata_of_a_camera_file_is_read(picture, tmp_path: Path) -> None:
    """ICC, EXIF, XMP and resolution arrive, turned: orientation is 1 in EXIF and in XMP."""
    exif = Image.Exif()
    exif[271], exif[274] = "Maker", 6
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "a.jpg"
    Image.fromarray(picture()).save(path, exif=exif, xmp=xmp, icc_profile=icc, dpi=(300, 200))
    metadata = read_image(path).metadata
    assert metadata.icc_profile == icc
    assert metadata.exif is not None
    settled = Image.Exif()
    settled.load(metadata.exif)
    assert (settled[271], settled[274]) == ("Maker", 1)
    assert metadata.xmp == xmp.replace(b"6", b"1")
    assert metadata.pixels_per_mm == pytest.approx((200 / 25.4, 300 / 25.4))
