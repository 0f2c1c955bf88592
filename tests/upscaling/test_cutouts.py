"""Transparency in results: colours and opacity agree at edges, and other channels are data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from escsr import Upscaler
from escsr.errors import ConfigurationError
from escsr.images.files import read_image
from escsr.images.writer import write_image
from tests.networks import nearest_engine, smallest, upscaler_of

SIDE = 48
MIDDLE = (SIDE - 1) / 2
UPSCALERS: dict[str, dict[str, Any]] = {
    "whole": {},
    "tiles": {"tile": 32, "overlap_pixels": 16},
    "exact": {"tile": 32, "exact": True},
}


def distances(side: int) -> np.ndarray:
    """Of the pixels of a square to its middle, in pixels of a square of ``SIDE``."""
    place = (np.arange(side) + 0.5) * SIDE / side - 0.5 - MIDDLE
    return np.hypot(*np.meshgrid(place, place))


def disc(colour: tuple[int, ...], *, soft: bool = False, dtype: type = np.uint8) -> np.ndarray:
    """A disc of one colour and a radius of 14 on black that is fully transparent."""
    distance = distances(SIDE)
    alpha = np.clip((16 - distance) / 4, 0, 1) if soft else (distance < 14).astype(float)
    levels = np.rint(alpha * 255)[..., None]
    pixels = np.concatenate((np.where(levels > 0, colour, 0), levels), axis=-1)
    return (pixels * (np.iinfo(dtype).max // 255)).astype(dtype)


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    """The shipped network, whose own edges overshoot."""
    return Upscaler("esc-tiny", device="cpu")


def require_colour(result: np.ndarray, colour: tuple[int, ...]) -> None:
    """Within 16 levels wherever it can be seen, and within 3 in the mean."""
    unit = np.iinfo(result.dtype).max / 255
    visible = result[..., -1] > 64 * unit
    error = np.abs(result[visible][:, :-1] / unit - colour).max(axis=-1)
    assert error.max() <= 16
    assert error.mean() <= 3


def require_hard_edge(result: np.ndarray) -> None:
    """Alpha is exactly nothing and everything 4 source pixels off the edge."""
    distance = distances(result.shape[0])
    assert (result[distance > 14 + 4][:, -1] == 0).all()
    assert (result[distance < 14 - 4][:, -1] == np.iinfo(result.dtype).max).all()


@pytest.mark.parametrize("scale", [2, 2.7, 3, 4])
@pytest.mark.parametrize("colour", [(20, 20, 20), (128, 30, 30), (250, 250, 250), (0, 0, 255)])
def test_a_cutout_keeps_its_colour_up_to_its_edge(
    upscaler: Upscaler, colour: tuple[int, ...], scale: float
) -> None:
    """Dark, pale and saturated, at whole factors and others, and its alpha is clean."""
    result = upscaler(disc(colour), scale=scale)
    require_colour(result, colour)
    require_hard_edge(result)


@pytest.mark.parametrize("how", UPSCALERS)
@pytest.mark.parametrize(("model", "soft"), [("esc-tiny", True), ("esc-tiny-real", False)])
def test_a_cutout_is_clean_however_it_is_worked_on(how: str, model: str, soft: bool) -> None:
    """In one piece, in tiles and layer by layer; soft edges, and the network for photographs."""
    result = Upscaler(model, device="cpu", **UPSCALERS[how])(disc((128, 30, 30), soft=soft))
    require_colour(result, (128, 30, 30))
    if not soft:
        require_hard_edge(result)


@pytest.mark.parametrize("colour", [(90,), (20, 160, 60)])
def test_a_cutout_of_16_bits_or_of_grey_is_clean(
    upscaler: Upscaler, colour: tuple[int, ...]
) -> None:
    """At a factor that is shrunk too."""
    for dtype, scale in ((np.uint8, 2), (np.uint16, 2), (np.uint16, 2.7)):
        result = upscaler(disc(colour, dtype=dtype), scale=scale)
        assert result.dtype == dtype
        require_colour(result, colour)
        require_hard_edge(result)


@pytest.mark.parametrize("how", UPSCALERS)
def test_a_cutout_that_ends_at_the_border_of_a_texture_keeps_its_colour(how: str) -> None:
    """The hidden other end is beside it where the texture repeats, in both directions."""
    texture = np.zeros((SIDE, SIDE, 4), np.uint8)
    texture[: SIDE // 2, : SIDE // 2] = (0, 90, 200, 255)
    upscaler = Upscaler("esc-tiny", device="cpu", edges="wrap", **UPSCALERS[how])
    require_colour(upscaler(texture, scale=2), (0, 90, 200))


@pytest.mark.parametrize("alpha", [0, 128, 255])
@pytest.mark.parametrize("scale", [2, 2.7])
def test_even_opacity_stays_exactly_what_it_is(
    upscaler: Upscaler, alpha: int, scale: float
) -> None:
    """Opaque, half transparent and fully transparent pictures, up to their borders."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 4), dtype=np.uint8)
    pixels[..., 3] = alpha
    assert (upscaler(pixels, scale=scale)[..., 3] == alpha).all()


