"""Thousands of damaged files of every format: each is read, or refused by an error of ours.

``ESCSR_FUZZ_CASES`` sets how many (1,000 unless given).
"""

import io
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

from escsr.errors import EscsrError
from escsr.images.files import probe_image, read_image
from escsr.images.writer import write_image
from tests.images.tiff_bytes import DOUBLE, RATIONAL, SHORT, TEXT, Value, tiff_bytes
from tests.mutation import number_of_cases

NUM_FILES = number_of_cases(1000)

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
TIFF_TAGS: tuple[Value, ...] = (
    (270, TEXT, '{"shape": [10, 12, 4]}'),
    (270, TEXT, "ImageJ=1.54\nunit=micron\n"),
    *((number, RATIONAL, (4, 1)) for number in (282, 283)),
    (296, SHORT, 1),
    (338, SHORT, 1),
    (33550, DOUBLE, (10.0, 10.0, 0.0)),
    (33922, DOUBLE, (0.0,) * 6),
    (34264, DOUBLE, tuple(map(float, range(16)))),
    (34735, SHORT, (1, 1, 0, 1, 1025, 0, 1, 2)),
)


def _exif() -> bytes:
    exif = Image.Exif()
    exif[274], exif[270], exif[306] = 6, "A letter", "2024:05:06 07:08:09"
    exif.get_ifd(34665)[40962] = 12
    exif.get_ifd(34853)[1] = "N"
    return exif.tobytes()


def _sound_files(pixels: np.ndarray) -> dict[str, bytes]:
    """One small file of every kind that is read, with metadata."""
    image = pyvips.Image.new_from_array(pixels, interpretation="srgb")
    deep = pyvips.Image.new_from_array(pixels.astype(np.uint16) * 257, interpretation="rgb16")
    opaque, blob = image.extract_band(0, n=3), pyvips.GValue.blob_type
    for picture in (image, deep, opaque):
        profile = pyvips.Image.profile_load("srgb")
        picture.set_type(blob, "icc-profile-data", profile)  # pyright: ignore[reportArgumentType]
        picture.set_type(blob, "exif-data", _exif())  # pyright: ignore[reportArgumentType]
        picture.set_type(blob, "xmp-data", XMP)  # pyright: ignore[reportArgumentType]
    palette = io.BytesIO()
    Image.fromarray(pixels[..., :3]).quantize(16).save(palette, "PNG", transparency=3)
    progressive = io.BytesIO()
    photo = Image.fromarray(pixels[..., :3])
    photo.save(
        progressive, "JPEG", progressive=True, comment="A letter", exif=_exif(), dpi=(72, 36)
    )
    return {
        "baseline.jpg": opaque.jpegsave_buffer(restart_interval=1),
        "progressive.jpg": progressive.getvalue(),
        "cmyk.jpg": image.copy(interpretation="cmyk").jpegsave_buffer(),
        "8.png": image.pngsave_buffer(),
        "16.png": deep.pngsave_buffer(interlace=True),
        "palette.png": palette.getvalue(),
        "lossy.webp": image.webpsave_buffer(),
        "lossless.webp": image.webpsave_buffer(lossless=True),
        "deflate.tif": deep.tiffsave_buffer(compression="deflate", predictor="horizontal"),
        "lzw.tif": image.tiffsave_buffer(compression="lzw", tile=True, pyramid=True),
        "jpeg.tif": opaque.tiffsave_buffer(compression="jpeg"),
        "big.tif": image.tiffsave_buffer(bigtiff=True),
        "tags.tif": tiff_bytes(pixels, *TIFF_TAGS),
        "big-endian.tif": tiff_bytes(pixels, *TIFF_TAGS, order=">"),
        "8.avif": image.heifsave_buffer(compression="av1", effort=0),
        "10.avif": deep.heifsave_buffer(compression="av1", effort=0, bitdepth=10),
        "a.gif": image.gifsave_buffer(effort=1),
    }


def _change_bytes(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 8))):
        data[chance.randrange(len(data))] = chance.randrange(256)


def _change_header(data: bytearray, chance: random.Random) -> None:
    """Put a number that breaks arithmetic where lengths, offsets and counts stand."""
    code = chance.choice("HIQ")
    peak = 256 ** struct.calcsize(code) - 1
    value = chance.choice((0, 1, peak, peak // 2, peak // 2 + 1, peak - 5, len(data), 65_536))
    packed = struct.pack(chance.choice("<>") + code, min(value, peak))
    at = chance.randrange(min(len(data), 600)) & -2
    data[at : at + len(packed)] = packed


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _take_out(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    del data[at : at + chance.randrange(1, 64)]


def _repeat(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at:at] = data[at : at + chance.randrange(1, 64)] * chance.choice((1, 3, 50))


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _change_bytes,
    _change_header,
    _change_header,
    _cut,
    _take_out,
    _repeat,
)


def _mutated(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2))):
        if changed:
            chance.choice(MUTATIONS)(changed, chance)
    return bytes(changed)


def _read_and_write(path: Path, output: Path) -> bool:
    """Do with a file what enlarging does; tell whether it came to a result."""
    try:
        probe_image(path)
        source = read_image(path)
        if source.pixels.size > 1 << 16:
            return True  # sizes changed: sound, but long to write
        pixels = source.pixels.repeat(2, axis=0).repeat(2, axis=1)
        write_image(output, pixels, metadata=source.metadata, overwrite=True)
    except EscsrError as error:
        if isinstance(error.__cause__, NameError | AttributeError | TypeError | LookupError):
            raise error.__cause__ from error
        return False
    source.metadata.left_out("JPEG")
    return True


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused_by_errors_of_ours(
    picture, tmp_path: Path, monkeypatch, caplog
) -> None:
    """No damage ends in another exception while a file is probed, read and written again.

    No file is left behind, and the errors of foreign readers hide no faults of our own code.
    """
    caplog.set_level("CRITICAL")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    files = _sound_files(picture(10, 12, 4, noise=40))
    outputs = [tmp_path / f"output{suffix}" for suffix in (".png", ".tif", ".png", ".tif", ".jpg")]
    num_results = 0
    names = list(files)
    for number in range(NUM_FILES):
        chance = random.Random(number)
        name = names[number % len(names)]
        path = tmp_path / f"input{Path(name).suffix}"
        path.write_bytes(_mutated(files[name], chance))
        try:
            num_results += _read_and_write(path, chance.choice(outputs))
        except Exception as error:
            raise AssertionError(f"file {number}, made of {name}: {error!r}") from error
        left = {p.name for p in tmp_path.iterdir()} - {p.name for p in outputs} - {path.name}
        assert not left, (number, name)
        path.unlink()
    # A test of refusals alone would not reach what comes behind the header.
    assert num_results > NUM_FILES // 10
