"""Flat regions and borders of results: they keep their value, and photographs lose nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from escsr import Upscaler
from escsr.errors import ConfigurationError
from escsr.images.files import read_image
from escsr.images.writer import write_image
from escsr.upscaling.fidelity import keep_colours
from tests.family_networks import family_file
from tests.networks import (
    ArrayEngine,
    drifting,
    engine_of,
    nearest_engine,
    upscaler_of,
)
from tests.upscaling.test_colour_guard import CAT
from tests.upscaling.test_cutouts import UPSCALERS

MAGENTA, GREEN, SKIN, WHITE = (255, 0, 255), (0, 255, 0), (224, 172, 105), (255, 255, 255)


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    """The shipped network, which sees zeros beyond the border."""
    return Upscaler("esc-tiny", device="cpu")


def errors(result: np.ndarray, value: Any) -> np.ndarray:
    """The largest difference of a pixel's channels, in levels of 8 bits."""
    unit = np.iinfo(result.dtype).max / 255
    return np.abs(result.astype(float) - np.asarray(value, float) * unit).max(axis=-1) / unit


@pytest.mark.parametrize("scale", [2, 2.7, 3, 4])
@pytest.mark.parametrize("colour", [MAGENTA, GREEN, SKIN, WHITE])
def test_a_picture_of_one_colour_stays_of_that_colour(
    upscaler: Upscaler, colour: tuple[int, int, int], scale: float
) -> None:
    """Exactly, up to the border; the network alone is off by up to 25 levels there."""
    result = upscaler(np.full((40, 23, 3), colour, np.uint8), scale=scale)
    assert (errors(result, colour) == 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 50), (50, 3), (17, 16)])
def test_size_makes_no_difference(upscaler: Upscaler, shape: tuple[int, int]) -> None:
    """Of one pixel or a stripe, at 16 bits."""
    result = upscaler(np.full((*shape, 3), (65535, 0, 65535), np.uint16), scale=2)
    assert (errors(result, MAGENTA) == 0).all()


@pytest.mark.parametrize("how", UPSCALERS)
@pytest.mark.parametrize(
    ("ground", "ink"), [(MAGENTA, (40, 90, 30)), (WHITE, (0, 0, 0))], ids=["key", "paper"]
)
def test_the_ground_of_a_drawing_is_exact_6_pixels_off_its_edges(
    how: str, ground: tuple[int, int, int], ink: tuple[int, int, int]
) -> None:
    """In one piece, in tiles and layer by layer."""
    drawing = np.full((64, 64, 3), ground, np.uint8)
    drawing[24:40, 20:44] = ink
    drawing[28:36, 24:40:4] = ground
    result = Upscaler("esc-tiny", device="cpu", **UPSCALERS[how])(drawing, scale=2)
    far = np.ones((128, 128), bool)
    far[2 * (24 - 6) : 2 * (40 + 6), 2 * (20 - 6) : 2 * (44 + 6)] = False
    assert (errors(result, ground)[far] == 0).all()


def stripes() -> np.ndarray:
    """Bands of saturated colours that end at all borders, 12 pixels wide."""
    colours = np.array([MAGENTA, GREEN, (0, 0, 255), (255, 255, 0)], np.uint8)
    place = np.arange(60) // 12
    return colours[(place[:, None] + place) % 4]


@pytest.mark.parametrize("model", ["esc-tiny", "esc-tiny-real"])
def test_edges_that_meet_the_border_are_as_they_are_inside(model: str) -> None:
    """What does not change towards the border comes out there as it does 5 pixels inside."""
    flag = np.repeat(stripes()[:1], 48, axis=0)
    result = Upscaler(model, device="cpu")(flag, scale=4)
    assert errors(result[:4], result[4 * 5 : 4 * 6].astype(float)).max() <= 1
    bare = Upscaler(model, device="cpu", keep_colours=False)(flag, scale=4)
    assert errors(bare[:4], bare[4 * 5 : 4 * 6].astype(float)).max() > 15


def test_a_flat_border_3_pixels_wide_is_flat_too(upscaler: Upscaler) -> None:
    """Beside a drawn frame there is no room for flat surroundings, and yet no zeros show."""
    framed = np.full((48, 48, 3), MAGENTA, np.uint8)
    framed[3:-3, 3:-3] = 255
    middle = slice(4 * 12, -4 * 12)
    bare = Upscaler("esc-tiny", device="cpu", keep_colours=False)(framed, scale=4)
    result = upscaler(framed, scale=4)
    # The frame itself ripples, 2 pixels off.
    assert errors(result[:4, middle], MAGENTA).max() <= 3
    assert errors(result[middle, :4], MAGENTA).max() <= 3
    assert errors(bare[:4, middle], MAGENTA).max() > 10


