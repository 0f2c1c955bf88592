"""Colour that a file states without a profile is kept, turned into a profile, or refused."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms, TiffImagePlugin
from PIL.TiffImagePlugin import IFDRational

from escsr.errors import ImageFormatError
from escsr.images.files import probe_image, read_image
from escsr.images.heif import read_av1_colour
from escsr.images.writer import check_output, write_image
from tests.images.png_editing import Chunk, chunks_of, insert_chunks

GAMMA_1 = (b"gAMA", struct.pack(">I", 100_000))
GAMMA_22 = (b"gAMA", struct.pack(">I", 45_455))
P3 = (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
ADOBE = (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000))
SRGB = (b"sRGB", b"\0")
ALL = [".png", ".jpg", ".webp", ".tif", ".avif"]
WITH_PROFILES = [".jpg", ".webp", ".tif"]


def _cicp(primaries: int, transfer: int) -> Chunk:
    return b"cICP", bytes([primaries, transfer, 0, 1])


@pytest.fixture
def swatches() -> npt.NDArray[np.uint8]:
    """Squares of 16 pixels of one colour each, which lossy formats keep within a level or two."""
    colours = np.array([[200, 60, 40], [60, 160, 80], [40, 70, 190], [128, 128, 128]], np.uint8)
    return np.tile(colours.repeat(16, axis=0)[None], (16, 1, 1))


def _rewritten(path: Path, suffix: str, pixels: npt.NDArray[np.uint8], *chunks: Chunk) -> Path:
    """Save pixels as a PNG with chunks, read it, and write it in another format."""
    source = path / "source.png"
    Image.fromarray(pixels).save(source)
    insert_chunks(source, *chunks)
    image = read_image(source)
    write_image(path / f"result{suffix}", image.pixels, metadata=image.metadata)
    return path / f"result{suffix}"


def _seen(path: Path) -> npt.NDArray[np.float64]:
    """What a colour-managed viewer shows: the result in sRGB, through its profile."""
    with Image.open(path) as image:
        rgb, profile = image.convert("RGB"), image.info.get("icc_profile")
    assert profile is not None
    target = ImageCms.createProfile("sRGB")
    rendered = ImageCms.profileToProfile(
        rgb, io.BytesIO(profile), target, ImageCms.Intent.RELATIVE_COLORIMETRIC
    )
    assert rendered is not None
    return np.asarray(rendered).astype(float)


def _profile_numbers(profile: bytes, tag: bytes) -> npt.NDArray[np.float64]:
    """The numbers of a tag of an ICC profile, which are in units of 1/65536."""
    at, size = struct.unpack_from(">II", profile, profile.index(tag, 132) + 4)
    return np.frombuffer(profile[at + 8 : at + size], ">i4") / 65536


def _code_points(path: Path) -> tuple[int, int]:
    """Primaries and transfer of the one nclx box of an AVIF."""
    data = path.read_bytes()
    assert data.count(b"colrnclx") == 1
    return struct.unpack_from(">HH", data, data.index(b"colrnclx") + 8)


@pytest.mark.parametrize("suffix", WITH_PROFILES)
def test_linear_light_is_shown_as_bright_as_it_is(swatches, tmp_path: Path, suffix: str) -> None:
    """GAMA 1 becomes a profile, through which a viewer sees the sRGB curve of the values."""
    seen = _seen(_rewritten(tmp_path, suffix, swatches, GAMMA_1))
    linear = swatches / 255
    expected = 255 * np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    # Lossy formats are off by up to 2 levels, which the steep start of the curve makes 3 or 4.
    assert np.abs(seen - expected).mean() < 3
    assert np.abs(seen - swatches).mean() > 40


@pytest.mark.parametrize("suffix", WITH_PROFILES)
@pytest.mark.parametrize(
    ("chunks", "primaries"),
    [
        ((P3, GAMMA_22), (0.680, 0.320)),
        ((_cicp(12, 13),), (0.680, 0.320)),
        ((_cicp(9, 1),), (0.708, 0.292)),
        ((ADOBE, GAMMA_22), (0.640, 0.330)),
    ],
    ids=["cHRM", "P3", "BT.2020", "Adobe"],
)
def test_other_primaries_become_a_profile_that_states_them(
    swatches, tmp_path: Path, suffix: str, chunks: tuple[Chunk, ...], primaries: tuple[float, float]
) -> None:
    """The red primary of the profile, taken back from D50, is the one that the chunks state."""
    path = _rewritten(tmp_path, suffix, swatches, *chunks)
    with Image.open(path) as image:
        profile = image.info["icc_profile"]
    adaptation = _profile_numbers(profile, b"chad").reshape(3, 3)
    adapted = np.linalg.inv(adaptation) @ _profile_numbers(profile, b"rXYZ")
    assert tuple(adapted[:2] / adapted.sum()) == pytest.approx(primaries, abs=5e-4)


@pytest.mark.parametrize(
    "chunks",
    [(GAMMA_1,), (P3, GAMMA_22), (_cicp(9, 16),), (_cicp(12, 13), P3, GAMMA_22), (SRGB,)],
)
def test_a_png_result_states_colour_by_the_same_chunks(
    swatches, tmp_path: Path, chunks: tuple[Chunk, ...]
) -> None:
    """gAMA, cHRM, cICP and sRGB of a PNG are in the PNG result, and pixels are as they were."""
    path = _rewritten(tmp_path, ".png", swatches, *chunks)
    assert [c for c in chunks_of(path) if c[0] not in (b"IHDR", b"IDAT", b"IEND")] == list(chunks)
    np.testing.assert_array_equal(read_image(path).pixels, swatches)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ((), (1, 13)),
        ((SRGB,), (1, 13)),
        ((GAMMA_22,), (1, 13)),
        ((GAMMA_1,), (1, 8)),
        ((P3, GAMMA_1), (12, 8)),
        ((_cicp(9, 16),), (9, 16)),
        ((_cicp(9, 18), SRGB), (9, 18)),
    ],
)
def test_avif_states_colour_by_code_points(
    swatches, tmp_path: Path, chunks: tuple[Chunk, ...], expected: tuple[int, int]
) -> None:
    """An AVIF result has one nclx box, with the numbers of what the PNG states."""
    path = _rewritten(tmp_path, ".avif", swatches, *chunks)
    assert _code_points(path) == expected
    with Image.open(path) as image:
        shown = np.asarray(image.convert("RGB")).astype(float)
    assert np.abs(shown - swatches).mean() < 2  # luma and chroma are made as the box says


def test_primaries_without_a_number_become_a_profile_of_avif(swatches, tmp_path: Path) -> None:
    """Adobe RGB has no code point: the AVIF holds a profile."""
    path = _rewritten(tmp_path, ".avif", swatches, ADOBE, GAMMA_22)
    with Image.open(path) as image:
        assert image.info["icc_profile"][16:20] == b"RGB "


@pytest.mark.parametrize(("primaries", "transfer"), [(12, 13), (9, 16), (9, 18), (1, 8)], ids=str)
def test_code_points_of_avif_arrive_in_png(
    swatches, tmp_path: Path, primaries: int, transfer: int
) -> None:
    """Nclx becomes cICP; beside it stands a profile for readers that know no cICP, unless HDR."""
    Image.fromarray(swatches).save(tmp_path / "a.avif", quality=95, subsampling="4:4:4")
    data = bytearray((tmp_path / "a.avif").read_bytes())
    struct.pack_into(">HH", data, data.index(b"colrnclx") + 8, primaries, transfer)
    (tmp_path / "a.avif").write_bytes(data)
    source = read_image(tmp_path / "a.avif")
    write_image(tmp_path / "b.png", source.pixels, metadata=source.metadata)
    chunks = dict(chunks_of(tmp_path / "b.png"))
    assert chunks[b"cICP"] == bytes([primaries, transfer, 0, 1])
    assert (b"iCCP" in chunks) == (transfer not in (16, 18))
    write_image(tmp_path / "b.avif", source.pixels, metadata=source.metadata)
    assert _code_points(tmp_path / "b.avif") == (primaries, transfer)


@pytest.mark.parametrize("has_box", [True, False], ids=["colr", "stream alone"])
@pytest.mark.parametrize("has_alpha", [False, True], ids=["grey", "alpha"])
def test_grey_avif_in_video_range_is_read_from_black_to_white(
    tmp_path: Path, has_alpha: bool, has_box: bool
) -> None:
    """Luma of 16 to 235 becomes 0 to 255, as with chroma; opacity is in full range."""
    levels = np.array([0, 64, 128, 255], np.uint8).repeat(16)[None].repeat(16, axis=0)
    picture = Image.fromarray(np.stack([levels] * 3 + [np.full_like(levels, 99)], axis=-1))
    picture = picture if has_alpha else picture.convert("RGB")
    path = tmp_path / "a.avif"
    picture.save(path, quality=100, subsampling="4:0:0", range="limited")
    if not has_box:
        path.write_bytes(path.read_bytes().replace(b"colr", b"xolr"))
    pixels = read_image(path).pixels
    np.testing.assert_allclose(pixels[8, 8::16, :3].T, [[0, 64, 128, 255]] * 3, atol=1)
    assert not has_alpha or np.all(pixels[..., 3] == 99)


def test_an_avif_without_a_colour_box_is_what_its_stream_states(swatches, tmp_path: Path) -> None:
    """The AV1 sequence header says BT.2020 and PQ, and so does the PNG result."""
    path = tmp_path / "a.avif"
    Image.fromarray(swatches).save(path, quality=95, subsampling="4:4:4")
    data = path.read_bytes().replace(b"colr", b"xolr")
    at = data.index(b"\x12\0\x0a")  # temporal delimiter, then the sequence header
    head = f"{int.from_bytes(data[at : at + 24], 'big'):0192b}"
    said, wanted = ("".join(f"{n:08b}" for n in points) for points in ((1, 13, 6), (9, 16, 6)))
    assert head.count(said) == 1
    patched = int(head.replace(said, wanted), 2).to_bytes(24, "big")
    path.write_bytes(data[:at] + patched + data[at + 24 :])
    source = read_image(path)
    write_image(tmp_path / "b.png", source.pixels, metadata=source.metadata)
    assert dict(chunks_of(tmp_path / "b.png"))[b"cICP"] == bytes([9, 16, 0, 1])


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ("12000a0d20000002afff9b5f2c24402640", (9, 16, False, True)),
        ("12000a0d20000002afff9b5f2430340440", (12, 13, False, False)),
        ("12000a0d00000002afff9b5f2612241240", (9, 18, True, False)),
        ("12000a0d20000002afff9b5f2404340080", (1, 13, False, True)),
        ("12000a0d40000002afff9b5f2d050605c4", (5, 6, False, True)),
        ("12000a0a00000002afff9b5f2540", (2, 2, True, True)),
    ],
    ids=["10 bits", "video range", "grey", "RGB", "12 bits", "nothing stated"],
)
def test_sequence_headers_of_video_are_read(
    stream: str, expected: tuple[int, int, bool, bool]
) -> None:
    """AV1 headers as libaom makes them for several frames say what it was told to encode."""
    colour = read_av1_colour(bytes.fromhex(stream))
    assert colour is not None
    assert expected == (
        colour.primaries,
        colour.transfer,
        colour.is_monochrome,
        colour.is_full_range,
    )


@pytest.mark.parametrize("suffix", WITH_PROFILES)
@pytest.mark.parametrize(("transfer", "name"), [(16, r"HDR \(PQ\)"), (18, r"HDR \(HLG\)")])
def test_hdr_is_refused_by_name_where_it_cannot_be_stated(
    swatches, tmp_path: Path, suffix: str, transfer: int, name: str
) -> None:
    """JPEG, WebP and TIFF have no place for PQ and HLG: no file is made, before or after work."""
    with pytest.raises(ImageFormatError, match=name):
        _rewritten(tmp_path, suffix, swatches, _cicp(9, transfer))
    header = probe_image(tmp_path / "source.png")
    with pytest.raises(ImageFormatError, match=name):
        check_output(
            tmp_path / f"a{suffix}",
            width=8,
            height=8,
            channels=header.channels,
            bit_depth=header.bit_depth,
            colour=header.colour,
        )
    assert not (tmp_path / f"result{suffix}").exists()


def test_the_most_exact_statement_counts(swatches, tmp_path: Path) -> None:
    """CICP before iCCP before sRGB before gAMA and cHRM, as the PNG specification orders them."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "a.png"
    Image.fromarray(swatches).save(path, icc_profile=profile)
    insert_chunks(path, GAMMA_1)
    metadata = read_image(path).metadata
    assert (metadata.icc_profile, metadata.colour) == (profile, None)
    insert_chunks(path, _cicp(9, 16))
    colour = read_image(path).metadata.colour
    assert colour is not None
    assert colour.code_points == (9, 16)
    Image.fromarray(swatches).save(path)
    insert_chunks(path, SRGB, GAMMA_1, P3)
    colour = read_image(path).metadata.colour
    assert colour is not None
    assert colour.is_srgb


