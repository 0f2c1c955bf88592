"""Extending an image to whole windows, as the reference's tester does."""

import pytest
import torch
from torch import Tensor, nn

from escsr.errors import ConfigurationError
from escsr.model.padding import reflect_pad_to_multiple
from escsr.upscaling import Upscaler
from tests.upscaling.networks import NearestEnlarger, smallest


class Watched(nn.Module):
    """An ESC with windows of 8 that remembers the sizes it was given."""

    scale = 2

    def __init__(self) -> None:
        super().__init__()
        self.network = smallest(2)
        self.sizes: set[tuple[int, int]] = set()

    def __deepcopy__(self, memo: object) -> "Watched":
        # Upscaler copies its network; this test wants to look into it.
        return self

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, 2H, 2W)."""
        self.sizes.add((image.shape[2], image.shape[3]))
        return self.network(image)


def test_windows_are_filled_by_reflection_and_the_result_is_cropped() -> None:
    """At the bottom and right, so the network sees 24x32 pixels of 19x30."""
    network, image = smallest(2), torch.rand(1, 3, 19, 30)
    upscaler = Upscaler(network, device="cpu", padding="window", keep_colours=False)
    with torch.no_grad():
        expected = network(reflect_pad_to_multiple(image, 8))[..., :38, :60].clamp(0, 1)
    # 2e-5: the folded network sums in another order.
    assert (upscaler(image) - expected).abs().max() < 2e-5
    plain = Upscaler(network, device="cpu", keep_colours=False)(image)
    assert (upscaler(image) - plain).abs().max() > 1e-4


def test_an_image_of_whole_windows_is_not_changed_by_padding() -> None:
    """There is nothing to fill."""
    network, image = smallest(2), torch.rand(1, 3, 16, 24)
    results = [Upscaler(network, device="cpu", padding=p)(image) for p in ("none", "window")]
    assert torch.equal(*results)


@pytest.mark.parametrize("padding", ["none", "window"])
def test_only_the_last_tiles_are_extended(padding: str) -> None:
    """Tiles begin on the window grid, so each but the image's end is whole windows already."""
    network, image = Watched(), torch.rand(1, 3, 45, 35)
    upscaler = Upscaler(network, device="cpu", tile=24, overlap_pixels=8, padding=padding)
    assert upscaler(image).shape == (1, 3, 90, 70)
    are_whole = {height % 8 == 0 and width % 8 == 0 for height, width in network.sizes}
    assert are_whole == ({True} if padding == "window" else {True, False})
    assert all(height <= 24 and width <= 24 for height, width in network.sizes)


def test_a_network_without_windows_cannot_be_padded_to_them() -> None:
    """The error says which padding it can have."""
    with pytest.raises(ConfigurationError, match=r'no attention windows.*padding="none"'):
        Upscaler(NearestEnlarger(2), device="cpu", padding="window")


def test_an_unknown_padding_is_refused_before_any_work() -> None:
    """With what is allowed; also for models in the box, which are loaded later."""
    with pytest.raises(ConfigurationError, match="padding is 'zero'; allowed are none, window"):
        Upscaler("esc-tiny", device="cpu", padding="zero")  # type: ignore[arg-type]
