"""Grey, alpha and bit depth, between pixels and the network."""

import numpy as np
import pytest

from escsr.upscaling.pixels import PixelPlanes, Pixels, planes_of
from escsr.upscaling.tiles import Span


def whole(source: PixelPlanes) -> tuple[Span, Span]:
    """Rows and columns of all of it."""
    return Span(start=0, stop=source.height), Span(start=0, stop=source.width)


def round_trip(pixels: Pixels) -> Pixels:
    """Through a network that changes nothing."""
    source = planes_of(pixels)
    return source.finish(source.collapse(source.read(*whole(source))))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_level_survives(dtype: type[np.unsignedinteger], channels: int) -> None:
    """All 256 or 65,536 levels come back as they were: rounding is to the nearest."""
    levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(-1, 64, 1)
    pixels = levels.repeat(channels, axis=2)
    assert np.array_equal(round_trip(pixels), pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("alpha", [200, 255])
def test_pixels_lie_in_memory_as_a_writer_takes_them(channels: int, alpha: int) -> None:
    """Row by row and pixel by pixel, so that nothing is copied once more."""
    pixels = np.full((5, 7, channels), 100, np.uint8)
    pixels[0, 0, -1] = alpha
    source = planes_of(pixels)
    planes = source.collapse(np.ascontiguousarray(source.read(*whole(source))))
    assert source.finish(planes).flags.c_contiguous


def test_grey_goes_in_as_equal_channels_and_comes_out_as_their_mean() -> None:
    """So a network that tints gives no tint."""
    source = planes_of(np.full((2, 2, 1), 100, np.uint8))
    batch = source.read(*whole(source))
    assert batch.shape == (1, 3, 2, 2)
    tinted = batch + np.float32([10, -4, 0]).reshape(1, 3, 1, 1) / 255
    assert source.finish(source.collapse(tinted)).tolist() == [[[102]] * 2] * 2


@pytest.mark.parametrize("alpha", [None, 255, 200])
def test_a_grey_scan_stored_as_colour_gets_no_tint(alpha: int | None) -> None:
    """Red, green and blue that are equal everywhere stay equal, whatever the network does."""
    pixels = np.full((2, 2, 3), 100, np.uint8)
    if alpha is not None:
        pixels = np.concatenate((pixels, np.full((2, 2, 1), alpha, np.uint8)), axis=2)
    source = planes_of(pixels)
    tint = np.float32([10, -4, 0]).reshape(1, 3, 1, 1) / 255
    colour = source.finish(source.collapse(source.read(*whole(source)) + tint))[..., :3]
    assert (colour == colour[..., :1]).all()


@pytest.mark.parametrize("channels", [2, 4])
def test_opaque_alpha_costs_nothing_and_stays_opaque(channels: int) -> None:
    """It is left out of the network's batch and put back."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, channels), dtype=np.uint8)
    pixels[..., -1] = 255
    source = planes_of(pixels)
    assert source.opaque
    assert source.read(*whole(source)).shape == (1, 3, 3, 4)
    assert np.array_equal(round_trip(pixels), pixels)


@pytest.mark.parametrize("channels", [2, 4])
def test_hidden_colours_beside_visible_ones_never_reach_the_network(channels: int) -> None:
    """Where alpha is 0 the network sees the visible colour going on: no fringes."""
    pixels = np.full((2, 2, channels), 90, np.uint8)
    pixels[0, :, :-1], pixels[0, :, -1] = 200, 0
    source = planes_of(pixels)
    colour, alpha = source.read(*whole(source))
    assert (colour == np.float32(90 / 255)).all()
    assert (alpha[:, :, 0] == np.float32([0.0, 90 / 255])).all()
    assert pixels[0, 0, 0] == 200, "the pixels of the caller stay as they are"


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_visible_colours_survive_beside_any_opacity(
    channels: int, dtype: type[np.unsignedinteger]
) -> None:
    """The same level, wherever alpha shows anything."""
    peak = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, peak, (40, 40, channels)).astype(dtype)
    pixels[..., -1] = np.maximum(pixels[..., -1], peak // 50)
    assert np.array_equal(round_trip(pixels), pixels)


def test_what_leaves_the_range_is_clamped() -> None:
    """Networks overshoot at edges."""
    source = planes_of(np.array([[[0, 0, 1]]], np.uint8))
    wild = np.float32([-0.5, 0.5, 1.5]).reshape(1, 3, 1, 1)
    assert source.finish(source.collapse(wild)).tolist() == [[[0, 128, 255]]]
