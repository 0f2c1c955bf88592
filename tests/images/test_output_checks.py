"""What can be stored where is told before the work."""

from pathlib import Path

import numpy as np
import pytest

from escsr.errors import (
    EscsrError,
    ImageFormatError,
    ImageSizeError,
    ImageValueError,
    ImageWriteError,
    OutputExistsError,
)
from escsr.images.files import read_image
from escsr.images.writer import ImageWriter, check_output, write_image


def test_nothing_is_overwritten_unasked(picture, tmp_path: Path) -> None:
    """An existing file stays, whether it was there before or came while we worked."""
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match="exists already"):
        write_image(path, picture())
    late = tmp_path / "b.png"
    with (
        pytest.raises(OutputExistsError, match="exists already"),
        ImageWriter(late, width=56, height=40, channels=3, bit_depth=8) as writer,
    ):
        writer.write_rows(picture())
        late.write_bytes(b"precious")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        "a.png": b"precious",
        "b.png": b"precious",
    }
    write_image(path, picture(), overwrite=True)
    np.testing.assert_array_equal(read_image(path).pixels, picture())


@pytest.mark.parametrize(
    ("name", "size", "told"),
    [
        ("a.jpg", {"width": 65_536}, "JPEG holds at most 65,500 pixels a side"),
        ("a.jpg", {"height": 65_501}, "JPEG holds at most 65,500 pixels a side"),
        ("a.webp", {"width": 16_384}, "WebP holds at most 16,383 pixels a side"),
        ("a.avif", {"height": 16_385}, "AVIF holds at most 16,384 pixels a side"),
        ("a.jpg", {"channels": 4}, "JPEG holds no transparency"),
        ("a.jpg", {"channels": 2}, "JPEG holds no transparency"),
        ("a.jpg", {"bit_depth": 16}, "JPEG holds 8 bits"),
        ("a.webp", {"bit_depth": 16}, "WebP holds 8 bits"),
        ("a.gif", {}, "cannot write"),
        ("a.heic", {}, "cannot write"),
        ("a.txt", {}, "use one of .avif"),
        ("a", {}, "cannot write"),
    ],
)
def test_a_format_that_cannot_hold_the_result_is_refused(
    tmp_path: Path, name: str, size: dict[str, int], told: str
) -> None:
    """The limit is named before any work, by check_output and by the writer alike."""
    wanted = {"width": 64, "height": 64, "channels": 3, "bit_depth": 8} | size
    with pytest.raises(ImageFormatError, match=told):
        check_output(tmp_path / name, **wanted)
    with pytest.raises(ImageFormatError, match=told):
        ImageWriter(tmp_path / name, **wanted)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [("a.jpg", 65_500, 1), ("a.jpg", 1, 65_500), ("a.webp", 16_383, 1), ("a.avif", 16_384, 16)],
)
def test_the_stated_limits_are_reached(tmp_path: Path, name: str, width: int, height: int) -> None:
    """The longest side that check_output allows can really be written and read."""
    write_image(tmp_path / name, np.full((height, width, 3), 90, np.uint8))
    image = read_image(tmp_path / name)
    assert (image.width, image.height) == (width, height)


def test_limits_hold_for_the_size_of_the_file_and_not_of_the_rows(tmp_path: Path) -> None:
    """Rows too long for WebP may come if they are shrunk on their way."""
    size = {"width": 20_000, "height": 8, "channels": 3, "bit_depth": 8}
    with ImageWriter(tmp_path / "a.webp", target_size=(10_000, 4), **size) as writer:
        writer.write_rows(np.full((8, 20_000, 3), 90, np.uint8))
    assert read_image(tmp_path / "a.webp").width == 10_000


def test_check_output_looks_at_the_folder(tmp_path: Path) -> None:
    """A missing folder, a file in its place and a folder as the output are told apart."""
    size = {"width": 8, "height": 8, "channels": 3, "bit_depth": 8}
    with pytest.raises(ImageWriteError, match="does not exist; make it"):
        check_output(tmp_path / "absent" / "a.png", **size)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ImageWriteError, match="does not exist"):
        check_output(tmp_path / "file" / "a.png", **size)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageWriteError, match="is a folder"):
        check_output(tmp_path / "folder.png", **size)
    assert check_output(tmp_path / "a.png", **size).name == "PNG"


def test_senseless_sizes_and_kinds_are_refused(tmp_path: Path) -> None:
    """Zero pixels, five channels and 12 bits are refused."""
    size = {"width": 8, "height": 8, "channels": 3, "bit_depth": 8}
    with pytest.raises(ImageSizeError, match="0x8"):
        check_output(tmp_path / "a.png", **(size | {"width": 0}))
    for wrong in ({"channels": 5}, {"channels": 0}, {"bit_depth": 12}):
        with pytest.raises(ImageValueError, match="allowed are"):
            check_output(tmp_path / "a.png", **(size | wrong))
    with pytest.raises(ImageValueError, match="float64"):
        write_image(tmp_path / "a.png", np.zeros((4, 4, 3)))
    with pytest.raises(EscsrError):
        ImageWriter(tmp_path / "a.png", target_size=(0, 4), **size)