def test_a_photograph_is_what_the_network_makes_of_it(upscaler: Upscaler) -> None:
    """To the last bit: it has no flat borders and no flat regions."""
    photo = read_image(CAT).pixels[60:124, 100:180]
    image = photo.transpose(2, 0, 1)[None] / np.float32(255)
    made = keep_colours(engine_of("esc-tiny-x2").run(image), image)
    expected = np.rint(made.clip(0, 1)[0] * 255).transpose(1, 2, 0)
    assert np.array_equal(upscaler(photo, scale=2), expected)


def test_tones_that_are_to_change_may_change() -> None:
    """Without ``keep_colours`` a flat picture is what the network says."""
    engine = ArrayEngine(drifting)
    flat = np.full((9, 9, 3), (100, 90, 80), np.uint8)
    assert (upscaler_of(engine, keep_colours=False)(flat) == (103, 88, 78)).all()
    assert (upscaler_of(engine)(flat) == flat[0, 0]).all()


@pytest.mark.parametrize("scale", [2.7, 2])
def test_a_network_for_any_size_places_pixels_by_the_image_without_its_margins(
    scale: float,
) -> None:
    """A wrapped texture is the middle of nine copies, and layer by layer it is the same."""
    network = family_file("esc-lte-x4")
    texture = stripes()[:44, :50].astype(np.float32) / 255
    results = {
        how: Upscaler(network, device="cpu", edges="wrap", **options)(texture, scale=scale)
        for how, options in UPSCALERS.items()
    }
    height, width = results["whole"].shape[:2]
    copies = np.tile(texture, (3, 3, 1))
    large = Upscaler(network, device="cpu", tile="whole")(
        copies, width=3 * width, height=3 * height
    )
    # 1e-6: the rounding of float32, summed in another order. The windows of attention lie elsewhere
    # in nine copies, and a tile's statistics are its own: less than a level. A pixel too far to the
    # side would be 6 levels off in the mean.
    assert np.abs(results["exact"] - results["whole"]).max() < 1e-6
    middle = large[height : 2 * height, width : 2 * width]
    assert np.abs(results["whole"] - middle).max() < 1 / 255
    assert np.abs(results["tiles"] - middle).max() < 1 / 255


def seam(image: np.ndarray) -> float:
    """How much more neighbours differ across the seams of a repeated image than inside it."""
    values = image.astype(float)
    ratios: list[float] = []
    for axis in (0, 1):
        steps = np.abs(np.diff(values, axis=axis)).mean()
        across = np.abs(np.take(values, 0, axis) - np.take(values, -1, axis)).mean()
        ratios.append(across / steps)
    return max(ratios)


def texture() -> np.ndarray:
    """A texture that repeats after 48 x 40 pixels."""
    y, x = np.mgrid[:40, :48]
    waves = [np.sin(2 * np.pi * (a * y / 40 + b * x / 48)) for a, b in ((1, 2), (3, 1), (5, 7))]
    return np.clip(np.stack(waves, axis=-1) * 90 + 128, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("how", UPSCALERS)
def test_a_texture_that_repeats_has_no_seam(how: str) -> None:
    """Across its ends neighbours differ no more than inside; without wrapping they do."""
    options: dict[str, Any] = UPSCALERS[how]
    image = texture()
    wrapped = Upscaler("esc-tiny", device="cpu", edges="wrap", **options)(image, scale=2)
    plain = Upscaler("esc-tiny", device="cpu", **options)(image, scale=2)
    assert wrapped.shape == plain.shape
    assert seam(wrapped) < 1.1 * seam(image)
    assert seam(plain) > seam(wrapped)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_shrinking_to_any_factor_leaves_no_seam_either(dtype: type, tmp_path: Path) -> None:
    """It is the middle of nine copies that were shrunk; a file holds the same."""
    image = texture() if dtype is np.uint8 else texture().astype(np.float32) / 255
    upscaler = upscaler_of(nearest_engine(2), edges="wrap")
    result = upscaler(image, scale=1.7)
    height, width = result.shape[:2]
    assert (width, height) == (82, 68)
    copies = upscaler(np.tile(image, (3, 3, 1)), width=3 * width, height=3 * height)
    middle = copies[height : 2 * height, width : 2 * width].astype(float)
    # Fractions of a level are rounded, and positions in the copies to a 64th of a pixel (libvips).
    assert np.abs(result - middle).max() <= (2 if dtype is np.uint8 else 1e-5)
    if dtype is np.uint8:
        write_image(tmp_path / "in.png", image)
        upscaler.upscale_file(tmp_path / "in.png", tmp_path / "out.png", scale=1.7)
        assert np.array_equal(read_image(tmp_path / "out.png").pixels, result)


def test_wrapping_gives_the_middle_of_many_copies() -> None:
    """To the rounding of a network that sees the same from there; also of images below a margin."""
    image = texture()[:7, :5]
    result = upscaler_of(nearest_engine(2), edges="wrap")(image)
    assert np.array_equal(result, image.repeat(2, axis=0).repeat(2, axis=1))


def test_other_edges_are_refused() -> None:
    """With those there are."""
    with pytest.raises(ConfigurationError, match="'mirror'; allowed are auto, wrap"):
        upscaler_of(nearest_engine(2), edges="mirror")
