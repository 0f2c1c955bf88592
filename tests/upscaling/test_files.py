"""From file to file."""

import os
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms

from escsr.engines.engine import Floats
from escsr.errors import (
    ConfigurationError,
    ImageFormatError,
    ImageReadError,
    ImageSizeError,
    ImageWriteError,
    OutputExistsError,
)
from escsr.images.files import read_image
from escsr.images.writer import resize_pixels, write_image
from escsr.upscaling import Upscaler, upscale
from tests.networks import ArrayEngine, nearest, nearest_engine, smallest, upscaler_of


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    """A small network with seeded weights, x2, in small tiles."""
    return Upscaler(smallest(2), device="cpu", tile=24, overlap_pixels=8)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A PNG of 60x50 pixels."""
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    write_image(path, pixels)
    return path


def leftovers(folder: Path, *known: Path) -> list[str]:
    """Names of files that nobody asked for, hidden ones too."""
    return sorted(entry.name for entry in folder.iterdir() if entry not in known)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_file_holds_what_a_call_returns(
    upscaler: Upscaler, tmp_path: Path, channels: int, dtype: type[np.unsignedinteger]
) -> None:
    """Every kind of image, streamed in bands: the same pixels, depth and channels."""
    source, output = tmp_path / "in.png", tmp_path / "out.png"
    peak = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, peak, (50, 60, channels)).astype(dtype)
    write_image(source, pixels)
    upscaler.upscale_file(source, output)
    assert np.array_equal(read_image(output).pixels, upscaler(pixels))


def test_the_report_says_what_was_done(upscaler: Upscaler, photo: Path, tmp_path: Path) -> None:
    """Sizes, passes, device, precision, tiles."""
    output = tmp_path / "out.png"
    report = upscaler.upscale_file(photo, output, scale=3)
    assert (report.input, report.output) == (photo, output)
    assert (report.input_size, report.output_size) == ((60, 50), (180, 150))
    assert report.passes == (2, 2)
    assert (report.device, report.precision) == ("cpu", "float32")
    assert report.model == upscaler.model_name
    assert report.tile_pixels == 24
    # 60x50 in tiles of 24 that share 8: 4 x 3; then 120x100: 7 x 6.
    assert report.num_tiles == 12 + 42
    assert report.seconds > 0
    assert report.peak_memory_bytes > 60 * 50 * 3


def test_any_factor_is_shrunk_while_it_streams(
    upscaler: Upscaler, photo: Path, tmp_path: Path
) -> None:
    """As shrinking the whole result would, within the rounding of another order of work."""
    output = tmp_path / "out.png"
    upscaler.upscale_file(photo, output, width=90)
    pixels = read_image(output).pixels.astype(int)
    assert pixels.shape == (75, 90, 3)
    expected = resize_pixels(upscaler(photo), width=90, height=75)
    assert np.abs(pixels - expected).max() <= 1


def test_progress_rises_to_one(upscaler: Upscaler, photo: Path, tmp_path: Path) -> None:
    """A fraction after each tile, over both passes."""
    fractions: list[float] = []
    upscaler.upscale_file(photo, tmp_path / "out.png", scale=4, on_progress=fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert len(fractions) == 12 + 42 + 1
    assert 0 < fractions[0] < 0.1


def test_profile_and_exif_go_along(upscaler: Upscaler, tmp_path: Path) -> None:
    """From JPEG to JPEG: the profile byte for byte, the camera's name, the new size."""
    source, output = tmp_path / "in.jpg", tmp_path / "out.jpg"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[271] = "Maker"
    exif[274] = 6  # to be turned by a quarter
    Image.new("RGB", (40, 30), (200, 30, 30)).save(source, icc_profile=profile, exif=exif)
    report = upscaler.upscale_file(source, output)
    assert report.output_size == (60, 80)
    with Image.open(output) as result:
        assert result.size == (60, 80)
        assert result.info["icc_profile"] == profile
        assert result.getexif()[271] == "Maker"
        assert result.getexif().get(274, 1) == 1


def test_the_input_is_never_overwritten(upscaler: Upscaler, photo: Path, tmp_path: Path) -> None:
    """Not by its own name, not through a link, not even when overwriting is allowed."""
    before = photo.read_bytes()
    symbolic, hard = tmp_path / "symbolic.png", tmp_path / "hard.png"
    symbolic.symlink_to(photo)
    os.link(photo, hard)
    roundabout = tmp_path / ".." / tmp_path.name / "photo.png"
    for output in (photo, symbolic, hard, roundabout):
        with pytest.raises(OutputExistsError, match="never overwritten"):
            upscaler.upscale_file(photo, output, overwrite=True)
    assert photo.read_bytes() == before


def test_nothing_is_overwritten_unasked(upscaler: Upscaler, photo: Path, tmp_path: Path) -> None:
    """But when asked."""
    output = tmp_path / "out.png"
    output.write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        upscaler.upscale_file(photo, output)
    assert output.read_bytes() == b"mine"
    upscaler.upscale_file(photo, output, overwrite=True)
    assert read_image(output).width == 120