@pytest.mark.parametrize("suffix", ALL)
def test_adobe_rgb_by_exif_alone_becomes_a_profile(swatches, tmp_path: Path, suffix: str) -> None:
    """DCF's R03 is read by few; the result holds a profile of Adobe RGB as well."""
    exif = Image.Exif()
    settings = exif.get_ifd(34665)
    settings[40961] = 0xFFFF
    settings[40965] = {1: "R03"}
    Image.fromarray(swatches).save(tmp_path / "a.jpg", exif=exif, quality=98, subsampling=0)
    source = read_image(tmp_path / "a.jpg")
    write_image(tmp_path / f"b{suffix}", source.pixels, metadata=source.metadata)
    seen = _seen(tmp_path / f"b{suffix}")
    # (60, 160, 80) of Adobe RGB lies outside sRGB: its red would be negative.
    green = seen[8, 24]
    assert green[0] == 0
    assert green[1] > 158
    assert np.abs(seen[8, 56] - 128).max() <= 3


def test_grey_in_linear_light_becomes_srgb_in_a_format_without_grey(tmp_path: Path) -> None:
    """WebP stores no grey: level 100 of 255 in linear light is shown as 168."""
    grey = np.full((16, 16), 100, np.uint8)
    path = _rewritten(tmp_path, ".webp", grey, GAMMA_1)
    with Image.open(path) as image:
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - 168).max() <= 2
    path = _rewritten(tmp_path, ".jpg", grey, GAMMA_1)
    with Image.open(path) as image:
        assert image.mode == "L"
        assert image.info["icc_profile"][16:20] == b"GRAY"


