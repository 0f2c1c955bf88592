"""Extending an image to whole windows, as the reference's tester does."""

import numpy as np
import pytest

from escsr.engines.engine import EngineOptions, Floats, Padding
from escsr.errors import ConfigurationError
from escsr.upscaling import Upscaler
from tests.networks import (
    ArrayEngine,
    batches,
    engine_of,
    nearest,
    smallest,
    smallest_config,
    upscaler_of,
)


def image_of(height: int, width: int) -> Floats:
    """Random colours: (H, W, 3)."""
    return np.ascontiguousarray(batches(1, height, width)[0].transpose(1, 2, 0))


def test_windows_are_filled_by_reflection_and_the_result_is_cropped() -> None:
    """At the bottom and right, so the network sees 24x32 pixels of 19x30."""
    image = image_of(19, 30)
    upscaler = Upscaler(smallest(2), device="cpu", padding="window", keep_colours=False)
    extended = np.pad(image, ((0, 5), (0, 2), (0, 0)), mode="reflect")
    expected = engine_of(smallest(2)).run(extended.transpose(2, 0, 1)[None])
    expected = expected[0, :, :38, :60].clip(0, 1).transpose(1, 2, 0)
    assert np.array_equal(upscaler(image), expected)
    plain = Upscaler(smallest(2), device="cpu", keep_colours=False)(image)
    assert np.abs(upscaler(image) - plain).max() > 1e-4


def test_an_image_of_whole_windows_is_not_changed_by_padding() -> None:
    """There is nothing to fill."""
    paddings: tuple[Padding, ...] = ("none", "window")
    image = image_of(16, 24)
    results = [Upscaler(smallest(2), device="cpu", padding=p)(image) for p in paddings]
    assert np.array_equal(*results)


@pytest.mark.parametrize("padding", ["none", "window"])
def test_only_the_last_tiles_are_extended(padding: Padding) -> None:
    """Tiles begin on the window grid, so each but the image's end is whole windows already."""
    sizes: set[tuple[int, ...]] = set()

    def watched(images: Floats) -> Floats:
        sizes.add(images.shape[2:])
        return nearest(images)

    options = EngineOptions(device="cpu", padding=padding)
    engine = ArrayEngine(watched, options=options, config=smallest_config(2))
    image = image_of(45, 35)
    result = upscaler_of(engine, tile=24, overlap_pixels=8)(image)
    assert np.abs(result - image.repeat(2, 0).repeat(2, 1)).max() < 1e-6
    are_whole = {height % 8 == 0 and width % 8 == 0 for height, width in sizes}
    assert are_whole == ({True} if padding == "window" else {True, False})
    assert all(height <= 24 and width <= 24 for height, width in sizes)


def test_a_network_without_windows_cannot_be_padded_to_them() -> None:
    """The error says which padding it can have."""
    torch = pytest.importorskip("torch")
    network = torch.nn.Identity()
    network.scale = 1
    with pytest.raises(ConfigurationError, match=r'no attention windows.*padding="none"'):
        Upscaler(network, device="cpu", padding="window")


def test_an_unknown_padding_is_refused_before_any_work() -> None:
    """With what is allowed; also for pretrained models, which are loaded later."""
    with pytest.raises(ConfigurationError, match="padding is 'zero'; allowed are none, window"):
        Upscaler("esc-tiny", device="cpu", padding="zero")  # type: ignore[arg-type]
