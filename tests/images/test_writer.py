"""Writing row by row: right pixels, whole files or none, limits told before the work."""

import os
import stat
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import pyvips
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from escsr.errors import ImageValueError, ImageWriteError
from escsr.images.files import WRITABLE_SUFFIXES, read_image
from escsr.images.writer import ImageWriter, write_image


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    channels=st.integers(1, 4),
    deep=st.booleans(),
    suffix=st.sampled_from([".png", ".tif"]),
    step=st.integers(1, 80),
)
def test_png_and_tiff_lose_nothing(
    tmp_path: Path, height: int, width: int, channels: int, deep: bool, suffix: str, step: int
) -> None:
    """Any size, kind and depth, in any portions of rows, comes back to the last bit."""
    dtype = np.uint16 if deep else np.uint8
    random = np.random.default_rng(height * 1000 + width)
    pixels = random.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype)
    path = tmp_path / f"a{suffix}"
    with ImageWriter(
        path,
        width=width,
        height=height,
        channels=channels,
        bit_depth=16 if deep else 8,
        overwrite=True,
    ) as writer:
        for start in range(0, height, step):
            writer.write_rows(pixels[start : start + step])
    np.testing.assert_array_equal(read_image(path).pixels, pixels)
    assert list(tmp_path.iterdir()) == [path]
    path.unlink()


@pytest.mark.parametrize(
    ("suffix", "channels", "bit_depth"),
    [
        (".jpg", 1, 8),
        (".jpeg", 3, 8),
        (".webp", 1, 8),
        (".webp", 3, 8),
        (".webp", 2, 8),
        (".webp", 4, 8),
        (".avif", 1, 8),
        (".avif", 3, 8),
        (".avif", 4, 8),
        (".avif", 3, 16),
        (".avif", 4, 16),
    ],
)
def test_lossy_formats_stay_close(
    picture, tmp_path: Path, suffix: str, channels: int, bit_depth: int
) -> None:
    """JPEG, WebP and AVIF keep size and opacity, grey stays neutral, colours hardly move."""
    pixels = picture(channels=channels, bit_depth=bit_depth)
    path = tmp_path / f"a{suffix}"
    write_image(path, pixels)
    image = read_image(path)
    assert image.bit_depth == bit_depth
    assert image.has_alpha == (channels in (2, 4))
    colour = image.pixels[..., :-1] if image.has_alpha else image.pixels
    original = pixels[..., :-1] if channels in (2, 4) else pixels
    if channels <= 2:
        # WebP and AVIF hold no grey: it comes back as three equal channels, but that WebP's
        # own conversion to RGB loses one level of green in 4 of 256 greys.
        assert (colour[..., 0] == colour[..., -1]).all()
        assert np.ptp(colour.astype(int), axis=2).max() <= (suffix == ".webp")
    peak = 2**bit_depth - 1
    # At these qualities 1 % of the range on average is twice what was seen.
    assert np.abs(colour.astype(int) - original).mean() < 0.01 * peak


def test_jpeg_keeps_colour_at_full_resolution(picture, tmp_path: Path) -> None:
    """JPEG is written 4:4:4, so a colour edge stays sharp."""
    write_image(tmp_path / "a.jpg", picture())
    header = pyvips.Image.new_from_file(str(tmp_path / "a.jpg"))
    assert header.get("jpeg-chroma-subsample") == "4:4:4"


def test_quality_makes_files_smaller(picture, tmp_path: Path) -> None:
    """The quality given is the quality used."""
    pixels = picture(100, 100, noise=40)
    for suffix in (".jpg", ".webp", ".avif"):
        write_image(tmp_path / f"fine{suffix}", pixels)
        write_image(tmp_path / f"coarse{suffix}", pixels, quality=30)
        fine, coarse = (tmp_path / f"{name}{suffix}" for name in ("fine", "coarse"))
        assert coarse.stat().st_size < fine.stat().st_size / 2
    with pytest.raises(ImageValueError, match="1 to 100"):
        write_image(tmp_path / "b.jpg", pixels, quality=0)


@pytest.mark.parametrize("name", ["photo[1].jpg", "[Q=3].png", "Фото 写真.webp", "a b.tif"])
def test_odd_names_are_written(picture, tmp_path: Path, name: str) -> None:
    """Brackets and Unicode are just names."""
    write_image(tmp_path / name, picture())
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208 - names, not paths
    assert read_image(tmp_path / name).width == 56


def test_permissions_follow_the_umask(picture, tmp_path: Path) -> None:
    """The file gets the permissions of any new file, not those of a temporary one."""
    old = os.umask(0o027)
    try:
        write_image(tmp_path / "a.png", picture())
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_the_file_appears_only_when_it_is_complete(picture, tmp_path: Path) -> None:
    """While rows come, there is only a hidden temporary file beside the output."""
    pixels = picture()
    path = tmp_path / "a.png"
    with ImageWriter(path, width=56, height=40, channels=3, bit_depth=8) as writer:
        writer.write_rows(pixels[:20])
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(".escsr-")
        assert temporary.name.endswith(".partial")
        writer.write_rows(pixels[20:])
    assert list(tmp_path.iterdir()) == [path]