def test_srgb_needs_no_profile(swatches, tmp_path: Path) -> None:
    """Neither the sRGB chunk nor gAMA 1/2.2 alone makes a profile in a JPEG."""
    for chunk in (SRGB, GAMMA_22):
        with Image.open(_rewritten(tmp_path, ".jpg", swatches, chunk)) as image:
            assert "icc_profile" not in image.info
        (tmp_path / "result.jpg").unlink()


def test_tags_of_tiff_that_state_colour_become_a_profile(swatches, tmp_path: Path) -> None:
    """WhitePoint, PrimaryChromaticities and a linear TransferFunction: the profile is linear P3."""
    rational = [(n, 10_000) for n in (3127, 3290, 6800, 3200, 2650, 6900, 1500, 600)]
    tags = {318: rational[:2], 319: rational[2:], 301: [257 * level for level in range(256)] * 3}
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for number, values in tags.items():
        info.tagtype[number] = 3 if number == 301 else 5
        info[number] = tuple(IFDRational(*v) if isinstance(v, tuple) else v for v in values)
    Image.fromarray(swatches).save(tmp_path / "a.tif", tiffinfo=info)
    source = read_image(tmp_path / "a.tif")
    for suffix in (".tif", ".png"):
        write_image(tmp_path / f"b{suffix}", source.pixels, metadata=source.metadata)
        assert _seen(tmp_path / f"b{suffix}")[8, 56] == pytest.approx(188, abs=1)  # 128, linear
    assert dict(chunks_of(tmp_path / "b.png"))[b"cICP"] == bytes([12, 8, 0, 1])


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize(
    "chunk",
    [
        (b"cHRM", struct.pack(">8I", *[31270, 32900] * 4)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 60000, 30000, 40000, 20000, 20000, 10000)),
        (b"cHRM", struct.pack(">8I", 2_000_000_000, 32900, *[64000, 33000], *[30000] * 4)),
        (b"cHRM", struct.pack(">8I", 10000, 80000, 64000, 33000, 30000, 60000, 15000, 6000)),
        (b"gAMA", struct.pack(">I", 1)),
        (b"gAMA", struct.pack(">I", 0xFFFFFFFF)),
    ],
    ids=["points equal", "on a line", "white x 20000", "white outside", "gamma 100000", "gamma 0"],
)
def test_impossible_colour_counts_as_not_stated(
    swatches, tmp_path: Path, suffix: str, chunk: Chunk
) -> None:
    """Impossible cHRM and gAMA: the picture is made as sRGB; a PNG result keeps the chunk."""
    path = _rewritten(tmp_path, suffix, swatches, chunk)
    assert read_image(tmp_path / "source.png").metadata.colour is None
    with Image.open(path) as image:
        assert "icc_profile" not in image.info
    if suffix == ".png":
        assert chunk in chunks_of(path)


