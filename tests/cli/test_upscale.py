"""``escsr upscale``: from files to larger files."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from escsr import Upscaler
from escsr.cli.inputs import InputFile
from escsr.cli.upscale_plan import Destination, plan_jobs
from escsr.cli.upscale_progress import LineView, run_jobs
from escsr.images.files import probe_image, read_image
from escsr.images.writer import write_image
from escsr.temporary_files import PendingFile
from escsr.upscaling.files import FileJob
from escsr.upscaling.sizes import SizeRequest
from escsr.weights import bundled_models
from tests.images.png_editing import chunks_of, insert_chunks

from .conftest import Escsr, MakePicture
from .test_plan import rules


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image file."""
    header = probe_image(path)
    return header.width, header.height


def names_in(folder: Path) -> list[str]:
    """All files in a folder, hidden ones and those below it too."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_one_file_becomes_a_larger_file_beside_it(
    upscale: Escsr, make_picture: MakePicture
) -> None:
    """Its name says the model's own factor, and one line says what was done."""
    photo = make_picture("photo.jpg")
    result = upscale(photo)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert size_of(photo.with_name("photo_x2.jpg")) == (48, 32)
    assert "photo_x2.jpg: done, 24x16 -> 48x32" in result.stdout
    assert names_in(photo.parent) == ["photo.jpg", "photo_x2.jpg"]


def test_the_default_model_is_in_the_box(escsr: Escsr, make_picture: MakePicture) -> None:
    """Without ``--model`` esc-tiny makes it four times larger."""
    if not any(model.name == "esc-tiny" and model.scale == 4 for model in bundled_models()):
        pytest.skip("the box holds no trained esc-tiny x4 yet")
    photo = make_picture("photo.jpg")
    assert escsr("upscale", photo).exit_code == 0
    assert size_of(photo.with_name("photo_x4.jpg")) == (96, 64)


@pytest.mark.parametrize(
    ("options", "name", "size"),
    [
        (["-s", "1.5"], "photo_x1.5.png", (36, 24)),
        (["--scale", "3"], "photo_x3.png", (72, 48)),
        (["--width", "60"], "photo_60x40.png", (60, 40)),
        (["--height", "24"], "photo_36x24.png", (36, 24)),
        (["--longest", "48"], "photo_48x32.png", (48, 32)),
        (["--suffix", "-big"], "photo-big.png", (48, 32)),
        (["--format", "webp"], "photo_x2.webp", (48, 32)),
        (["--ext", "TIFF"], "photo_x2.tiff", (48, 32)),
    ],
)
def test_size_name_and_format_are_as_asked(
    upscale: Escsr,
    make_picture: MakePicture,
    options: list[str],
    name: str,
    size: tuple[int, int],
) -> None:
    """The size is in the name unless a suffix is given."""
    photo = make_picture()
    result = upscale(photo, *options)
    assert result.exit_code == 0, result.output
    assert size_of(photo.with_name(name)) == size