def never_run(images: Floats) -> Floats:
    """Fail: a network that must not be reached."""
    raise AssertionError("work was spent")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("out.xyz", ImageFormatError),
        ("out", ImageFormatError),
        ("absent/out.png", ImageWriteError),
        ("out.jpg", ImageFormatError),
    ],
)
def test_a_hopeless_output_is_refused_before_the_work(
    tmp_path: Path, name: str, error: type[Exception]
) -> None:
    """A suffix nobody knows, none, no such folder, 16 bits in JPEG."""
    source = tmp_path / "in.png"
    write_image(source, np.zeros((9, 9, 3), np.uint16))
    with pytest.raises(error):
        upscaler_of(ArrayEngine(never_run)).upscale_file(source, tmp_path / name)
    assert leftovers(tmp_path, source) == []


def test_a_bad_size_is_refused_before_the_work(photo: Path, tmp_path: Path) -> None:
    """Nothing to enlarge, or a factor that cannot be."""
    upscaler = upscaler_of(ArrayEngine(never_run))
    with pytest.raises(ImageSizeError, match="nothing to enlarge"):
        upscaler.upscale_file(photo, tmp_path / "out.png", width=60)
    with pytest.raises(ConfigurationError, match="scale is 1"):
        upscaler.upscale_file(photo, tmp_path / "out.png", scale=1)
    assert leftovers(tmp_path, photo) == []


def test_a_bad_input_leaves_nothing(upscaler: Upscaler, photo: Path, tmp_path: Path) -> None:
    """Absent, empty, no image, cut off."""
    bad = tmp_path / "bad.png"
    for content in (None, b"", b"no image", photo.read_bytes()[:2000]):
        if content is not None:
            bad.write_bytes(content)
        with pytest.raises(ImageReadError):
            upscaler.upscale_file(bad, tmp_path / "out.png")
    assert leftovers(tmp_path, photo, bad) == []


def test_an_interruption_leaves_no_half_file(photo: Path, tmp_path: Path) -> None:
    """Neither under the output's name nor under another; Ctrl-C comes in the third tile."""
    calls = 0

    def interrupted(images: Floats) -> Floats:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return nearest(images)

    upscaler = upscaler_of(ArrayEngine(interrupted), tile=32, overlap_pixels=0)
    with pytest.raises(KeyboardInterrupt):
        upscaler.upscale_file(photo, tmp_path / "out.png")
    assert leftovers(tmp_path, photo) == []


def test_names_may_hold_any_letters(upscaler: Upscaler, photo: Path, tmp_path: Path) -> None:
    """Input and output."""
    source = photo.rename(tmp_path / "猫 и собака.png")
    output = tmp_path / "größer.png"
    upscaler.upscale_file(str(source), str(output))
    assert read_image(output).width == 120


def test_one_line_is_enough(photo: Path, tmp_path: Path) -> None:
    """Without an Upscaler of one's own."""
    output = tmp_path / "out.webp"
    report = upscale(photo, output, scale=1.5, model=smallest(2), device="cpu", quality=80)
    assert report.output_size == (90, 75)
    assert pyvips.Image.new_from_file(str(output)).width == 90


def test_a_limit_of_memory_reaches_the_plan(tmp_path: Path) -> None:
    """The report's estimate stays below."""
    photo = tmp_path / "photo.png"
    write_image(photo, np.random.default_rng(0).integers(0, 256, (280, 300, 3), dtype=np.uint8))
    unlimited = upscaler_of(nearest_engine(2)).plan_file(photo)
    assert unlimited.is_whole
    limit = int(0.6 * unlimited.peak_memory_bytes)
    upscaler = upscaler_of(nearest_engine(2), memory_limit_bytes=limit)
    report = upscaler.upscale_file(photo, tmp_path / "out.png")
    assert report.peak_memory_bytes <= limit
    assert report.num_tiles > 1
    assert not report.is_exact


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({"width": 90}, (90, 75)),
        ({"height": 100}, (120, 100)),
        ({"longest": 72}, (72, 60)),
        ({"width": 70, "height": 99}, (70, 99)),
    ],
)
def test_one_call_takes_a_size_in_pixels_too(
    photo: Path, tmp_path: Path, size: dict[str, int], expected: tuple[int, int]
) -> None:
    """As the methods of an Upscaler and the command do."""
    report = upscale(photo, tmp_path / "out.png", model=smallest(2), device="cpu", **size)
    assert report.output_size == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_planned_is_what_is_done(upscaler: Upscaler, tmp_path: Path, channels: int) -> None:
    """From the header alone: the same tiles, and the same estimate of memory."""
    photo = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 2**16, (50, 60, channels), dtype=np.uint16)
    write_image(photo, noise)
    plan = upscaler.plan_file(photo, scale=3)
    report = upscaler.upscale_file(photo, tmp_path / "out.png", scale=3)
    assert (plan.num_tiles, plan.tile_pixels) == (report.num_tiles, report.tile_pixels)
    assert plan.peak_memory_bytes == report.peak_memory_bytes


def test_alpha_is_planned_for_though_it_may_say_nothing(upscaler: Upscaler, tmp_path: Path) -> None:
    """A header does not tell that all is opaque, so the plan is no less than what is needed."""
    photo = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 4), dtype=np.uint8)
    noise[..., 3] = 255
    write_image(photo, noise)
    plan = upscaler.plan_file(photo)
    report = upscaler.upscale_file(photo, tmp_path / "out.png")
    assert plan.peak_memory_bytes > report.peak_memory_bytes
    assert plan.num_tiles == report.num_tiles