@pytest.mark.parametrize("keep_colours", [True, False])
def test_opacity_is_clean_whatever_becomes_of_colours(keep_colours: bool) -> None:
    """A network that changes tones may change colours, and not what can be seen."""
    upscaler = Upscaler("esc-tiny", device="cpu", keep_colours=keep_colours)
    require_hard_edge(upscaler(disc((128, 30, 30)), scale=2))


def test_hidden_colours_stay_but_beside_visible_ones() -> None:
    """12 pixels off what can be seen they are enlarged like any other colour."""
    pixels = np.full((8, 40, 4), (200, 150, 100, 0), np.uint8)
    pixels[:, :10] = (10, 20, 30, 255)
    result = upscaler_of(nearest_engine(2))(pixels)
    assert (result[:, : 2 * 22, :3] == (10, 20, 30)).all()
    assert (result[:, 2 * 22 :, :3] == (200, 150, 100)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("scale", [2, 1.5])
def test_alpha_as_data_touches_no_colour(dtype: type, scale: float) -> None:
    """RGB comes out as without the fourth channel, and that as a grey picture of its own."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (21, 26, 4)).astype(dtype)
    pixels[4:-4, 12:-4, 3] = 0
    if dtype is np.float32:
        pixels /= 255
    upscaler = Upscaler(smallest(2), device="cpu", alpha="data")
    result = upscaler(pixels, scale=scale)
    # Sums of float32 may run in another order where there are more channels.
    allowed = 1e-6 if dtype is np.float32 else 0
    for channels in (slice(0, 3), 3):
        alone = upscaler(np.ascontiguousarray(pixels[..., channels]), scale=scale)
        assert np.abs(result[..., channels].astype(float) - alone).max() <= allowed


def test_alpha_as_data_reaches_files_and_their_shrinking(tmp_path: Path) -> None:
    """The file holds what the call gives, at a factor that is shrunk on the way to it."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 22, 4), dtype=np.uint8)
    pixels[:, :9, 3] = 0
    write_image(tmp_path / "in.png", pixels)
    upscaler = upscaler_of(nearest_engine(2), alpha="data")
    upscaler.upscale_file(tmp_path / "in.png", tmp_path / "out.png", scale=1.5)
    written = read_image(tmp_path / "out.png").pixels
    assert np.abs(written.astype(int) - upscaler(pixels, scale=1.5)).max() <= 1
    upscaler.upscale_file(tmp_path / "in.png", tmp_path / "double.png", scale=2)
    doubled = read_image(tmp_path / "double.png").pixels
    assert np.array_equal(doubled, pixels.repeat(2, axis=0).repeat(2, axis=1))


def test_another_meaning_of_alpha_is_refused() -> None:
    """With the two there are."""
    with pytest.raises(ConfigurationError, match="'mask'; allowed are opacity, data"):
        upscaler_of(nearest_engine(2), alpha="mask")
