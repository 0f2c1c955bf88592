"""``escsr analyze``: pictures and figures of what a network does inside."""

import json
import sys
from pathlib import Path

import pytest

from escsr.analysis.report import PICTURE_NAMES, as_json
from escsr.cli.analyze import parse_patch
from escsr.errors import ConfigurationError

from .conftest import Escsr, MakePicture

QUICK = ("--steps", "2", "--crop", "40")


@pytest.fixture
def photo(make_picture: MakePicture) -> Path:
    """A picture of 48x44 pixels."""
    return make_picture("photos/photo.png", width=48, height=44)


def test_pictures_and_figures_of_two_networks(
    escsr: Escsr, weights: Path, photo: Path, make_picture: MakePicture, tmp_path: Path
) -> None:
    """Seven pictures, all figures in one JSON, the key ones in a table; then once more."""
    pytest.importorskip("matplotlib")
    make_picture("photos/grey $a_$.png", width=40, height=40, channels=1)
    out = tmp_path / "out"
    arguments = ("analyze", "esc-tiny", photo.parent, "--against", weights, "--out", out)
    result = escsr(*arguments, "-s", "2", *QUICK)
    assert result.exit_code == 0, result.output
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in PICTURE_NAMES)
    assert "diffusion index" in result.stdout
    assert "small-x2, similarity of attention maps: it has one attention layer" in result.stderr
    report = json.loads((out / "analysis.json").read_text(encoding="utf-8"))
    assert report["pictures"] == list(PICTURE_NAMES)
    assert [image["crop"]["width"] for image in report["images"]] == [40, 40]
    ours, small = report["models"]
    assert (ours["name"], small["name"]) == ("esc-tiny", "small-x2")
    assert ours["large_kernel"]["asymmetry_used"] == pytest.approx(0, abs=1e-6)
    assert len(ours["dynamic_kernels"]["spread"]) == 8
    again = escsr(*arguments, "-s", "2", *QUICK, "--only", "kernels")
    assert again.exit_code == 0, again.output
    names = {path.name for path in out.iterdir()}
    assert names == {"large-kernel.png", "dynamic-kernels.png", "analysis.json"}


def test_json_alone_writes_no_file(
    escsr: Escsr,
    weights: Path,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """And needs no matplotlib; the patch is told in pixels of the whole image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    before = sorted(tmp_path.rglob("*"))
    result = escsr("analyze", weights, photo, "--json", "--patch", "30,20,6", *QUICK)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert {key: report["attribution_of"][key] for key in ("x", "y", "side")} == {
        "x": 30,
        "y": 20,
        "side": 6,
    }
    assert report["models"][0]["attribution"]["diffusion_index"] > 0
    assert sorted(tmp_path.rglob("*")) == before


def test_tiny_images_are_looked_at_as_far_as_they_go(
    escsr: Escsr, weights: Path, make_picture: MakePicture
) -> None:
    """What needs more pixels is skipped with the reason, and nothing fails."""
    tiny = make_picture("tiny.png", width=3, height=2)
    result = escsr("analyze", weights, tiny, "--json", *QUICK)
    assert result.exit_code == 0, result.output
    (model,) = json.loads(result.stdout)["models"]
    assert model["receptive_field"]["side_pixels"] == 2
    assert "32 pixels" in model["spectrum"]["skipped"]
    assert "Skipped: small-x2, spectrum" in result.stderr


def test_what_fails_is_named_and_the_rest_goes_on(escsr: Escsr, weights: Path, photo: Path) -> None:
    """Exit status 1."""
    broken = photo.parent / "broken.png"
    broken.write_bytes(b"no image")
    arguments = (weights, broken, photo, "--against", "esc-tny", "--json", "--only", "kernels")
    result = escsr("analyze", *arguments)
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    assert [image["path"] for image in report["images"]] == [str(photo)]
    assert "broken.png" in result.stderr
    assert "esc-tiny" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("PHOTO", "--patch", "1,2"), 2, "X,Y,SIDE"),
        (("PHOTO", "--patch", "44,2,6"), 2, "48x44 pixels"),
        (("PHOTO", "--crop", "0"), 2, "crop"),
        (("PHOTO", "--only", "beauty"), 2, "spectrum"),
        (("PHOTO", "--device", "toaster"), 2, "toaster"),
        (("nowhere.png",), 2, "nowhere.png"),
        ((), 2, "IMAGE"),
    ],
)
def test_what_cannot_be_asked_for_is_told(
    escsr: Escsr, weights: Path, photo: Path, arguments: tuple[str, ...], status: int, told: str
) -> None:
    """Before any work."""
    given = [photo if argument == "PHOTO" else argument for argument in arguments]
    result = escsr("analyze", weights, *given, "--json")
    assert result.exit_code == status, result.output
    assert told in result.stderr


def test_what_is_refused_leaves_no_folder(
    escsr: Escsr, weights: Path, photo: Path, tmp_path: Path
) -> None:
    """It is made when there is something to put into it; one that cannot be is told before."""
    pytest.importorskip("matplotlib")
    out = tmp_path / "new" / "out"
    assert escsr("analyze", weights, photo, "--patch", "44,2,6", "--out", out).exit_code == 2
    assert not out.parent.exists()
    refused = escsr("analyze", weights, photo, "--out", photo / "out")
    assert refused.exit_code == 1
    assert "cannot be written" in refused.stderr


@pytest.mark.parametrize(("model", "told"), [("esc-tny", "esc-tiny"), ("bicubic", "no network")])
def test_a_network_that_is_none_ends_it(escsr: Escsr, photo: Path, model: str, told: str) -> None:
    """There is nothing to look into."""
    result = escsr("analyze", model, photo, "--json")
    assert result.exit_code == 2
    assert told in result.stderr


def test_an_input_is_never_replaced(escsr: Escsr, weights: Path, make_picture: MakePicture) -> None:
    """Not even with --overwrite; and a folder of something else is left alone without it."""
    pytest.importorskip("matplotlib")
    image = make_picture("photos/spectrum.png")
    content = image.read_bytes()
    refused = escsr("analyze", weights, image, "--out", image.parent, "--overwrite")
    assert refused.exit_code == 1
    assert "is an input" in refused.stderr
    other = make_picture("photos/other.png")
    refused = escsr("analyze", weights, other, "--out", image.parent)
    assert "not empty" in refused.stderr
    assert image.read_bytes() == content


def test_pictures_need_an_extra_that_is_named(
    escsr: Escsr, weights: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before any work."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = escsr("analyze", weights, photo, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "escsr[plots]" in result.stderr


def test_a_patch_is_three_numbers() -> None:
    """Spaces are fine, anything else is not."""
    patch = parse_patch(" 3, 4,5")
    assert patch is not None
    assert (patch.x, patch.y, patch.side) == (3, 4, 5)
    for text in ("", "1,2", "1,2,3,4", "-1,2,3", "1.5,2,3", "a,b,c"):
        with pytest.raises(ConfigurationError, match="X,Y,SIDE"):
            parse_patch(text)


def test_json_keeps_lists_of_numbers_in_one_line() -> None:
    """And is the same to a program."""
    report = {"a": [[1, 2.5, None], [3, 4, 5]], "b": [{"c": []}, {"d": ["x[", "]", "{"]}], "e": 1}
    text = as_json(report)
    assert json.loads(text) == report
    assert "[1, 2.5, null]" in text