def test_rows_may_be_reused_by_the_caller(picture, tmp_path: Path) -> None:
    """The array belongs to the caller again as soon as write_rows returns."""
    pixels = picture(200, 300)
    band = np.empty((10, 300, 3), np.uint8)
    with ImageWriter(tmp_path / "a.png", width=300, height=200, channels=3, bit_depth=8) as writer:
        for start in range(0, 200, 10):
            band[:] = pixels[start : start + 10]
            writer.write_rows(band)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, pixels)


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_rows_that_are_handed_over_are_the_same_rows(
    picture, tmp_path: Path, bit_depth: int
) -> None:
    """Whole arrays, views of others, and none at all, without a copy in between."""
    pixels = picture(200, 300, bit_depth=bit_depth)
    parts = [pixels[:0], pixels[:90], np.asfortranarray(pixels[90:150]), pixels[150:]]
    with ImageWriter(
        tmp_path / "a.png", width=300, height=200, channels=3, bit_depth=bit_depth
    ) as writer:
        for part in parts:
            writer.hand_over(part)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, pixels)


def test_rows_that_are_handed_over_are_not_waited_for(tmp_path: Path) -> None:
    """The encoder takes a second for this noise; handing it over takes none of it."""
    noise = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
    started = time.monotonic()
    with ImageWriter(
        tmp_path / "a.png", width=4000, height=3000, channels=3, bit_depth=8
    ) as writer:
        writer.hand_over(noise)
        handed_over = time.monotonic()
    assert handed_over - started < (time.monotonic() - started) / 2


def test_a_writer_can_be_abandoned_from_another_thread(tmp_path: Path) -> None:
    """Whoever waits for the encoder hears of it within moments, and no file stays."""
    noise = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
    writer = ImageWriter(tmp_path / "a.png", width=4000, height=3000, channels=3, bit_depth=8)
    timer = threading.Timer(0.1, writer.abandon)
    with pytest.raises(ImageWriteError), writer:
        writer.hand_over(noise)
        timer.start()
    timer.join()
    assert list(tmp_path.iterdir()) == []


def test_abandoning_a_finished_file_changes_nothing(picture, tmp_path: Path) -> None:
    """It came too late."""
    with ImageWriter(tmp_path / "a.png", width=56, height=40, channels=3, bit_depth=8) as writer:
        writer.hand_over(picture())
    writer.abandon()
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, picture())


def test_views_and_foreign_byte_order_are_written_right(picture, tmp_path: Path) -> None:
    """Rows that are no plain array in memory are no trap."""
    pixels = picture(bit_depth=16)
    write_image(tmp_path / "a.png", pixels[::-1, ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, pixels[::-1, ::-1])


@pytest.mark.parametrize("suffix", sorted(WRITABLE_SUFFIXES))
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_no_file(picture, tmp_path: Path, suffix: str, error: type) -> None:
    """Whatever ends the block, nothing half-written stays, for every format."""
    path = tmp_path / f"a{suffix}"
    with (
        pytest.raises(error),
        ImageWriter(path, width=56, height=40, channels=3, bit_depth=8) as writer,
    ):
        writer.write_rows(picture()[:20])
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_file(picture, tmp_path: Path) -> None:
    """What should have been replaced is still there."""
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with (
        pytest.raises(RuntimeError),
        ImageWriter(path, width=56, height=40, channels=3, bit_depth=8, overwrite=True),
    ):
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_and_surplus_rows_are_refused(picture, tmp_path: Path) -> None:
    """A result is never padded or cut silently."""
    size = {"width": 56, "height": 40, "channels": 3, "bit_depth": 8}
    with (
        pytest.raises(ImageValueError, match="40 rows, and 39"),
        ImageWriter(tmp_path / "a.png", **size) as writer,
    ):
        writer.write_rows(picture()[:39])
    with (
        pytest.raises(ImageValueError, match="only 40"),
        ImageWriter(tmp_path / "a.png", **size) as writer,
    ):
        writer.write_rows(picture())
        writer.write_rows(picture()[:1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((4, 57, 3), np.uint8),
        np.zeros((4, 56, 4), np.uint8),
        np.zeros((4, 56, 3), np.uint16),
        np.zeros((4, 56, 3), np.float32),
        np.zeros((56, 3), np.uint8),
    ],
)
def test_rows_of_another_kind_are_refused(tmp_path: Path, rows: np.ndarray) -> None:
    """Width, channels, depth and axes must be those announced."""
    with (
        pytest.raises(ImageValueError, match=r"Rows must be \(h, 56, 3\) uint8"),
        ImageWriter(tmp_path / "a.png", width=56, height=40, channels=3, bit_depth=8) as writer,
    ):
        writer.write_rows(rows)
    assert list(tmp_path.iterdir()) == []


def test_many_writers_leave_no_threads(picture, tmp_path: Path) -> None:
    """Threads end with their files."""
    import threading

    for index in range(10):
        write_image(tmp_path / f"{index}.png", picture())
    assert not [t for t in threading.enumerate() if t.name == "escsr-writer"]


def test_an_interruption_while_the_writer_opens_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C before the block is entered: __exit__ never runs, so opening must clean up itself."""

    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    writer = ImageWriter(tmp_path / "x.png", width=8, height=8, channels=3, bit_depth=8)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), writer:
        pass
    assert list(tmp_path.iterdir()) == []
