"""Files that are not read: each is refused for what it is, before it can come out wrong."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image, features

from escsr.errors import ImageReadError, ImageSizeError
from escsr.images.files import probe_image, read_image

ENCODINGS = {(1, 8): "b-w", (2, 8): "b-w", (3, 8): "srgb", (4, 8): "srgb"}
ENCODINGS |= {(1, 16): "grey16", (2, 16): "grey16", (3, 16): "rgb16", (4, 16): "rgb16"}


def _vips(pixels: np.ndarray) -> pyvips.Image:
    encoding = ENCODINGS[pixels.shape[2], 8 * pixels.dtype.itemsize]
    return pyvips.Image.new_from_array(pixels, interpretation=encoding)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif", ".png", ".avif"])
def test_several_frames_are_refused_with_their_number(picture, tmp_path: Path, suffix: str) -> None:
    """No frame is dropped silently: animations and pages are counted in the error."""
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF sequences")
    frames = [Image.fromarray(picture() + np.uint8(10 * k)) for k in range(3)]
    path = tmp_path / f"a{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    for refuse in (read_image, probe_image):
        with pytest.raises(ImageReadError, match="3 frames or pages"):
            refuse(path)


def _cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif", ".gif"])
def test_a_truncated_file_is_an_error_and_not_grey_rows(
    picture, tmp_path: Path, suffix: str, share: float
) -> None:
    """A file cut anywhere is refused by name."""
    path = tmp_path / f"cut{suffix}"
    _vips(picture(120, 160, noise=40)).write_to_file(str(path))
    _cut(path, share)
    with pytest.raises(ImageReadError, match="cut") as refused:
        read_image(path)
    assert "truncated" in str(refused.value)


def test_a_jpeg_cut_and_closed_again_is_an_error(picture, tmp_path: Path) -> None:
    """Missing data before a proper end marker, which libjpeg only warns of, is refused too."""
    path = tmp_path / "closed.jpg"
    _vips(picture(120, 160, noise=40)).write_to_file(str(path))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    with pytest.raises(ImageReadError, match="premature end"):
        read_image(path)


def test_a_jpeg_with_harmless_padding_is_read(picture, tmp_path: Path, caplog) -> None:
    """Stray bytes between segments, which many cameras write, cost no pixel and are logged."""
    path = tmp_path / "padded.jpg"
    _vips(picture()).write_to_file(str(path))
    data = path.read_bytes()
    expected = read_image(path).pixels
    path.write_bytes(data[:20] + b"\0\0\0" + data[20:])
    np.testing.assert_array_equal(read_image(path).pixels, expected)
    assert "costs no pixel" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.jpg", b"", "empty"),
        ("text.png", b"This is no picture, whatever its name says.", "not an image"),
        ("one.tif", b"I", "not an image"),
        ("head.png", b"\x89PNG\r\n\x1a\n", "truncated"),
        ("head.jpg", b"\xff\xd8\xff", "truncated"),
        ("head.tif", b"II*\0\x08\0\0\0", "truncated"),
        ("loop.tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "endless"),
        ("page.svg", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "not an"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    """Empty files, text, bare headers and vector drawings say what they are."""
    (tmp_path / name).write_bytes(content)
    for refuse in (read_image, probe_image):
        with pytest.raises(ImageReadError, match=told):
            refuse(tmp_path / name)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    """A path that cannot be opened is named with the reason."""
    with pytest.raises(ImageReadError, match="No such file"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(ImageReadError, match="directory"):
        read_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="no users to become on this system")
def test_a_file_without_permission_is_refused(picture, tmp_path: Path) -> None:
    """A file that only somebody else may read says so."""
    path = tmp_path / "mine.png"
    _vips(picture()).write_to_file(str(path))
    path.chmod(0)
    become = "os.setuid(65534);" if os.getuid() == 0 else ""
    code = (
        "import os, sys; from escsr.errors import ImageReadError\n"
        f"from escsr.images.files import read_image\n{become}\n"
        "try: read_image(sys.argv[1])\n"
        "except ImageReadError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert "Permission denied" in done.stdout, done.stderr


def _png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_absurd_dimensions_are_refused_before_decoding(
    tmp_path: Path, width: int, height: int
) -> None:
    """A header that claims gigapixels is answered at once, with the limit and how to raise it."""
    (tmp_path / "bomb.png").write_bytes(_png_claiming(width, height))
    for refuse in (read_image, probe_image):
        with pytest.raises(ImageSizeError, match=r"raise max_pixels \(--max-megapixels\)"):
            refuse(tmp_path / "bomb.png")


def test_the_limit_can_be_raised_and_lowered(picture, tmp_path: Path) -> None:
    """The limit is exact: as many pixels as allowed are read, one more is not."""
    path = tmp_path / "a.jpg"
    _vips(picture()).write_to_file(str(path))
    assert read_image(path, max_pixels=40 * 56).width == 56
    with pytest.raises(ImageSizeError, match="56x40"):
        read_image(path, max_pixels=40 * 56 - 1)


def test_kinds_that_are_not_read_say_so(picture, tmp_path: Path) -> None:
    """Floating point, 32-bit integers, CIELAB and many channels are refused, each by its name."""
    base = _vips(picture())
    cases = {
        "float": base.cast("float"),
        "uint": base.cast("uint"),
        "lab": base.colourspace("lab"),
        "6 channels": base.bandjoin(base),
    }
    for told, image in cases.items():
        path = tmp_path / f"{told}.tif"
        image.tiffsave(str(path))
        with pytest.raises(ImageReadError, match=told if told != "lab" else "float|lab"):
            read_image(path)