@pytest.mark.parametrize("suffix", WITH_PROFILES)
def test_primaries_that_no_profile_can_state_are_refused(
    swatches, tmp_path: Path, suffix: str
) -> None:
    """Unknown primaries are refused by number; those of CIE XYZ become a profile of their own."""
    with pytest.raises(ImageFormatError, match=r"primaries 200 of H\.273"):
        _rewritten(tmp_path, suffix, swatches, _cicp(200, 13))
    with Image.open(_rewritten(tmp_path, suffix, swatches, _cicp(10, 13))) as image:
        profile = image.info["icc_profile"]
    adaptation = _profile_numbers(profile, b"chad").reshape(3, 3)
    red, blue = (
        np.linalg.solve(adaptation, _profile_numbers(profile, tag)) for tag in (b"rXYZ", b"bXYZ")
    )
    np.testing.assert_allclose(red, (1, 0, 0), atol=1e-4)
    np.testing.assert_allclose(blue, (0, 0, 1), atol=1e-4)


def test_profiles_have_the_illuminant_that_icc_prescribes(swatches, tmp_path: Path) -> None:
    """Bytes 68 to 79 of the header are D50 to the last bit, and the white point is the same."""
    with Image.open(_rewritten(tmp_path, ".jpg", swatches, P3)) as image:
        profile = image.info["icc_profile"]
    assert profile[68:80].hex() == "0000f6d6000100000000d32d"
    np.testing.assert_array_equal(_profile_numbers(profile, b"wtpt") * 65536, (63190, 65536, 54061))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_profile_for_other_pixels_is_left_out_and_named(tmp_path: Path, suffix: str) -> None:
    """Grey with a profile for RGB is grey without a profile in every format, and the note says so.

    Level 100 of grey stays 100: no format applies the profile, whose curve is linear.
    """
    grey = np.full((16, 16), 100, np.uint8)
    with Image.open(_rewritten(tmp_path, ".tif", np.stack([grey] * 3, axis=-1), GAMMA_1)) as image:
        profile = image.info["icc_profile"]
    path = tmp_path / f"grey{suffix}"
    Image.fromarray(grey).save(path, icc_profile=profile)
    source = read_image(path)
    assert source.metadata.notes == ("the ICC profile, which is for RGB and not for grey",)
    for result in (tmp_path / f"out{suffix}" for suffix in ALL):
        write_image(result, source.pixels, metadata=source.metadata)
        with Image.open(result) as image:
            assert "icc_profile" not in image.info
            assert np.abs(np.asarray(image.convert("L")).astype(int) - 100).max() <= 1


