"""``escsr upscale`` with models that restore, and with one that makes any size."""

from collections.abc import Callable
from pathlib import Path

import pytest

from escsr.images.files import probe_image
from tests.family_networks import family_file

from .conftest import Escsr, MakePicture

WeightsOf = Callable[[str], Path]


@pytest.fixture
def weights_of() -> WeightsOf:
    """The file of a small network of a class."""
    return family_file


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image file."""
    header = probe_image(path)
    return header.width, header.height


def test_a_restorer_writes_an_image_of_the_same_size(
    escsr: Escsr, make_picture: MakePicture, weights_of: WeightsOf
) -> None:
    """Beside it, with x1 in its name; saying x1 changes nothing."""
    photo, model = make_picture("photo.png"), weights_of("esc-real-m-x1")
    result = escsr("upscale", photo, "-n", model)
    assert result.exit_code == 0, result.output
    assert "photo_x1.png: done, 24x16 -> 24x16" in result.stdout
    assert size_of(photo.with_name("photo_x1.png")) == (24, 16)
    again = escsr("upscale", photo, "-n", model, "-s", "1", "--suffix", "_again")
    assert again.exit_code == 0, again.output
    results = [photo.with_name(f"photo{end}.png").read_bytes() for end in ("_x1", "_again")]
    assert results[0] == results[1]


@pytest.mark.parametrize("option", ["-s", "--width"])
def test_a_restorer_that_is_to_enlarge_says_what_to_do(
    escsr: Escsr, make_picture: MakePicture, weights_of: WeightsOf, option: str
) -> None:
    """Nothing is written; a wrong factor is wrong usage, a wrong size the image's failure."""
    photo, model = make_picture("photo.png"), weights_of("esc-real-m-x1")
    result = escsr("upscale", photo, "-n", model, option, "2" if option == "-s" else "48")
    assert result.exit_code == (2 if option == "-s" else 1)
    assert "the model is a restorer (x1)" in " ".join(result.output.split())
    assert not list(photo.parent.glob("photo_*"))


@pytest.mark.parametrize(
    ("options", "name", "size", "factor"),
    [
        # Of 24x16 pixels; whole pixels make the factor a little other than the one asked for.
        (["-s", "2.7"], "photo_x2.7.png", (65, 43), "x2.708"),
        (["--width", "301"], "photo_301x201.png", (301, 201), "x12.56"),
        (["--width", "30", "--height", "64"], "photo_30x64.png", (30, 64), "x4"),
        ([], "photo_x4.png", (96, 64), "x4"),
    ],
)
def test_any_size_is_made_exactly(
    escsr: Escsr,
    make_picture: MakePicture,
    weights_of: WeightsOf,
    quiet_again: None,
    options: list[str],
    name: str,
    size: tuple[int, int],
    factor: str,
) -> None:
    """Also by different factors for each side; the log says by what the network enlarged."""
    photo = make_picture("photo.png")
    result = escsr("upscale", photo, "-n", weights_of("esc-lte-x4"), "-t", "16", "-v", *options)
    assert result.exit_code == 0, result.output
    assert f" {factor} on " in result.stderr
    assert size_of(photo.with_name(name)) == size


def test_a_name_without_weights_asks_for_a_path(escsr: Escsr, make_picture: MakePicture) -> None:
    """Every variant is a name; only the box has weights."""
    result = escsr("upscale", make_picture(), "-n", "esc-real")
    assert result.exit_code == 1
    words = " ".join(result.output.split())
    assert "esc-real is a known network, but no trained weights of it come" in words
