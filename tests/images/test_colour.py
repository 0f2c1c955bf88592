"""Luma, 8-bit RGB and colour beside opacity, by hand."""

import numpy as np
import pytest

from escsr.errors import ImageValueError
from escsr.images.colour import continue_colours, rgb_to_luma, to_rgb_uint8


def test_luma_of_black_white_and_red_is_bt601() -> None:
    """Black is 16, white 235, pure red 81.481 of 255."""
    rgb = np.array([[0.0, 0, 0], [1, 1, 1], [1, 0, 0]])
    luma = rgb_to_luma(rgb.T.reshape(1, 3, 1, 3)) * 255
    assert luma.ravel() == pytest.approx([16.0, 235.0, 81.481], abs=1e-5)


def test_luma_refuses_what_is_not_rgb() -> None:
    """A grey or integer image is refused with its shape."""
    with pytest.raises(ImageValueError, match=r"\(1, 1, 2, 2\)"):
        rgb_to_luma(np.zeros((1, 1, 2, 2)))
    with pytest.raises(ImageValueError, match="uint8"):
        rgb_to_luma(np.zeros((1, 3, 2, 2), np.uint8))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_visible_colour_goes_on_into_what_is_hidden_as_far_as_asked(dtype: type) -> None:
    """Exactly, in every depth; further away hidden colours stay, and visible ones everywhere."""
    peak = 1 if dtype is np.float32 else np.iinfo(dtype).max
    colour = np.array([0.1, 0.7, 0.3]) * peak
    pixels = np.zeros((9, 60, 4), dtype)
    pixels[..., :3] = (np.array([0.9, 0.5, 0.2]) * peak).astype(dtype)
    pixels[:, :20, :3], pixels[:, :20, 3] = colour.astype(dtype), peak
    result = continue_colours(pixels, reach_pixels=12)
    assert (result[:, :32, :3] == pixels[0, 0, :3]).all()
    assert np.array_equal(result[:, 32:], pixels[:, 32:])
    assert np.array_equal(result[..., 3], pixels[..., 3])


def test_a_hidden_colour_becomes_the_mean_of_its_visible_neighbours() -> None:
    """Of all eight; where nothing or everything is visible, nothing changes."""
    pixels = np.array([[[10, 255], [99, 0], [20, 1]]], np.uint8)
    assert continue_colours(pixels).tolist() == [[[10, 255], [15, 0], [20, 1]]]
    for alpha in (0, 1):
        alike = np.stack((pixels[..., 0], np.full((1, 3), alpha, np.uint8)), axis=-1)
        assert continue_colours(alike) is alike


@pytest.mark.parametrize("channels", [1, 2])
def test_grey_becomes_three_equal_channels(channels: int) -> None:
    """The alpha of grey with alpha is dropped, not taken for a colour."""
    pixels = np.full((2, 3, channels), 9, dtype=np.uint8)
    pixels[..., 0] = np.arange(6).reshape(2, 3)
    rgb = to_rgb_uint8(pixels)
    assert rgb.shape == (2, 3, 3)
    assert all(np.array_equal(rgb[..., c], pixels[..., 0]) for c in range(3))


def test_alpha_is_dropped_and_the_colour_under_it_kept() -> None:
    """RGBA (1, 2, 3, transparent) is RGB (1, 2, 3)."""
    pixels = np.array([[[1, 2, 3, 0]]], dtype=np.uint8)
    assert to_rgb_uint8(pixels).tolist() == [[[1, 2, 3]]]


def test_16_bits_are_rounded_to_the_nearest_of_8() -> None:
    """For each of the 65536 values: v * 255 / 65535, rounded, which is never a tie."""
    values = np.arange(65536, dtype=np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    grey = to_rgb_uint8(values.reshape(256, 256, 1))
    assert np.array_equal(grey[..., 0].ravel(), expected)


def test_8_bit_rgb_comes_back_in_memory_of_its_own() -> None:
    """Equal values, contiguous even when cut from a larger image; the input is not shared."""
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    rgb = to_rgb_uint8(pixels[:2, :2])
    assert np.array_equal(rgb, pixels[:2, :2])
    assert rgb.flags.c_contiguous
    assert not np.shares_memory(rgb, pixels)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 2), np.uint8),
        np.zeros((2, 2, 5), np.uint8),
        np.zeros((2, 2, 0), np.uint8),
        np.zeros((2, 2, 3), np.float32),
    ],
    ids=["no channels", "five channels", "zero channels", "float"],
)
def test_what_are_no_pixels_of_an_image_file_are_refused(pixels: np.ndarray) -> None:
    """The message gives the type and shape that came."""
    with pytest.raises(ImageValueError, match=f"{pixels.dtype} of shape"):
        to_rgb_uint8(pixels)
