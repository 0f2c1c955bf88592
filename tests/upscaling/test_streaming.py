"""Tile by tile, the same as at once; and on, when memory runs out."""

import logging
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escsr.engines.engine import Engine
from escsr.errors import DeviceMemoryError
from escsr.family.axis_view import AxisView
from escsr.upscaling.borders import NO_MARGINS
from escsr.upscaling.pixels import Pixels, planes_of
from escsr.upscaling.streaming import enlarge_in_bands
from escsr.upscaling.tiles import Floats, TileGrid
from tests.networks import ArrayEngine, engine_of, limited, nearest_engine, smallest


def enlarge(pixels: Pixels, engine: Engine, grid: TileGrid) -> list[Pixels]:
    """Enlarge 8-bit pixels; the bands as they come."""

    def run(batch: Floats, *_: AxisView) -> Floats:
        return engine.run(batch)

    size = (pixels.shape[1] * engine.scale, pixels.shape[0] * engine.scale)
    return list(
        enlarge_in_bands(planes_of(pixels), run, output_size=size, grid=grid, margins=NO_MARGINS)
    )


def random_pixels(height: int, width: int, channels: int, seed: int = 0) -> Pixels:
    """Draw 8-bit pixels."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (height, width, channels), dtype=np.uint8)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    channels=st.sampled_from([1, 3]),
    tile=st.integers(1, 40),
    overlap=st.integers(0, 30),
    window=st.sampled_from([1, 4, 8]),
    scale=st.sampled_from([1, 2, 3]),
)
def test_tiled_equals_untiled_where_a_tile_knows_enough(
    height: int, width: int, channels: int, tile: int, overlap: int, window: int, scale: int
) -> None:
    """With a network that only repeats pixels, for any cut: every pixel there, none changed."""
    pixels = random_pixels(height, width, channels)
    grid = TileGrid(tile_pixels=tile, overlap_pixels=overlap, window_size=window)
    result = np.concatenate(enlarge(pixels, nearest_engine(scale), grid))
    assert np.array_equal(result, pixels.repeat(scale, 0).repeat(scale, 1))


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    overlap=st.integers(0, 20),
    max_pixels=st.integers(16, 400),
)
def test_running_out_of_memory_changes_no_pixel(
    height: int, width: int, overlap: int, max_pixels: int
) -> None:
    """Tiles halve until they fit, and the rows already handed down stay right."""
    pixels = random_pixels(height, width, 3)
    network = limited(max_pixels)
    grid = TileGrid(tile_pixels=64, overlap_pixels=overlap, window_size=4)
    result = np.concatenate(enlarge(pixels, network, grid))
    assert np.array_equal(result, pixels.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("channels", [3, 4])
def test_a_grey_scan_stored_as_colour_is_tiled_like_any_image(channels: int) -> None:
    """Its three channels are one and the same to the network, and still blended each."""
    pixels = random_pixels(40, 40, 1).repeat(channels, 2)
    if channels == 4:
        pixels[..., 3] = 255
    grid = TileGrid(tile_pixels=16, overlap_pixels=8, window_size=8)
    result = np.concatenate(enlarge(pixels, nearest_engine(2), grid))
    assert np.array_equal(result, pixels.repeat(2, 0).repeat(2, 1))


def test_the_work_goes_on_where_it_was(caplog: pytest.LogCaptureFixture) -> None:
    """Two bands of two tiles are done; the third is begun again smaller; nothing else is."""
    pixels = random_pixels(96, 32, 3)
    calls, heights = 0, list[int]()

    def full_later(images: Floats) -> Floats:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")
        heights.append(images.shape[2])
        return images.copy()

    network = ArrayEngine(full_later, scale=1)
    grid = TileGrid(tile_pixels=24, overlap_pixels=8, window_size=8)
    with caplog.at_level(logging.WARNING, logger="escsr"):
        result = np.concatenate(enlarge(pixels, network, grid))
    assert np.array_equal(result, pixels)
    assert heights[:4] == [24] * 4
    assert max(heights[4:]) == 16
    assert [record.message for record in caplog.records] == [
        "Memory ran out with tiles of 24 pixels ([enforce fail] DefaultCPUAllocator: can't "
        "allocate memory: 9 bytes); going on with tiles of 16."
    ]


def test_one_window_that_does_not_fit_is_an_error() -> None:
    """Nothing smaller can be tried, so the error says what was tried last."""
    grid = TileGrid(tile_pixels=64, overlap_pixels=8, window_size=8)
    with pytest.raises(DeviceMemoryError, match="smallest tile, 8x8 pixels"):
        enlarge(random_pixels(40, 40, 3), limited(63), grid)


def test_other_errors_are_not_taken_for_memory() -> None:
    """A mistake in a network comes out as it is."""

    def broken(images: Floats) -> Floats:
        raise RuntimeError("shapes do not match")

    grid = TileGrid(tile_pixels=64, overlap_pixels=8, window_size=8)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        enlarge(random_pixels(8, 8, 3), ArrayEngine(broken), grid)


def test_seams_of_a_real_network_are_no_steeper_than_the_rest() -> None:
    """Tiles differ from the whole image, but smoothly: no step appears where one begins."""
    generator = np.random.default_rng(1)
    coarse = generator.random((12, 12, 3)).repeat(8, 0).repeat(8, 1)
    pixels = (255 * coarse).astype(np.uint8)
    network = engine_of(smallest(2))
    whole = TileGrid(tile_pixels=96, overlap_pixels=8, window_size=8)
    cut = TileGrid(tile_pixels=40, overlap_pixels=8, window_size=8)
    difference = np.concatenate(enlarge(pixels, network, cut)).astype(float)
    difference -= np.concatenate(enlarge(pixels, network, whole))
    assert np.abs(difference).max() > 0  # else this test would prove nothing
    starts = [2 * span.start for span in cut.cut(96)[1:]]
    steps = np.abs(np.diff(difference, axis=1)).mean(axis=(0, 2))
    # 0.2 of a level of 256: rounding to whole levels over 192 rows. Without overlap it is 6 levels.
    assert max(steps[start - 1] for start in starts) <= np.median(steps) + 0.2


_STARVED = """
    import logging, resource, sys
    import numpy as np
    from escsr.upscaling import Upscaler
    from tests.networks import tiny

    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    upscaler = Upscaler(tiny(4), device="cpu", tile="whole", num_threads=1)
    upscaler(pixels[:32, :32])  # what any tile needs is allocated
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 48 * 2**20, resource.RLIM_INFINITY))
    print(upscaler(pixels).shape)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process as Linux does")
def test_a_process_without_memory_finishes_with_smaller_tiles() -> None:
    """A real allocator that refuses: 256x256 pixels at once need about 90 MB, 48 are left."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_STARVED)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Memory ran out with tiles of 256 pixels" in done.stdout
    assert done.stdout.strip().endswith("(1024, 1024, 3)")
