"""Files that are not read: each is refused for what it is, before it can come out wrong."""

import io
import os
import socket
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image, features

from escsr.errors import ImageReadError, ImageSizeError
from escsr.images.files import probe_image, read_image
from tests.images.tiff_bytes import LONG, SHORT, Value, tiff_bytes

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


def _jpeg(pixels: np.ndarray, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", subsampling=0, **options)
    return buffer.getvalue()


def _after(data: bytes, marker: bytes) -> int:
    """Where the content of the scan begins, or another segment's end."""
    start = data.index(marker)
    return start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")


STRAY = b"\0\1\2"


def _harmless(data: bytes) -> dict[str, bytes]:
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\7"
    second = _after(data, b"\xff\xe0")
    return {
        "stray bytes behind the first segment": data[:second] + STRAY + data[second:],
        "stray bytes before the scan": data.replace(b"\xff\xda", STRAY + b"\xff\xda", 1),
        "an unknown Adobe transform": data[:2] + adobe + data[second:],
        "no end marker": data[:-2],
        "all of them": data[:second] + STRAY + adobe + data[second:-2],
    }


def test_flaws_of_jpegs_that_cost_no_pixel_are_read(picture, tmp_path: Path, caplog) -> None:
    """Stray bytes before the scan, odd Adobe segments and a missing end marker change nothing."""
    data = _jpeg(picture(noise=40))
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    expected = read_image(path).pixels
    assert not caplog.text
    for what, flawed in _harmless(data).items():
        path.write_bytes(flawed)
        np.testing.assert_array_equal(read_image(path).pixels, expected, what)
        assert "costs no pixel" in caplog.text, what
        caplog.clear()


def test_a_progressive_jpeg_without_end_marker_is_read_if_all_scans_are_there(
    picture, tmp_path: Path
) -> None:
    """Without its last two bytes it gives the same pixels; cut anywhere before, it is refused."""
    data = _jpeg(picture(60, 80, noise=40), progressive=1)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    expected = read_image(path).pixels
    path.write_bytes(data[:-2])
    np.testing.assert_array_equal(read_image(path).pixels, expected)
    last_scan = data.rindex(b"\xff\xda")
    for end in (last_scan, last_scan + 6, (last_scan + len(data)) // 2, len(data) // 3):
        path.write_bytes(data[:end])
        with pytest.raises(ImageReadError):
            read_image(path)


def _damaged_jpegs(picture) -> dict[str, bytes]:
    pixels = picture(120, 160, noise=40)
    data = _jpeg(pixels)
    closed = data[: len(data) // 2] + b"\xff\xd9"
    restarts = _jpeg(pixels, restart_marker_blocks=4)
    first, third = restarts.index(b"\xff\xd1"), restarts.index(b"\xff\xd4")
    progressive = _jpeg(pixels, progressive=1)
    return {
        "cut and closed": closed,
        "restart intervals are missing": restarts[:first] + restarts[third:],
        "stray bytes within the scan": restarts[:first] + STRAY + restarts[first:],
        "a scan is missing": progressive[: progressive.rindex(b"\xff\xda")],
    }


def test_damaged_jpegs_are_refused_whatever_flaw_stands_beside(picture, tmp_path: Path) -> None:
    """Missing data is an error alone, with a harmless flaw, and after a file that has one."""
    whole = tmp_path / "harmless.jpg"
    data = _jpeg(picture())
    whole.write_bytes(_harmless(data)["stray bytes before the scan"])
    path = tmp_path / "damaged.jpg"
    for what, damaged in _damaged_jpegs(picture).items():
        second = _after(damaged, b"\xff\xe0")
        for content in (damaged, damaged[:second] + STRAY + damaged[second:]):
            read_image(whole)
            path.write_bytes(content)
            with pytest.raises(ImageReadError, match="truncated, damaged"):
                raise AssertionError(f"{what}: {read_image(path)}")


@pytest.mark.parametrize("tile", [False, True])
def test_damaged_jpeg_streams_within_a_tiff_are_an_error(
    picture, tmp_path: Path, tile: bool
) -> None:
    """Missing data of a TIFF's JPEG strips and tiles, of which libtiff only warns, is refused."""
    path = tmp_path / "a.tif"
    image = _vips(picture(160, 160, noise=40))
    data = bytearray(image.tiffsave_buffer(compression="jpeg", tile=tile))
    path.write_bytes(data)
    assert read_image(path).width == 160
    cut = data.rindex(b"\xff\xda") + 600
    data[cut : cut + 2] = b"\xff\xd9"
    path.write_bytes(data)
    with pytest.raises(ImageReadError, match="premature end"):
        read_image(path)


def test_a_tiff_that_lacks_tiles_is_an_error(picture, tmp_path: Path) -> None:
    """A directory that names fewer tiles than the picture has is damaged, and not black there."""
    path = tmp_path / "a.tif"
    data = bytearray(
        _vips(picture(64, 64)).tiffsave_buffer(tile=True, tile_width=16, tile_height=16)
    )
    path.write_bytes(data)
    np.testing.assert_array_equal(read_image(path).pixels, picture(64, 64))
    for tag in (324, 325):
        at = data.index(struct.pack("<HHI", tag, 3 if tag == 325 else 4, 16))
        changed = bytearray(data)
        changed[at + 4 : at + 8] = struct.pack("<I", 9)
        path.write_bytes(changed)
        with pytest.raises(ImageReadError, match="16 tiles"):
            read_image(path)


@pytest.mark.parametrize("planar", [1, 2])
def test_a_tiff_that_lacks_strips_is_an_error(picture, tmp_path: Path, planar: int) -> None:
    """A directory that names fewer strips than the picture has is damaged, in each plane too."""
    path = tmp_path / "a.tif"
    pixels = picture(24, 16)
    stored = pixels if planar == 1 else np.moveaxis(pixels, 2, 0).reshape(24, 16, 3)
    length = 8 * 16 * (3 if planar == 1 else 1)
    starts = tuple(range(8, 8 + pixels.nbytes, length))
    for count in (len(starts), len(starts) - 1):
        for offsets, lengths in ((count, len(starts)), (len(starts), count)):
            tags: list[Value] = [(278, LONG, 8), (284, SHORT, planar)]
            tags += [(273, LONG, starts[:offsets]), (279, LONG, (length,) * lengths)]
            path.write_bytes(tiff_bytes(stored, *tags))
            if count == len(starts):
                np.testing.assert_array_equal(read_image(path).pixels, pixels)
            else:
                with pytest.raises(ImageReadError, match=f"{len(starts)} strips"):
                    read_image(path)


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
        ("page.svg", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "SVG"),
        ("a.png", b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0", "BMP"),
        ("a.jxl", b"\xff\x0a\x7f\x10", "JPEG XL"),
        ("b.jxl", b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        ("a.psd", b"8BPS\0\1" + bytes(40), "Photoshop"),
        ("a.exr", b"v/1\1" + bytes(40), "OpenEXR"),
        ("a.ppm", b"P6\n9 9\n255\n", "Netpbm"),
        ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        ("a.ico", b"\0\0\1\0\1\0", "icon"),
        ("a.tga", bytes((0, 0, 2, *bytes(9), 9, 0, 9, 0, 24, 0)), "TGA"),
        ("a.cr2", b"II*\0\x10\0\0\0CR\2\0", "camera raw"),
        ("a.cr3", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "camera raw"),
        ("a.jpg", b"<!DOCTYPE html><html>", "web page"),
        ("b.png", b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    """Empty files, text, bare headers and vector drawings say what they are."""
    (tmp_path / name).write_bytes(content)
    for refuse in (read_image, probe_image):
        with pytest.raises(ImageReadError, match=told):
            refuse(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipes_sockets_and_devices_are_refused_without_waiting(tmp_path: Path) -> None:
    """What is no regular file is not opened, since that can wait for ever, or read without end."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("pipe.png")
    refused = {tmp_path / "pipe.png": "named pipe", tmp_path / "link.png": "named pipe"}
    refused[Path("/dev/zero")] = "character device"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
        refused[tmp_path / "socket.png"] = "a socket"
        for path, told in refused.items():
            with pytest.raises(ImageReadError, match=told):
                read_image(path)


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


def _chunk(kind: bytes, data: bytes) -> bytes:
    checked = kind + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))


def _png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"\0")) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _tiff(entries: list[tuple[int, int, int, int]], *, next_at: int = 0, at: int = 8) -> bytes:
    """A directory of (number, type, count, value); the header too where it stands first."""
    head = b"II*\0" + struct.pack("<I", 8) if at == 8 else b""
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return head + struct.pack("<H", len(entries)) + body + struct.pack("<I", next_at)


_GREY_8X8 = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1)]
_GREY_8X8 += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 8), (279, 4, 1, 64)]


def _shared(num_tags: int, size: int) -> bytes:
    """Tags that all point to the same value."""
    at = 8 + 2 + 12 * (num_tags + len(_GREY_8X8)) + 4
    tags = [(40_000 + k, 7, size, at) for k in range(num_tags)]
    return _tiff(_GREY_8X8 + tags) + b"x" * size


def _chain(num_directories: int, num_tags: int) -> bytes:
    """Directories of one picture and previews of it, one behind the other."""
    tags = [(254, 4, 1, 1), *_GREY_8X8, *((50_000 + k, 3, 1, 0) for k in range(num_tags))]
    step = 2 + 12 * len(tags) + 4
    parts = [
        _tiff(tags, at=8 + k * step, next_at=8 + (k + 1) * step) for k in range(num_directories)
    ]
    return b"".join(parts)


def _png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """A picture of 8x8 with more chunks behind its header."""
    data = _vips(np.zeros((8, 8, 3), np.uint8)).pngsave_buffer()
    return data[:33] + b"".join(_chunk(*part) for part in chunks) + data[33:]


def _bombs() -> dict[str, bytes]:
    packed = zlib.compress(b"A" * 7_000_000, 1)
    texts = [b"t%d\0" % k for k in range(5)]
    return {
        "tags share a value.tif": _shared(2000, 1 << 20),
        "many directories.tif": _chain(1500, 0),
        "many tags.tif": _chain(100, 2000),
        "zTXt.png": _png_with(*((b"zTXt", text + b"\0" + packed) for text in texts)),
        "iTXt.png": _png_with(*((b"iTXt", text + b"\1\0\0\0" + packed) for text in texts)),
        "one zTXt.png": _png_with((b"zTXt", b"t\0\0" + zlib.compress(bytes(33 << 20), 1))),
        "iCCP.png": _png_with((b"iCCP", b"p\0\0" + zlib.compress(bytes(33 << 20), 1))),
        "many chunks.png": _png_with(*[(b"tEXt", b"")] * 10_001),
    }


def test_headers_made_to_fill_the_memory_are_refused(tmp_path: Path) -> None:
    """Tags, chains and compressed texts of gigabytes in a small file are not unpacked."""
    for name, content in _bombs().items():
        path = tmp_path / name
        path.write_bytes(content)
        tracemalloc.start()
        try:
            with pytest.raises(ImageReadError, match="made to fill the memory"):
                raise AssertionError(f"{name}: {probe_image(path)}")
            assert tracemalloc.get_traced_memory()[1] < len(content) + (8 << 20), name
        finally:
            tracemalloc.stop()


def test_exif_whose_tags_share_a_value_is_left_out(tmp_path: Path) -> None:
    """Camera data of a gigabyte in a megabyte are not unpacked; the picture is read."""
    path = tmp_path / "exif.png"
    path.write_bytes(_png_with((b"eXIf", _shared(2000, 1 << 20))))
    tracemalloc.start()
    try:
        assert read_image(path).width == 8
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


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
