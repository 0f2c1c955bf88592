"""Where tiles lie and how they are blended."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from escsr.upscaling.tiles import TileGrid, blend_over, ramp

lengths = st.integers(1, 400)
windows = st.sampled_from([1, 2, 3, 8, 16])


def grid_of(tile: int, overlap: int, window: int) -> TileGrid:
    """Shorter."""
    return TileGrid(tile_pixels=tile, overlap_pixels=overlap, window_size=window)


@given(lengths, st.integers(1, 100), st.integers(0, 60), windows)
def test_tiles_cover_everything_on_the_window_grid(
    length: int, tile: int, overlap: int, window: int
) -> None:
    """Starts are multiples of the window, both ends increase, and the overlap is kept."""
    spans = grid_of(tile, overlap, window).cut(length)
    longest = -(-tile // window) * window
    wanted_overlap = min(-(-overlap // window) * window, longest - window)
    assert spans[0].start == 0
    assert spans[-1].stop == length
    assert all(span.start % window == 0 and 0 < span.length <= longest for span in spans)
    for one, other in pairwise(spans):
        assert one.start < other.start
        assert one.stop < other.stop
        assert one.stop - other.start >= wanted_overlap


@given(lengths, st.integers(1, 100), st.integers(0, 60), windows)
def test_tiles_have_one_length_but_for_the_image_end(
    length: int, tile: int, overlap: int, window: int
) -> None:
    """No thin tile at the end, whose statistics would be unlike the others'."""
    spans = grid_of(tile, overlap, window).cut(length)
    assert {span.length for span in spans[:-1]} <= {spans[0].length}
    assert spans[0].length - spans[-1].length < window


@given(st.integers(1, 20), st.integers(1, 100), st.integers(0, 60), windows, st.integers(1, 300))
def test_cutting_may_begin_below_the_top(
    first_window: int, tile: int, overlap: int, window: int, rest: int
) -> None:
    """As after an out-of-memory error: from a window's edge to the end."""
    start = first_window * window
    grid = grid_of(tile, overlap, window)
    shifted = grid.cut(start + rest, start=start)
    assert [(s.start - start, s.stop - start) for s in shifted] == [
        (s.start, s.stop) for s in grid.cut(rest)
    ]


def test_halving_ends_at_one_window() -> None:
    """From 40 pixels of an image of 20: 16, 8, and no further."""
    grid = grid_of(40, 8, 8)
    halves = []
    while (smaller := grid.halved(20)) is not None:
        halves.append(smaller.tile_pixels)
        grid = smaller
    assert halves == [16, 8]


@given(st.integers(1, 500))
def test_the_ramp_rises_from_0_to_1_symmetrically(length: int) -> None:
    """So where two tiles share a zone, their weights sum to 1."""
    weight = ramp(length).astype(float)
    assert ((weight >= 0) & (weight <= 1)).all()
    assert (np.diff(weight) > -1e-7).all()
    # 2e-7: the rounding of a float32 near 1.
    assert np.abs(weight + weight[::-1] - 1).max() <= 2e-7


def test_blending_equal_values_changes_no_bit() -> None:
    """Whatever the weights are, agreement stays agreement."""
    tile = np.random.default_rng(0).random((3, 40, 50), np.float32)
    for axis, ground in ((1, tile[:, :13].copy()), (2, tile[:, :, :17].copy())):
        blended = tile.copy()
        blend_over(blended, ground, axis=axis)
        assert np.array_equal(blended, tile)


def test_blending_goes_from_the_ground_to_the_tile() -> None:
    """Near the tile's beginning the ground shows, near the zone's end the tile."""
    tile = np.ones((1, 1, 100), np.float32)
    blend_over(tile, np.zeros((1, 1, 50), np.float32), axis=2)
    assert tile[0, 0, 0] < 0.001
    assert tile[0, 0, 49] > 0.999
    assert (tile[0, 0, 50:] == 1).all()
