"""The stacks of convolutions that enlarge features."""

import pytest
import torch

from escsr.model.upsamplers import (
    ConvNearestReconstruction,
    NearestConvReconstruction,
    PixelShuffleReconstruction,
    enlarging_steps,
)
from tests.golden_files import relative_error
from tests.model.networks import ROUNDING_FLOAT64, random_image, randomise, weights_as_arrays
from tests.oracles import upsamplers as oracle
from tests.oracles.network import convolutions_in_order

STEPS = {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}
STACKS = [
    pytest.param(lambda scale: NearestConvReconstruction(6, scale), oracle.nearest_conv, id="real"),
    pytest.param(
        lambda scale: ConvNearestReconstruction(6, scale), oracle.conv_nearest, id="real-m"
    ),
    pytest.param(
        lambda scale: PixelShuffleReconstruction(6, 4, scale), oracle.pixelshuffle, id="shuffle"
    ),
]


@pytest.mark.parametrize("scale", STEPS)
def test_a_factor_is_reached_in_steps_of_two_or_one_of_three(scale):
    """4 is twice 2, 8 three times 2."""
    assert enlarging_steps(scale) == STEPS[scale]


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 3)])
@pytest.mark.parametrize("scale", STEPS)
@pytest.mark.parametrize(("build", "formula"), STACKS)
def test_a_stack_is_its_formula(build, formula, scale, size):
    """Layer by layer, in order, with the slopes of the reference; in a batch."""
    stack = build(scale).double()
    randomise(stack, seed=0)
    features = random_image(2, 6, *size, dtype=torch.float64) * 4 - 2
    output_size = (scale * size[0], scale * size[1])
    ours = stack(features, torch.empty(0), output_size)
    assert ours.shape == (2, 3, *output_size)
    layers = convolutions_in_order(weights_as_arrays(stack))
    for image in range(2):
        right = formula(layers, features[image].numpy(), STEPS[scale])
        assert relative_error(ours[image], torch.from_numpy(right)) < ROUNDING_FLOAT64


@pytest.mark.parametrize(("build", "formula"), STACKS)
def test_a_stack_does_not_look_at_the_image(build, formula):
    """No skip: a brighter image with the same features gives the same."""
    stack, features = build(2), random_image(1, 6, 3, 4)
    dark, bright = (stack(features, torch.full((1, 3, 3, 4), v), (6, 8)) for v in (0.0, 1.0))
    assert torch.equal(dark, bright)


def test_the_two_orders_of_nearest_and_convolution_differ():
    """ESC-Real's and ESC-Real-M's stacks: the same weights in other places, and other results."""
    real, real_m = NearestConvReconstruction(6, 4), ConvNearestReconstruction(6, 4)
    for ours, theirs in zip(real.parameters(), real_m.parameters(), strict=True):
        theirs.data.copy_(ours)
    features = random_image(1, 6, 4, 4)
    image = torch.empty(0)
    assert relative_error(real(features, image, (16, 16)), real_m(features, image, (16, 16))) > 1e-3
    assert list(real.state_dict()) != list(real_m.state_dict())
