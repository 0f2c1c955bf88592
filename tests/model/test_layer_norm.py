"""LayerNorm over channels."""

import torch

from escsr.model.layer_norm import ChannelLayerNorm
from tests.golden_files import relative_error
from tests.model.networks import ROUNDING_FLOAT64, random_image, randomise
from tests.oracles.attention import layer_norm


def _norm(dim: int) -> ChannelLayerNorm:
    norm = ChannelLayerNorm(dim).double()
    randomise(norm, seed=0)
    return norm


def _right(norm: ChannelLayerNorm, features: torch.Tensor) -> torch.Tensor:
    weight, bias = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    return torch.stack(
        [torch.from_numpy(layer_norm(image.numpy(), weight, bias)) for image in features]
    )


def test_each_pixel_is_normalised_over_its_channels():
    """The layer equals the formula, in both memory layouts."""
    norm, features = _norm(6), random_image(2, 6, 4, 5, dtype=torch.float64)
    right = _right(norm, features)
    for layout in (torch.contiguous_format, torch.channels_last):
        ours = norm(features.to(memory_format=layout))
        assert relative_error(ours, right) < ROUNDING_FLOAT64


def test_epsilon_is_a_millionth():
    """Where the variance is as small as epsilon, 1e-5 would be off by a factor of 2."""
    norm, features = _norm(6), 1e-3 * random_image(2, 6, 4, 5, dtype=torch.float64)
    assert relative_error(norm(features), _right(norm, features)) < ROUNDING_FLOAT64


def test_it_starts_as_plain_normalisation():
    """Weights start at one and biases at zero."""
    norm = ChannelLayerNorm(3)
    assert torch.equal(norm.weight, torch.ones(3))
    assert torch.equal(norm.bias, torch.zeros(3))
