"""The Upscaler with every class: restorers, unshuffled pixels, and any size."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from escsr.engines.cost import network_cost
from escsr.errors import CheckpointError, ConfigurationError, ImageSizeError
from escsr.family.axis_view import AxisView
from escsr.images.files import probe_image, read_image
from escsr.images.writer import write_image
from escsr.model import ESC, VARIANTS
from escsr.model.local_texture import LocalTextureHead
from escsr.model.padding import reflect_pad_to_multiple
from escsr.upscaling import Upscaler
from escsr.upscaling.tiles import AxisScale, Span
from escsr.weights import bundled_models, save_reference_weights
from tests.family_networks import FAMILY, family_network

ROUNDING = 2e-5
"""Of [0, 1]: the folded network adds up in another order."""


def image_of(height: int, width: int) -> Tensor:
    """Random colours, the same each time."""
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(5))


def plain(network: ESC, **options: object) -> Upscaler:
    """An Upscaler that adds nothing to what the network makes."""
    return Upscaler(network, device="cpu", keep_colours=False, **options)  # type: ignore[arg-type]


def without_dynamic_kernels(name: str) -> ESC:
    """A network of the family that does not look at the whole image."""
    network = family_network(name)
    blind = ESC(replace(network.config, dynamic_kernel=False)).eval().requires_grad_(False)
    blind.load_state_dict(network.state_dict(), strict=False)
    return blind


@pytest.mark.parametrize("name", FAMILY)
def test_every_class_goes_through_the_door(name: str, tmp_path: Path) -> None:
    """From a file with the reference's names, as the network itself answers."""
    network, path = family_network(name), tmp_path / f"{name}.pth"
    save_reference_weights(path, network)
    image, scale = image_of(21, 34), network.scale
    if name.startswith("esc-rib"):  # its file does not tell the window
        assert Upscaler(path, device="cpu")(image).shape[-2:] == (21 * scale, 34 * scale)
        upscaler = plain(network)
    else:
        upscaler = Upscaler(path, device="cpu", keep_colours=False)
    expected = network(image).clamp(0, 1)
    assert (upscaler(image) - expected).abs().max() < ROUNDING
    assert plain(network, tile=16)(image).shape == expected.shape


@pytest.mark.parametrize("name", FAMILY)
def test_tiles_of_every_class_meet_exactly(name: str) -> None:
    """Where a tile knows enough of its surroundings it makes the whole image's pixels."""
    network = without_dynamic_kernels(name)
    side, scale = network.config.unshuffle, network.scale
    # 64 pixels of the features overlap, of which a quarter at either end does not count; what a
    # border spoils reaches 13.
    image = image_of(9 * side - 1, 107 * side - 1)
    expected = plain(network, tile="whole")(image)
    tiled = plain(network, tile=96 * side, overlap_pixels=64 * side)(image)
    one_pixel_off = (expected.roll((scale, scale), (-2, -1)) - expected).abs().mean()
    # Rounding alone is below 1/5000 of it.
    assert (tiled - expected).abs().max() < one_pixel_off / 500


def test_a_restorer_keeps_the_size() -> None:
    """By default and where x1 is asked for; the size itself may be said too."""
    upscaler = Upscaler(family_network("esc-real-m-x1"), device="cpu")
    pixels = (image_of(19, 30)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    assert upscaler.scales == (1,)
    assert upscaler.output_size((30, 19)) == (30, 19)
    results = [upscaler(pixels), upscaler(pixels, scale=1), upscaler(pixels, width=30)]
    assert all(np.array_equal(result, results[0]) for result in results)
    assert results[0].shape == pixels.shape


def test_a_restorer_is_not_asked_to_enlarge() -> None:
    """Interpolation after it would not be what was asked for; the message says what to do."""
    network = family_network("esc-real-m-conv-x1")
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
        Upscaler(family_network("esc-x2"), scale=1)


@pytest.mark.parametrize(("name", "window"), [("esc-real-m-x1", 32), ("esc-real-m-x2", 16)])
def test_tiles_and_padding_keep_to_windows_of_pixels(name: str, window: int) -> None:
    """Where 4x4 or 2x2 pixels become channels, a window of 8 covers that many more."""
    network, image = family_network(name), image_of(70, 41)
    upscaler = plain(network, padding="window")
    padded = network(reflect_pad_to_multiple(image, window)).clamp(0, 1)
    expected = padded[..., : 70 * network.scale, : 41 * network.scale]
    assert (upscaler(image) - expected).abs().max() < ROUNDING
    assert network_cost(FAMILY[name], scale=network.scale).window_size == window


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
    network, image = family_network("esc-lte-x4"), image_of(21, 34)
    result = plain(network)(image, **size)  # type: ignore[call-overload]
    assert result.shape[-2:] == expected
    assert (result - network(image, expected).clamp(0, 1)).abs().max() < ROUNDING


@pytest.mark.parametrize("size", [{"scale": 2.7}, {"width": 123, "height": 231}])
def test_tiles_of_any_size_meet_exactly(size: dict[str, float]) -> None:
    """Where a tile knows enough of its surroundings it makes the whole image's pixels."""
    network = without_dynamic_kernels("esc-lte-x4")
    # 64 pixels overlap, as above.
    pixels = image_of(107, 118)[0].permute(1, 2, 0).numpy()
    whole = plain(network, tile="whole")(pixels, **size)  # type: ignore[call-overload]
    cut = plain(network, tile=96, overlap_pixels=64)(pixels, **size)  # type: ignore[call-overload]
    # 1e-4: frequencies of waves make more of the rounding of features.
    assert np.abs(cut - whole).max() < 1e-4


@settings(max_examples=15)
@given(
    height=st.integers(9, 24),
    factor=st.floats(1, 5),
    start=st.integers(0, 6),
    length=st.integers(7, 18),
)
def test_a_part_of_the_head_equals_its_part_of_the_whole(
    height: int, factor: float, start: int, length: int
) -> None:
    """But for the pixels within two of a border that the whole image has not."""
    head = family_network("esc-lte-x4").double().reconstruction
    assert isinstance(head, LocalTextureHead)
    stop, output_length = min(start + length, height), math.floor(height * factor + 0.5)
    generator = torch.Generator().manual_seed(height)
    features = torch.randn(1, 16, height, 5, generator=generator, dtype=torch.float64)
    image = torch.rand(1, 3, height, 5, generator=generator, dtype=torch.float64)
    whole = head(features, image, (output_length, 12))
    scale = AxisScale(length=height, output_length=output_length)
    view = scale.view(Span(start=start, stop=stop))
    columns = AxisView.whole(length=5, output_length=12)
    parts = (features[:, :, start:stop], image[:, :, start:stop])
    part = head.enlarge_part(*parts, view, columns)
    top = scale.at(start + 2) if start > 0 else 0
    bottom = scale.at(stop - 2) if stop < height else output_length
    if bottom > top:
        difference = part[:, :, top - view.first : bottom - view.first] - whole[:, :, top:bottom]
        # 1e-7: a query in the middle between two pixels may take the other one's wave, whose
        # weight is 1e-9 there.
        assert difference.abs().max() < 1e-7


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
    upscaler = Upscaler(family_network("esc-lte-x4"), device="cpu", tile=24)
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