@pytest.mark.parametrize("suffix", ALL)
@pytest.mark.parametrize(
    "damaged",
    [
        lambda p: p[:200],
        lambda p: p[:36] + b"none" + p[40:],
        lambda p: b"\xff" + p[1:],
        lambda _: b"?",
    ],
    ids=["cut", "signature", "size", "one byte"],
)
def test_a_damaged_profile_is_left_out_and_named(
    swatches, tmp_path: Path, suffix: str, damaged: Callable[[bytes], bytes]
) -> None:
    """The pixels are read, and the note says that the profile is damaged."""
    profile = damaged(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    Image.fromarray(swatches).save(tmp_path / f"a{suffix}", icc_profile=profile)
    metadata = read_image(tmp_path / f"a{suffix}").metadata
    assert (metadata.icc_profile, metadata.notes) == (None, ("a damaged ICC profile",))


def test_the_profile_of_a_gif_arrives(swatches, tmp_path: Path) -> None:
    """It stands in an application extension, which libvips does not read."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    profile = profile[:16] + b"RGB " + profile[20:]
    Image.fromarray(swatches[..., 0]).convert("RGB").quantize(8).save(tmp_path / "a.gif")
    data = (tmp_path / "a.gif").read_bytes()
    blocks = [profile[at : at + 255] for at in range(0, len(profile), 255)]
    extension = b"!\xff\x0bICCRGBG1012" + b"".join(bytes([len(b)]) + b for b in blocks) + b"\0"
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + data[6:at] + extension + data[at:])
    assert read_image(tmp_path / "a.gif").metadata.icc_profile == profile
