"""Resizing with antialiasing, in memory and on the way to a file."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escsr.images.files import read_image
from escsr.images.writer import ImageWriter, resize_pixels


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("target", [(31, 17), (56, 17), (97, 80), (1, 1)])
def test_rows_are_resized_on_their_way_as_in_memory(
    picture, tmp_path: Path, channels: int, bit_depth: int, target: tuple[int, int]
) -> None:
    """target_size gives exactly that size, and the pixels that resize_pixels gives."""
    pixels = picture(channels=channels, bit_depth=bit_depth)
    path = tmp_path / "a.tif"
    with ImageWriter(
        path, width=56, height=40, channels=channels, bit_depth=bit_depth, target_size=target
    ) as writer:
        for start in range(0, 40, 7):
            writer.write_rows(pixels[start : start + 7])
    expected = resize_pixels(pixels, width=target[0], height=target[1])
    assert expected.shape == (target[1], target[0], channels)
    np.testing.assert_array_equal(read_image(path).pixels, expected)


@settings(max_examples=25, deadline=None)
@given(
    side=st.integers(1, 60),
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    value=st.integers(0, 255),
)
def test_resizing_a_constant_keeps_it(side: int, width: int, height: int, value: int) -> None:
    """Every size is met exactly and a flat colour stays flat."""
    pixels = np.full((side, side, 3), value, np.uint8)
    resized = resize_pixels(pixels, width=width, height=height)
    assert resized.shape == (height, width, 3)
    # libvips' 8-bit kernels sum to 1 within 1/64 of a level or so.
    assert np.abs(resized.astype(int) - value).max() <= 1


def test_shrinking_brings_no_fringe_of_hidden_colour() -> None:
    """White under full transparency does not brighten the edge of a black shape."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :32] = (0, 0, 0, 255)
    pixels[:, 32:] = (255, 255, 255, 0)
    shrunk = resize_pixels(pixels, width=21, height=21)
    assert shrunk[shrunk[..., 3] > 0][:, :3].max() == 0


def test_shrinking_is_antialiased() -> None:
    """A chessboard of single pixels becomes grey, not a pattern."""
    board = np.indices((64, 64)).sum(axis=0)[..., None] % 2 * np.uint8(255)
    shrunk = resize_pixels(board.astype(np.uint8), width=16, height=16)
    assert np.abs(shrunk[2:-2, 2:-2].astype(int) - 127).max() < 8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_even_value_stays_exactly_what_it_is(dtype: type) -> None:
    """White above all, which integers of 16 bits would lose; hidden colours where none weighs."""
    peak = np.iinfo(dtype).max
    for value in (0, 77, peak - 1, peak):
        even = np.full((30, 30, 3), value, dtype)
        assert (resize_pixels(even, width=27, height=20) == value).all()
    hidden = np.full((30, 30, 4), peak, dtype)
    hidden[..., 3] = 0
    shrunk = resize_pixels(hidden, width=27, height=20, weighs_opacity=False)
    assert np.array_equal(shrunk, hidden[:20, :27])