def test_the_output_may_be_a_file_or_a_folder_that_is_made(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """A slash at the end or several inputs mean a folder, in which stems are kept."""
    one, two = make_picture("one.png"), make_picture("two.jpg")
    assert upscale(one, "-o", tmp_path / "new" / "result.webp").exit_code == 0
    assert upscale(one, "-o", f"{tmp_path}/out/deep/").exit_code == 0
    assert upscale("-i", one, "-i", two, "-o", tmp_path / "both").exit_code == 0
    assert names_in(tmp_path) == [
        "both/one.png",
        "both/two.jpg",
        "new/result.webp",
        "one.png",
        "out/deep/one.png",
        "two.jpg",
    ]


def test_folders_are_searched_and_their_structure_kept(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """``--recursive`` goes down; what is no image by its name is left alone."""
    make_picture("in/a.png")
    make_picture("in/x/b.png")
    (tmp_path / "in/notes.txt").write_text("no image")
    out = tmp_path / "out"
    assert upscale(tmp_path / "in", "-o", out).exit_code == 0
    assert names_in(out) == ["a.png"]
    assert upscale(tmp_path / "in", "-o", out, "-r", "--skip-existing").exit_code == 0
    assert names_in(out) == ["a.png", "x/b.png"]


def test_unicode_brackets_and_globs_work_together(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """A file of that very name wins over the pattern."""
    make_picture("in/写真 é😀.png")
    make_picture("in/scan[1].png")
    make_picture("in/scan1.png")
    out = tmp_path / "out"
    assert upscale(tmp_path / "in/scan[1].png", "-o", f"{out}/").exit_code == 0
    assert names_in(out) == ["scan[1].png"]
    assert upscale(tmp_path / "in/*é*.png", "-o", f"{out}/").exit_code == 0
    assert names_in(out) == ["scan[1].png", "写真 é😀.png"]


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_no_text_is_upscaled(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """Names of Unix are bytes; what is shown of them has escapes."""
    name = os.fsdecode(b"caf\xe9.png")
    try:
        make_picture().rename(tmp_path / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    result = upscale(tmp_path, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["output"].endswith("caf\udce9_x2.png")
    assert (tmp_path / os.fsdecode(b"caf\xe9_x2.png")).exists()


def test_nothing_is_overwritten_unasked(upscale: Escsr, make_picture: MakePicture) -> None:
    """An existing file is a failure that says what to do; skipping it is a success."""
    photo = make_picture()
    output = photo.with_name("photo_x2.png")
    output.write_text("mine")
    refused = upscale(photo)
    assert refused.exit_code == 1
    assert "exists already; use --overwrite or --skip-existing" in refused.stderr
    skipped = upscale(photo, "--skip-existing")
    assert skipped.exit_code == 0
    assert "it exists already" in skipped.stdout
    assert output.read_text() == "mine"
    assert upscale(photo, "--overwrite").exit_code == 0
    assert size_of(output) == (48, 32)


def test_a_second_run_on_a_folder_does_not_upscale_its_results(
    upscale: Escsr, make_picture: MakePicture
) -> None:
    """What the first run wrote beside the inputs is known as such, and no input."""
    folder = make_picture("in/photo.png").parent
    assert upscale(folder).exit_code == 0
    assert upscale(folder, "--skip-existing").exit_code == 0
    assert upscale(folder, "--overwrite").exit_code == 0
    assert names_in(folder) == ["photo.png", "photo_x2.png"]


def test_the_input_is_never_the_output(upscale: Escsr, make_picture: MakePicture) -> None:
    """Not even with ``--overwrite``; neither is another input."""
    photo, other = make_picture("a.png"), make_picture("a_x2.png")
    before = photo.read_bytes(), other.read_bytes()
    for arguments in ([photo, "-o", photo], [photo, "--suffix", ""], [photo, "-o", photo.parent]):
        result = upscale(*arguments, "--overwrite")
        assert result.exit_code == 1
        assert "inputs are never overwritten" in result.stderr
    assert upscale(photo, other, "--overwrite").exit_code == 1
    assert (photo.read_bytes(), other.read_bytes()) == before
    assert names_in(photo.parent) == ["a.png", "a_x2.png", "a_x2_x2.png"]


def test_inputs_of_one_name_get_results_of_their_own(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """By another format, and by the same name in two folders; a second run finds them all."""
    make_picture("in/a.jpg")
    make_picture("in/a.png")
    make_picture("in/b.png")
    arguments = [tmp_path / "in", make_picture("in2/b.png"), "--format", "png"]
    result = upscale(*arguments, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert names_in(tmp_path / "out") == ["a.jpg.png", "a.png", "in/b.png", "in2/b.png"]
    again = upscale(*arguments, "-o", tmp_path / "out", "--skip-existing")
    assert again.exit_code == 0
    assert "4 skipped." in again.stderr


def test_a_format_that_is_only_read_becomes_png_and_it_is_said(
    upscale: Escsr, tmp_path: Path
) -> None:
    """GIF has too few colours for the result."""
    gif = tmp_path / "old.gif"
    pixels = b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0"
    gif.write_bytes(b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0" + pixels + b"\x3b")
    result = upscale(gif)
    assert result.exit_code == 0, result.output
    assert "written as PNG: escsr does not write .gif" in result.stdout
    assert size_of(tmp_path / "old_x2.png") == (2, 2)


def test_a_format_too_small_for_the_result_becomes_png_and_it_is_said(
    upscale: Escsr, make_picture: MakePicture
) -> None:
    """WebP ends at 16,383 pixels; where it was asked for, that is a failure instead."""
    strip = make_picture("strip.webp", width=8200, height=1)
    assert upscale(strip, "--format", "webp").exit_code == 1
    result = upscale(strip, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "strip_x2.png" in result.stdout
    assert "16,383" in result.stdout


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(
    upscale: Escsr, make_picture: MakePicture
) -> None:
    """Clashes and existing files are said as well, so that the real run holds no surprise."""
    photo = make_picture("in/photo.jpg")
    result = upscale(photo.parent, "-o", photo.parent.parent / "out", "--dry-run")
    assert result.exit_code == 0
    assert "photo.jpg: to do, 24x16 -> 48x32" in result.stdout
    assert names_in(photo.parent.parent) == ["in/photo.jpg"]
    assert not (photo.parent.parent / "out").exists()


def test_a_dry_run_says_the_tiles_and_the_memory(upscale: Escsr, make_picture: MakePicture) -> None:
    """So that whoever is short of memory knows before the work; a limit below all is a failure."""
    photo = make_picture(width=64, height=48)
    assert re.search(r"64x48 -> 128x96, whole, about \d+ MB", upscale(photo, "--dry-run").stdout)
    cut = upscale(photo, "--dry-run", "-t", "16", "--overlap", "0")
    assert re.search(r"12 tiles of at most 16 pixels, about \d+ MB of memory", cut.stdout)
    exact = upscale(photo, "--dry-run", "-t", "16", "--exact")
    assert re.search(r"64x48 -> 128x96, whole, about \d+ MB", exact.stdout)
    refused = upscale(photo, "--dry-run", "--memory", "1MB")
    assert refused.exit_code == 1
    assert re.search(r"memory limit is 1 MB, but .* needs at least \d+ MB", refused.stderr)
    assert "memory limit is 1 KB, but" in upscale(photo, "--dry-run", "--memory", "1KB").stderr


def test_a_tile_that_is_rounded_up_to_whole_windows_is_told(
    upscale: Escsr, make_picture: MakePicture, caplog: pytest.LogCaptureFixture
) -> None:
    """With the side that is taken; a tile of whole windows is taken as it is."""
    photo = make_picture(width=64, height=48)
    for tile in (7, 16):
        upscale(photo, "--dry-run", "-t", str(tile))
    said = [message for message in caplog.messages if "rounded up" in message]
    assert len(said) == 1
    assert said[0].startswith("A tile of 7 pixels is rounded up to 16")


def test_json_is_all_of_stdout_and_names_every_input(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """Good, bad and missing inputs each have their object, in order."""
    good = make_picture("good.png")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image at all")
    result = upscale(good, bad, tmp_path / "gone.png", "--json", "-o", tmp_path / "out")
    assert result.exit_code == 1
    entries = json.loads(result.stdout)
    assert [Path(entry["input"]).name for entry in entries] == ["good.png", "bad.png", "gone.png"]
    assert [entry["status"] for entry in entries] == ["done", "failed", "failed"]
    first = entries[0]
    assert first["output"] == str(tmp_path / "out/good.png")
    assert (first["output_width"], first["output_height"]) == (48, 32)
    assert (first["input_width"], first["input_height"]) == (24, 16)
    assert first["seconds"] > 0
    assert first["error"] is None
    assert first["device"] == "cpu" or first["device"].startswith(("cuda", "mps"))
    assert "no such file" in entries[2]["error"]


def test_tiles_overlap_memory_and_quality_reach_the_work(
    upscale: Escsr, make_picture: MakePicture
) -> None:
    """The number of tiles tells that they were cut; the size of the file, the quality."""
    photo = make_picture("photo.jpg", width=64, height=48)
    options = ["-t", "16", "--overlap", "0", "--memory", "2GB", "--device", "cpu", "--json"]
    result = upscale(photo, *options, "--quality", "100")
    entry = json.loads(result.stdout)[0]
    assert (entry["num_tiles"], entry["precision"]) == (12, "float32")
    assert entry["exact"] is False
    fine = Path(entry["output"]).stat().st_size
    result = upscale(photo, "--tile", "0", "--quality", "10", "--overwrite", "--json")
    entry = json.loads(result.stdout)[0]
    assert (entry["num_tiles"], entry["exact"]) == (1, True)
    assert Path(entry["output"]).stat().st_size < fine


def test_exact_parts_give_the_whole_images_file(upscale: Escsr, make_picture: MakePicture) -> None:
    """A level apart at most; a dry run tells of temporary files."""
    photo = make_picture("photo.png", width=320, height=240)
    results = {}
    for name, options in {"whole": ["-t", "0"], "exact": ["-t", "32", "--exact"]}.items():
        output = photo.with_name(f"{name}.png")
        assert upscale(photo, "-o", output, *options).exit_code == 0
        results[name] = read_image(output).pixels.astype(int)
    assert abs(results["exact"] - results["whole"]).max() <= 1
    planned = upscale(photo, "--dry-run", "--memory", "16MB", "--exact").stdout
    assert re.search(r"exact, about \d+ MB of memory; \d+ MB of temporary files", planned)
    assert "tiles" in upscale(photo, "--dry-run", "-t", "64", "--no-exact").stdout


def test_colours_are_kept_unless_it_is_turned_off(
    upscale: Escsr, make_picture: MakePicture
) -> None:
    """The small network has random weights, so by itself it does not keep them."""
    photo = make_picture(width=64, height=48)
    tone = read_image(photo).pixels.mean(axis=(0, 1))
    drift: dict[str, float] = {}
    for option in ("--keep-colours", "--no-keep-colours"):
        output = photo.with_name(f"out{option}.png")
        assert upscale(photo, option, "-o", output).exit_code == 0
        drift[option] = float(abs(read_image(output).pixels.mean(axis=(0, 1)) - tone).max())
    by_default = photo.with_name("default.png")
    upscale(photo, "-o", by_default)
    kept = photo.with_name("out--keep-colours.png")
    assert by_default.read_bytes() == kept.read_bytes()
    assert drift["--keep-colours"] < 0.25 * drift["--no-keep-colours"]


def test_keeping_the_time_gives_results_the_dates_of_their_inputs(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """To the nanosecond; otherwise a result is as young as it is."""
    photo = make_picture()
    os.utime(photo, ns=(10**18, 10**18 + 1234))
    dated = photo.stat().st_mtime_ns  # as precise as the file system
    for option, name in (("--keep-time", "dated.png"), ("--no-exact", "now.png")):
        assert upscale(photo, option, "-o", tmp_path / name).exit_code == 0
    assert (tmp_path / "dated.png").stat().st_mtime_ns == dated
    assert (tmp_path / "now.png").stat().st_mtime_ns > dated


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_result_takes_permissions_and_links_with_it(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """Private photos give private results; a replaced result keeps its mode, a link its place."""
    photo = make_picture()
    photo.chmod(0o600)
    assert upscale(photo, "-o", tmp_path / "new.png").exit_code == 0
    assert (tmp_path / "new.png").stat().st_mode & 0o777 == 0o600
    disk = make_picture("disk/old.png")
    disk.chmod(0o664)
    (tmp_path / "link.png").symlink_to(disk)
    refused = upscale(photo, "-o", tmp_path / "link.png")
    assert refused.exit_code == 1
    assert size_of(disk) == (24, 16)
    assert upscale(photo, "-o", tmp_path / "link.png", "--overwrite").exit_code == 0
    assert (tmp_path / "link.png").is_symlink()
    assert size_of(disk) == (48, 32)
    assert disk.stat().st_mode & 0o777 == 0o664
    assert names_in(tmp_path) == ["disk/old.png", "link.png", "new.png", "photo.png"]


def test_a_name_too_long_for_the_result_is_told_before_the_work(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """By a dry run as well, with what helps; in bytes, of which é has two."""
    photo = make_picture("é" * 124 + "a.png")
    for options in ([], ["--dry-run"], ["-o", f"{tmp_path}/new/", "--suffix", "_large"]):
        result = upscale(photo, *options)
        assert result.exit_code == 1
        assert "bytes where 255 are allowed" in result.stderr
        assert "--suffix" in result.stderr
    assert upscale(photo, "-o", f"{tmp_path}/new/", "--dry-run").exit_code == 0
    assert names_in(tmp_path) == [photo.name]


def test_patterns_leave_out_the_results_of_an_earlier_run(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output folder lies below what is searched: opened by us and by a shell."""
    make_picture("in/a.png")
    make_picture("in/sub/a.png")
    monkeypatch.chdir(tmp_path)
    everything = ["in/a.png", "in/out/a.png", "in/out/sub/a.png", "in/sub/a.png"]
    for _ in range(2):
        result = upscale("in/**/*.png", "-o", "in/out", "--skip-existing")
        assert result.exit_code == 0, result.output
        assert names_in(tmp_path) == everything
    by_shell = upscale("in/a.png", "in/out/a.png", "-o", "in/out", "--skip-existing")
    assert by_shell.exit_code == 0, by_shell.output
    assert names_in(tmp_path) == everything


def test_several_results_are_not_put_into_a_folder_called_like_an_image(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """A slip: nothing is made; a slash, or a folder that exists, says it is meant."""
    one, two = make_picture("a.png"), make_picture("b.png")
    for inputs in ([one, two], [tmp_path / "*.png"], [tmp_path]):
        result = upscale(*inputs, "-o", tmp_path / "out.png")
        assert result.exit_code == 2
        assert "has the name of an image file" in result.stderr
    assert names_in(tmp_path) == ["a.png", "b.png"]
    assert upscale(one, two, "-o", f"{tmp_path}/out.png/").exit_code == 0
    assert upscale(one, two, "-o", tmp_path / "out.png", "--overwrite").exit_code == 0
    assert names_in(tmp_path / "out.png") == ["a.png", "b.png"]


def test_a_pattern_with_one_match_goes_to_a_folder_as_with_two(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """How many files there are today changes no meaning."""
    make_picture("in/a.png")
    assert upscale(tmp_path / "in/*.png", "-o", tmp_path / "out").exit_code == 0
    make_picture("in/b.png")
    assert upscale(tmp_path / "in/*.png", "-o", tmp_path / "out", "--skip-existing").exit_code == 0
    assert names_in(tmp_path / "out") == ["a.png", "b.png"]


def test_what_is_left_out_of_a_folder_is_told(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """In lines, in JSON, and in the status, which is that of what can be read."""
    make_picture("in/a.png")
    (tmp_path / "in/b.tga").touch()
    (tmp_path / "in/notes.txt").touch()
    result = upscale(tmp_path / "in", "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0
    assert [(Path(e["input"]).name, e["status"]) for e in json.loads(result.stdout)] == [
        ("a.png", "done"),
        ("b.tga", "skipped"),
    ]
    assert "b.tga: skipped, TGA is not read; convert it to PNG" in result.stderr
    assert "1 file that is no image by name" in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot remove what is open")
def test_a_run_removes_what_a_killed_one_left_in_its_output_folder(
    upscale: Escsr, make_picture: MakePicture, tmp_path: Path
) -> None:
    """Also below, and not in folders where it writes nothing."""
    make_picture("in/sub/a.png")
    for folder in ("out/sub", "other"):
        (tmp_path / folder).mkdir(parents=True)
        with PendingFile(tmp_path / folder / "half.png") as file:
            (temporary,) = (tmp_path / folder).iterdir()
            file.discard()
        temporary.write_bytes(b"half")
    assert upscale(tmp_path / "in", "-r", "-o", tmp_path / "out").exit_code == 0
    assert names_in(tmp_path / "out") == ["sub/a.png"]
    assert len(names_in(tmp_path / "other")) == 1


def test_a_result_that_another_run_made_meanwhile_is_skipped_or_refused(
    weights: Path, make_picture: MakePicture, tmp_path: Path
) -> None:
    """It appears after the plan and before the work; whoever was first, the file stays."""
    files = [InputFile(path=make_picture(f"in/{name}.png")) for name in "ab"]
    upscaler = Upscaler(weights)
    for leaves_existing, status in ((True, "skipped"), (False, "failed")):
        out = tmp_path / status
        planned = plan_jobs(files, rules(Destination(folder=out)))
        out.mkdir()
        (out / "a.png").write_bytes(b"theirs")
        outcome = run_jobs(
            planned,
            lambda jobs, watch: upscaler.upscale_files(
                [FileJob(input=j.file.path, output=j.output, request=SizeRequest()) for j in jobs],
                watch,
            ),
            LineView(2, stdout_is_taken=False),
            lambda report: None,
            leaves_existing=leaves_existing,
        )
        assert [result.status for result in outcome.results] == [status, "done"]
        assert outcome.exit_status == (not leaves_existing)
        assert (out / "a.png").read_bytes() == b"theirs"


def _stereo_jpeg(path: Path) -> None:
    picture = Image.fromarray(np.full((12, 16, 3), 90, np.uint8))
    picture.save(path, format="MPO", save_all=True, append_images=[picture.copy()])


def test_what_a_result_lacks_is_told_on_its_line_and_in_json(
    upscale: Escsr, tmp_path: Path
) -> None:
    """A second picture and PNG texts that JPEG cannot hold are named; the status stays 0."""
    _stereo_jpeg(tmp_path / "a.jpg")
    info = PngInfo()
    info.add_text("parameters", "a tree")
    Image.fromarray(np.full((12, 16, 3), 90, np.uint8)).save(tmp_path / "b.png", pnginfo=info)
    result = upscale(tmp_path / "a.jpg", "-o", tmp_path / "c.jpg")
    assert result.exit_code == 0
    assert "without 1 further picture (MPO)" in result.stdout
    result = upscale(tmp_path / "b.png", "--format", "jpg", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)[0]["note"] == "without PNG texts (parameters)"


def test_hdr_that_a_format_cannot_state_is_refused_or_becomes_png(
    upscale: Escsr, tmp_path: Path
) -> None:
    """A PQ picture asked for as WebP fails by name and leaves no file; as PNG it states PQ."""
    pixels = np.full((12, 16, 3), 90, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    insert_chunks(tmp_path / "a.png", (b"cICP", bytes([9, 16, 0, 1])))
    result = upscale(tmp_path / "a.png", "-o", tmp_path / "b.webp")
    assert result.exit_code == 1
    assert "HDR (PQ)" in result.stderr
    assert not (tmp_path / "b.webp").exists()
    assert upscale(tmp_path / "a.png", "-o", tmp_path / "b.png").exit_code == 0
    assert (b"cICP", bytes([9, 16, 0, 1])) in chunks_of(tmp_path / "b.png")


def test_a_fourth_channel_may_be_data_and_a_texture_may_repeat(
    upscale: Escsr, weights: Path, tmp_path: Path
) -> None:
    """The options reach the result: that of an Upscaler with the same ones."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 4), dtype=np.uint8)
    pixels[:, 12:, 3] = 0
    write_image(tmp_path / "in.png", pixels)
    small = str(weights)
    for name, upscaler, arguments in (
        ("data", Upscaler(small, device="cpu", alpha="data"), ["--alpha", "data"]),
        ("wrap", Upscaler(small, device="cpu", edges="wrap"), ["--edges", "wrap"]),
        ("plain", Upscaler(small, device="cpu"), []),
    ):
        output = tmp_path / f"{name}.png"
        result = upscale(tmp_path / "in.png", "-o", output, "--device", "cpu", *arguments)
        assert result.exit_code == 0, result.output
        assert np.array_equal(read_image(output).pixels, upscaler(pixels))
    files = [(tmp_path / f"{name}.png").read_bytes() for name in ("data", "wrap", "plain")]
    assert len(set(files)) == 3


@pytest.mark.parametrize("arguments", [["--alpha", "mask"], ["--edges", "mirror"]])
def test_an_unknown_meaning_of_alpha_or_edges_is_wrong_usage(
    upscale: Escsr, make_picture: MakePicture, arguments: list[str]
) -> None:
    """With the allowed values, and nothing is done."""
    result = upscale(make_picture(), *arguments)
    assert result.exit_code == 2
    assert "allowed are" in result.stderr
