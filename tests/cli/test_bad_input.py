"""What cannot be done: each says why, ends with its exit status, and leaves no half files."""

from pathlib import Path

import pytest

from escsr.cli.console import show_warnings

from .conftest import Escsr, MakePicture
from .test_upscale import names_in


def no_image(path: Path, photo: bytes) -> None:
    """Text under the name of a picture."""
    path.write_text("This is not an image.")


def empty(path: Path, photo: bytes) -> None:
    """A file of 0 bytes."""
    path.touch()


def truncated(path: Path, photo: bytes) -> None:
    """A picture of which the end is missing."""
    path.write_bytes(photo[: len(photo) // 2])


def tiff_beyond_the_file(path: Path, photo: bytes) -> None:
    """A BigTIFF whose directory is said to stand at 2**64 - 1."""
    path.write_bytes(b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(64))


def avif_beyond_the_file(path: Path, photo: bytes) -> None:
    """An AVIF whose second box is said to have 2**63 bytes."""
    path.write_bytes(b"\0\0\0\x14ftypavif\0\0\0\0avif" + b"\0\0\0\1free\x80" + bytes(64))


def folder_named_like_a_picture_below_a_file(path: Path, photo: bytes) -> None:
    """A link to a path below a file, which nobody can read, not even root."""
    path.symlink_to(path.parent / "good.png" / "below.png")


@pytest.mark.parametrize(
    "make_bad",
    [
        no_image,
        empty,
        truncated,
        tiff_beyond_the_file,
        avif_beyond_the_file,
        folder_named_like_a_picture_below_a_file,
    ],
)
def test_a_bad_file_is_named_and_the_rest_goes_on(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path, make_bad
) -> None:
    """Exit status 1; the good ones are done; nothing is left of the bad one."""
    photo = make_picture("in/good.png", width=40, height=40)
    make_bad(tmp_path / "in/bad.png", photo.read_bytes())
    make_picture("in/zebra.jpg")
    result = upscale(tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "bad.png: FAILED: " in result.stderr
    assert "2 done, 1 FAILED." in result.stderr
    assert "Traceback" not in result.output
    assert names_in(tmp_path / "out") == ["good.png", "zebra.jpg"]


@pytest.mark.parametrize(
    "options",
    [
        ["-s", "0"],
        ["-s", "-2"],
        ["-s", "1"],
        ["-s", "nan"],
        ["-s", "inf"],
        ["-s", "1e9"],
        ["-s", "four"],
        ["--width", "0"],
        ["--longest", "-5"],
        ["-s", "2", "--width", "100"],
        ["--tile", "-1"],
        ["--tile", "big"],
        ["--overlap", "-1"],
        ["--device", "toaster"],
        ["--precision", "float99"],
        ["--attention", "flash"],
        ["--memory", "lots"],
        ["--format", "xyz"],
        ["--quality", "0"],
        ["--suffix", "../up"],
        ["--max-megapixels", "nan"],
        ["--overwrite", "--skip-existing"],
        ["-o", "result.xyz"],
        ["--no-such-option"],
    ],
)
def test_an_option_that_cannot_be_is_a_usage_error_before_any_work(
    upscale: Escsr, make_picture: MakePicture, options: list[str]
) -> None:
    """Exit status 2, one line that names it, and no file."""
    photo = make_picture()
    result = upscale(photo, *options)
    assert result.exit_code == 2, result.output
    assert "Error: " in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert names_in(photo.parent) == ["photo.png"]


def test_an_unknown_model_shows_the_nearest_names(escsr: Escsr, make_picture: MakePicture) -> None:
    """A slip of the finger is not a riddle."""
    result = escsr("upscale", make_picture(), "-n", "esc-tyni")
    assert result.exit_code == 2
    assert "esc-tiny" in result.stderr


def test_a_broken_checkpoint_ends_the_run_in_one_line(
    escsr: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """There is no model to go on with."""
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\0" * 64)
    result = escsr("upscale", make_picture(), "-n", broken)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert "broken.safetensors" in result.stderr


def test_no_input_is_a_usage_error(upscale: Escsr, tmp_path: Path) -> None:
    """Nothing named, nothing there, nothing in the folder, nothing matched."""
    for arguments in ([], [tmp_path / "gone.png"], [tmp_path], [tmp_path / "*.png"]):
        result = upscale(*arguments)
        assert result.exit_code == 2
        assert "No input" in result.stderr


def test_a_second_name_that_is_no_file_may_have_been_meant_for_the_result(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """The message says how to name it; a name that no result can have was meant otherwise."""
    photo = make_picture()
    for name, is_hinted_at in (("out.png", True), ("out.txt", False)):
        result = upscale(photo, tmp_path / name, "--dry-run")
        assert result.exit_code == 1
        assert "There is no such file or folder." in result.stderr
        assert (f"write -o {tmp_path / name}." in result.stderr) == is_hinted_at


def test_an_output_that_cannot_be_made_is_refused(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """A folder below a file, a file below a file, and a folder where the file should go."""
    photo = make_picture()
    (tmp_path / "file").touch()
    for output in (f"{tmp_path}/file/", tmp_path / "file/below/a.png"):
        result = upscale(photo, "-o", output)
        assert result.exit_code == 2
        assert "is a file, not a folder" in result.stderr
    (tmp_path / "photo_x2.png").mkdir()
    result = upscale(photo, "--overwrite")
    assert result.exit_code == 1
    assert "photo_x2.png is a folder" in result.stderr
    assert names_in(tmp_path) == ["file", "photo.png"]


def test_an_output_path_that_the_system_refuses_is_told_in_one_line(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """A name too long to look up, as a file and as a folder; a closed folder answers likewise."""
    photo = make_picture()
    for output in (f"{'a' * 300}.png", f"{'a' * 300}/a.png"):
        result = upscale(photo, "-o", tmp_path / output)
        assert result.exit_code == 1
        assert f"{photo}: FAILED: " in result.stderr
        assert "unexpected" not in result.stderr
    assert names_in(tmp_path) == ["photo.png"]


def test_a_format_that_cannot_hold_the_result_fails_before_the_work(
    upscale: Escsr, make_picture: MakePicture
) -> None:
    """JPEG has no alpha; unasked, the input's own format is kept and holds it."""
    photo = make_picture("alpha.png", channels=4)
    result = upscale(photo, "--format", "jpg")
    assert result.exit_code == 1
    assert "JPEG" in result.stderr
    assert names_in(photo.parent) == ["alpha.png"]
    assert upscale(photo).exit_code == 0


def test_an_absurd_size_is_refused_until_the_limit_is_raised(
    upscale: Escsr, make_picture: MakePicture
) -> None:
    """The limit counts pixels of the input, and is told in the message."""
    photo = make_picture(width=40, height=30)
    result = upscale(photo, "--max-megapixels", "0.001")
    assert result.exit_code == 1
    assert "photo.png: FAILED: " in result.stderr
    assert "40x30 pixels, 0.0012 megapixels; the limit is 0.0010." in result.stderr
    assert upscale(photo, "--max-megapixels", "0.0012").exit_code == 0


def test_what_is_large_enough_already_is_skipped_unless_its_result_was_named(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """Whether a width enlarges depends on the file; a size that shrinks one side alone fails."""
    make_picture("in/small.png", width=20)
    make_picture("in/wide.png", width=60)
    result = upscale(tmp_path / "in", "--width", "40", "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "wide.png: skipped, nothing to enlarge: it has 60x16 pixels already" in result.stdout
    assert names_in(tmp_path / "out") == ["small.png"]
    named = upscale(tmp_path / "in/wide.png", "--width", "40", "-o", tmp_path / "wide.png")
    assert named.exit_code == 1
    assert "nothing to enlarge" in named.stderr
    both = upscale(tmp_path / "in", "--width", "40", "--height", "40", "-o", tmp_path / "square")
    assert both.exit_code == 1
    assert names_in(tmp_path / "square") == ["small.png"]


def test_names_in_warnings_of_the_log_are_escaped(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """A file name cannot colour the terminal or turn text, where a flaw of the file is logged."""
    photo = make_picture("photo.jpg").read_bytes()
    path = tmp_path / "in" / "a\x1b[31m\u202egpj.jpg"
    path.parent.mkdir()
    path.write_bytes(photo.replace(b"\xff\xda", b"\0\1\2\xff\xda", 1))
    show_warnings()
    result = upscale(path.parent, "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "costs no pixel" in result.stderr
    assert not {"\x1b", "\u202e"} & set(result.output)
