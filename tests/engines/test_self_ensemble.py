"""Self-ensemble: the mean over the eight flips and rotations."""

import pytest
import torch
from torch import Tensor, nn

from escsr.engines.self_ensemble import SelfEnsemble
from escsr.weights import load_model


def _bicubic() -> nn.Module:
    return nn.Upsample(scale_factor=2, mode="bicubic")


def _lopsided() -> nn.Module:
    """A convolution that no flip and no rotation leaves as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))


def _image(height: int = 9, width: int = 13) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, height, width, generator=generator)


@torch.inference_mode()
def test_a_network_that_turns_with_its_image_is_left_as_it_is() -> None:
    """Bicubic interpolation is symmetric; 1e-6 is float32's rounding of a mean of eight."""
    network = _bicubic()
    assert torch.allclose(SelfEnsemble(network)(_image()), network(_image()), atol=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
@torch.inference_mode()
def test_the_result_turns_with_the_image(turns: int, mirrored: bool) -> None:
    """For a network that does not do so itself."""
    ensemble = SelfEnsemble(_lopsided())

    def turned(image: Tensor) -> Tensor:
        return torch.rot90(image.flip(-1) if mirrored else image, turns, (-2, -1))

    expected = turned(ensemble(_image()))
    assert torch.allclose(ensemble(turned(_image())), expected, atol=1e-6)
    if turns or mirrored:
        assert not torch.allclose(_lopsided()(turned(_image())), turned(_lopsided()(_image())))


@torch.inference_mode()
def test_it_is_the_mean_of_eight_different_answers() -> None:
    """Each transform is asked once, and undone."""
    network = _Recording(_lopsided())
    result = SelfEnsemble(network)(_image())
    assert len({tuple(seen.flatten()[:20].tolist()) for seen in network.seen}) == 8
    assert result.shape == (2, 3, 18, 26)


@torch.inference_mode()
def test_it_works_with_a_trained_network_on_an_odd_size() -> None:
    """Another answer than the single one, though a near one."""
    network = load_model("esc-tiny", scale=2)
    smooth = nn.functional.interpolate(_image(4, 5)[:1], (21, 30), mode="bicubic").clamp(0, 1)
    single, ensemble = network(smooth), SelfEnsemble(network)(smooth)
    assert ensemble.shape == single.shape
    assert 0 < (ensemble - single).abs().mean() < 0.02


class _Recording(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(image.clone())
        return self._network(image)
