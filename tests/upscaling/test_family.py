"""The Upscaler with every class: restorers, unshuffled pixels, and any size."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from escsr.core.network import Network
from escsr.engines.cost import network_cost
from escsr.engines.engine import Floats
from escsr.errors import CheckpointError, ConfigurationError, ImageSizeError
from escsr.family import VARIANTS
from escsr.images.files import probe_image, read_image
from escsr.images.writer import write_image
from escsr.upscaling import Upscaler
from escsr.upscaling.tiles import AxisScale
from escsr.weights import bundled_models
from escsr.weights.official import to_reference
from tests.family_networks import FAMILY, family_file, family_weights
from tests.networks import network_file

ROUNDING = 2e-5
"""Of [0, 1]: sums are added up in another order."""


def image_of(height: int, width: int) -> Floats:
    """Random colours, the same each time: (H, W, 3)."""
    return np.random.default_rng(5).random((height, width, 3), np.float32)


def answer_of(name: str, image: Floats, size: tuple[int, int] | None = None) -> Floats:
    """What a network of the family itself makes of an image (H, W, 3), clamped."""
    network = Network(FAMILY[name], family_weights(name))
    result = network(image.transpose(2, 0, 1)[None], size)
    return result[0].clip(0, 1).transpose(1, 2, 0)


def plain(network: Path, **options: object) -> Upscaler:
    """An Upscaler that adds nothing to what the network makes."""
    return Upscaler(network, device="cpu", keep_colours=False, **options)  # type: ignore[arg-type]


def without_dynamic_kernels(name: str) -> Path:
    """A network of the family that does not look at the whole image."""
    return network_file(replace(FAMILY[name], dynamic_kernel=False))


@pytest.mark.parametrize("name", FAMILY)
def test_every_class_is_upscaled_from_a_file_with_the_references_names(
    name: str, tmp_path: Path
) -> None:
    """As the network itself answers."""
    path, scale = tmp_path / f"{name}.safetensors", FAMILY[name].scale
    state = to_reference(family_weights(name), FAMILY[name])
    safetensors.numpy.save_file({key: array.copy() for key, array in state.items()}, path)
    image = image_of(21, 34)
    if name.startswith("esc-rib"):  # its file does not tell the window
        assert Upscaler(path, device="cpu")(image).shape == (21 * scale, 34 * scale, 3)
        upscaler = plain(family_file(name))
    else:
        upscaler = plain(path)
    expected = answer_of(name, image)
    assert np.abs(upscaler(image) - expected).max() < ROUNDING
    assert plain(family_file(name), tile=16)(image).shape == expected.shape


@pytest.mark.parametrize("name", FAMILY)
def test_tiles_of_every_class_meet_exactly(name: str) -> None:
    """Where a tile knows enough of its surroundings it makes the whole image's pixels."""
    network = without_dynamic_kernels(name)
    side, scale = FAMILY[name].unshuffle, FAMILY[name].scale
    # 64 pixels of the features overlap, of which a quarter at either end does not count; what a
    # border spoils reaches 13.
    image = image_of(9 * side - 1, 107 * side - 1)
    expected = plain(network, tile="whole")(image)
    tiled = plain(network, tile=96 * side, overlap_pixels=64 * side)(image)
    one_pixel_off = np.abs(np.roll(expected, (scale, scale), (0, 1)) - expected).mean()
    # Rounding alone is below 1/5000 of it.
    assert np.abs(tiled - expected).max() < one_pixel_off / 500


def test_a_restorer_keeps_the_size() -> None:
    """By default and where x1 is asked for; the size itself may be said too."""
    upscaler = Upscaler(family_file("esc-real-m-x1"), device="cpu")
    pixels = (image_of(19, 30) * 255).astype(np.uint8)
    assert upscaler.scales == (1,)
    assert upscaler.output_size((30, 19)) == (30, 19)
    results = [upscaler(pixels), upscaler(pixels, scale=1), upscaler(pixels, width=30)]
    assert all(np.array_equal(result, results[0]) for result in results)
    assert results[0].shape == pixels.shape


def test_a_restorer_is_not_asked_to_enlarge() -> None:
    """Interpolation after it would not be what was asked for; the message says what to do."""
    network = family_file("esc-real-m-conv-x1")
    with pytest.raises(ConfigurationError, match=r"scale is 2, but the model is a restorer.*Leave"):
        Upscaler(network, scale=2)
    upscaler = Upscaler(network, device="cpu")
    with pytest.raises(ConfigurationError, match="restorer"):
        upscaler(image_of(8, 8), scale=1.5)
    for width in (16, 4):
        with pytest.raises(ImageSizeError, match=rf"would be {width}x{width}, but .* restorer"):
            upscaler(image_of(8, 8), width=width)


