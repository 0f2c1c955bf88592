"""Images through pipes, and standard streams that are closed, full or read by nobody."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from escsr.cli.app import app
from escsr.images.files import probe_image, read_image

from .conftest import Escsr, MakePicture
from .test_upscale import names_in, size_of


@pytest.fixture
def through_pipe(weights: Path) -> "Escsr":
    """Run ``escsr upscale`` with the small network in this process and bytes on its stdin."""

    def run(data: bytes, *arguments: str | Path) -> Result:
        command = ["upscale", "-n", str(weights), *map(str, arguments)]
        return CliRunner().invoke(app, command, input=data)

    return run


def test_an_image_comes_from_standard_input(
    through_pipe: Escsr, upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """Into a file and into a folder, with the pixels that the file itself gives."""
    photo = make_picture()
    assert upscale(photo, "-o", tmp_path / "direct.png").exit_code == 0
    result = through_pipe(photo.read_bytes(), "-", "-o", tmp_path / "piped.png")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"- -> {tmp_path / 'piped.png'}: done, 24x16 -> 48x32")
    direct, piped = (read_image(tmp_path / f"{name}.png").pixels for name in ("direct", "piped"))
    np.testing.assert_array_equal(piped, direct)
    into_folder = through_pipe(photo.read_bytes(), photo, "-", "-o", tmp_path / "out")
    assert into_folder.exit_code == 0, into_folder.output
    assert names_in(tmp_path / "out") == ["photo.png", "stdin.png"]


@pytest.mark.parametrize(
    ("name", "options", "form"),
    [("a.png", [], "PNG"), ("a.jpg", [], "JPEG"), ("a.png", ["--format", "webp"], "WebP")],
)
def test_the_image_is_all_that_standard_output_gets(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path, name: str, options: list, form: str
) -> None:
    """In the input's format unless another is asked for; the lines go to standard error."""
    result = upscale(make_picture(name), "-o", "-", *options)
    assert result.exit_code == 0, result.output
    (tmp_path / "got").write_bytes(result.stdout_bytes)
    header = probe_image(tmp_path / "got")
    assert (header.format, header.width, header.height) == (form, 48, 32)
    assert f"{name} -> -: done, 24x16 -> 48x32" in result.stderr
    assert names_in(tmp_path) == [name, "got"]


def test_a_filter_reads_and_writes_standard_streams(
    through_pipe: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """The format is that of what came in."""
    photo = make_picture("a.jpg")
    result = through_pipe(photo.read_bytes(), "-", "-o", "-", "--format", "png")
    assert result.stdout_bytes.startswith(b"\x89PNG")
    for output in ("-", "/dev/stdout"):
        same = through_pipe(photo.read_bytes(), "-", "-o", output)
        assert same.stdout_bytes.startswith(b"\xff\xd8\xff")


def test_what_is_no_image_on_standard_input_fails_as_such(
    through_pipe: Escsr, tmp_path: Path
) -> None:
    """Nothing, text, and half an image; no name of a temporary file is told."""
    for data in (b"", b"hello " * 1000, b"\x89PNG\r\n\x1a\n" + bytes(100)):
        result = through_pipe(data, "-", "-o", tmp_path / "o.png")
        assert result.exit_code == 1, result.output
        assert result.stderr.startswith("-: FAILED: standard input ")
        assert "/escsr-" not in result.stderr
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.png", "-o", "-", "--json"], "both need standard output"),
        (["a.png", "a.png", "-o", "-"], "one image"),
        (["*.png", "-o", "-"], "one image"),
        (["-"], "--output"),
    ],
)
def test_what_standard_streams_cannot_do_is_a_usage_error(
    through_pipe: Escsr,
    make_picture: MakePicture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    """JSON and an image, several images in one stream, and a result without a place."""
    make_picture("a.png")
    monkeypatch.chdir(tmp_path)
    result = through_pipe(b"", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert words in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has other pipes")
def test_a_named_pipe_and_a_descriptor_are_read_once(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """As bash gives them for <(command)."""
    photo = make_picture()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(photo.read_bytes(),))
    writer.start()
    reading, writing = os.pipe()
    os.write(writing, photo.read_bytes())
    os.close(writing)
    try:
        result = upscale(pipe, f"/dev/fd/{reading}", "-o", tmp_path / "out")
    finally:
        os.close(reading)
        writer.join()
    assert result.exit_code == 0, result.output
    assert names_in(tmp_path / "out") == sorted([f"{reading}.png", "pipe.png"])
    assert stat.S_IMODE((tmp_path / "out/pipe.png").stat().st_mode) == 0o666 & ~umask()


def umask() -> int:
    """That of this process."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.skipif(os.name == "nt", reason="Windows has other shells")
@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", ">/dev/full", "| true"])
def test_closed_full_and_abandoned_streams_cost_no_result(
    weights: Path, make_picture: MakePicture, tmp_path: Path, streams: str
) -> None:
    """All results are made, whole, and the status is that of the work."""
    folder = make_picture("in/a.png").parent
    make_picture("in/b.png")
    command = f'"{sys.executable}" -m escsr upscale "{folder}" -o "{tmp_path}/out" -n "{weights}"'
    program = ["bash", "-c", f"set -o pipefail; {command} {streams}"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert [size_of(tmp_path / f"out/{name}.png") for name in "ab"] == [(48, 32)] * 2
    assert names_in(tmp_path / "out") == ["a.png", "b.png"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("options", [["--json"], ["-o", "-"]])
def test_output_that_cannot_be_stored_is_a_failure_in_one_line(
    weights: Path, make_picture: MakePicture, options: list[str]
) -> None:
    """JSON and an image on a full disk."""
    command = [sys.executable, "-m", "escsr", "upscale", str(make_picture()), "-n", str(weights)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*command, *options],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 1
    assert "could not be written to standard output" in done.stderr
    assert "Traceback" not in done.stderr
