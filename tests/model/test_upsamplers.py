"""The stacks of convolutions that enlarge features."""

import math

import pytest
import torch
from torch import nn

from escsr.family.weight_shapes import enlarging_steps
from escsr.model.reconstruction import (
    ConvNearestReconstruction,
    NearestConvReconstruction,
    PixelAttention,
    PixelAttentionReconstruction,
    PixelShuffleReconstruction,
    TransposeConvReconstruction,
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
    pytest.param(
        lambda scale: TransposeConvReconstruction(6, scale), oracle.transpose_conv, id="transpose"
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


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 3)])
@pytest.mark.parametrize("scale", STEPS)
def test_pixel_attention_is_its_formula(scale, size):
    """As above, with the gates beside the layers; only the first step takes all channels."""
    stack = PixelAttentionReconstruction(6, 4, scale).double()
    randomise(stack, seed=0)
    features = random_image(2, 6, *size, dtype=torch.float64) * 4 - 2
    ours = stack(features, torch.empty(0), (scale * size[0], scale * size[1]))
    weights = weights_as_arrays(stack)
    layers, gates = convolutions_in_order(weights), convolutions_in_order(weights, ".gate")
    assert len(gates) == len(STEPS[scale])
    assert [layer[0].shape[:2] for layer in layers[:3]] == [(4, 6), (4, 4), (len(layers[2][0]), 4)]
    for image in range(2):
        right = oracle.pixel_attention(layers, gates, features[image].numpy(), STEPS[scale])
        assert relative_error(ours[image], torch.from_numpy(right)) < ROUNDING_FLOAT64


def test_a_gate_weighs_each_value_by_its_pixel():
    """By hand: two channels, each gated by the other: x * sigmoid(y), y * sigmoid(x)."""
    attention = PixelAttention(2)
    with torch.no_grad():
        attention.gate.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]])[..., None, None])
        nn.init.zeros_(attention.gate.bias)
    x, y = math.log(3), -math.log(4)  # their sigmoids are 3/4 and 1/5
    weighed = attention(torch.tensor([x, y]).reshape(1, 2, 1, 1)).flatten()
    assert weighed.tolist() == pytest.approx([x / 5, y * 3 / 4])


def first_layer_alone(scale, kernel):
    """A stack of one channel and one transposed convolution, its last convolution a copy."""
    stack = TransposeConvReconstruction(1, scale)
    with torch.no_grad():
        stack.layers[0].weight.copy_(kernel.expand(1, 3, -1, -1))
        nn.init.zeros_(stack.layers[0].bias)
        nn.init.dirac_(stack.layers[1].weight)
        nn.init.zeros_(stack.layers[1].bias)
    return stack


def test_kernels_of_4_overlap_by_half_and_begin_a_pixel_before():
    """By hand: a single 1 at (1, 1) of 3x3 leaves the kernel at (1, 1) of 6x6; ones add up to 4."""
    kernel = torch.arange(16.0).reshape(4, 4)
    image = torch.zeros(1, 1, 3, 3)
    image[..., 1, 1] = 1
    right = torch.zeros(6, 6)
    right[1:5, 1:5] = kernel
    stack = first_layer_alone(2, kernel)
    assert torch.equal(stack(image, image, (6, 6)), right.expand(1, 3, -1, -1))
    ones = first_layer_alone(2, torch.ones(4, 4))(torch.ones_like(image), image, (6, 6))
    border = torch.tensor([1.0, 2, 2, 2, 2, 1])
    assert torch.equal(ones[0, 0], border[:, None] * border)


def test_kernels_of_3_lie_side_by_side():
    """By hand: every pixel becomes the kernel."""
    kernel = torch.arange(9.0).reshape(3, 3)
    image = torch.tensor([[1.0, 2.0]]).reshape(1, 1, 1, 2)
    ours = first_layer_alone(3, kernel)(image, image, (3, 6))
    assert torch.equal(ours[0, 2], torch.cat((kernel, 2 * kernel), 1))


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