def test_only_a_restorer_can_be_asked_for_x1() -> None:
    """Others are refused at once, as before."""
    with pytest.raises(ConfigurationError, match="A factor of 1 enlarges nothing"):
        Upscaler(family_file("esc-x2"), scale=1)


@pytest.mark.parametrize(("name", "window"), [("esc-real-m-x1", 32), ("esc-real-m-x2", 16)])
def test_tiles_and_padding_keep_to_windows_of_pixels(name: str, window: int) -> None:
    """Where 4x4 or 2x2 pixels become channels, a window of 8 covers that many more."""
    image, scale = image_of(70, 41), FAMILY[name].scale
    upscaler = plain(family_file(name), padding="window")
    more = [-side % window for side in image.shape[:2]]
    extended = np.pad(image, ((0, more[0]), (0, more[1]), (0, 0)), mode="reflect")
    expected = answer_of(name, extended)[: 70 * scale, : 41 * scale]
    assert np.abs(upscaler(image) - expected).max() < ROUNDING
    assert network_cost(FAMILY[name], scale=scale).window_size == window


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({"scale": 2.7}, (57, 92)),
        ({"scale": 6}, (126, 204)),
        ({"width": 100}, (62, 100)),
        ({"width": 35, "height": 64}, (64, 35)),
        ({}, (84, 136)),
    ],
)
def test_any_size_comes_straight_from_the_network(
    size: dict[str, float], expected: tuple[int, int]
) -> None:
    """Nothing is resized: the result is the network's own at exactly that size."""
    image = image_of(21, 34)
    result = plain(family_file("esc-lte-x4"))(image, **size)  # type: ignore[call-overload]
    assert result.shape[:2] == expected
    assert np.abs(result - answer_of("esc-lte-x4", image, expected)).max() < ROUNDING


@pytest.mark.parametrize("size", [{"scale": 2.7}, {"width": 123, "height": 231}])
def test_tiles_of_any_size_meet_exactly(size: dict[str, float]) -> None:
    """Where a tile knows enough of its surroundings it makes the whole image's pixels."""
    network = without_dynamic_kernels("esc-lte-x4")
    # 64 pixels overlap, as above.
    pixels = image_of(107, 118)
    whole = plain(network, tile="whole")(pixels, **size)  # type: ignore[call-overload]
    cut = plain(network, tile=96, overlap_pixels=64)(pixels, **size)  # type: ignore[call-overload]
    # 1e-4: frequencies of waves make more of the rounding of features.
    assert np.abs(cut - whole).max() < 1e-4


@given(
    length=st.integers(1, 400),
    factor=st.floats(1, 16),
    cuts=st.lists(st.integers(0, 400), max_size=5),
)
def test_views_of_neighbours_join_without_gap(length: int, factor: float, cuts: list[int]) -> None:
    """However the axis is cut, every output pixel belongs to exactly one piece."""
    scale = AxisScale(length=length, output_length=max(length, math.floor(length * factor)))
    edges = sorted({0, length, *(cut for cut in cuts if cut < length)})
    places = [scale.at(edge) for edge in edges]
    assert (places[0], places[-1]) == (0, scale.output_length)
    assert all(a < b for a, b in pairwise(places))


def test_a_file_gets_exactly_the_size_asked_for(tmp_path: Path) -> None:
    """Streamed through ESC+LTE in tiles, alpha and all."""
    source, output = tmp_path / "photo.png", tmp_path / "large.png"
    pixels = (np.random.default_rng(0).random((40, 61, 4)) * 255).astype(np.uint8)
    write_image(source, pixels)
    upscaler = Upscaler(family_file("esc-lte-x4"), device="cpu", tile=24)
    report = upscaler.upscale_file(source, output, width=165)
    header = probe_image(output)
    assert (header.width, header.height, header.channels) == (165, 108, 4)
    assert report.output_size == (165, 108)
    assert report.passes == (pytest.approx(165 / 61, abs=0.01),)
    assert report.num_tiles > 1
    assert np.array_equal(read_image(output).pixels, upscaler(pixels, width=165))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_name_without_weights_says_what_to_do(name: str) -> None:
    """Every variant is known by its name; only the box has weights."""
    if any(model.name == name for model in bundled_models()):
        pytest.skip(f"{name} is in the box")
    with pytest.raises(CheckpointError, match=f"{name} is a known network.*path of a file"):
        Upscaler(name)
