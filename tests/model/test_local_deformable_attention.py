"""Local deformable attention: every pixel attends to the places that the formula says."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from escsr.family.weight_shapes import LDA_GROUPS
from escsr.model.local_deformable_attention import (
    LocalAttentionReconstruction,
    LocalDeformableAttention,
    Stretch,
    attention_reach,
)
from tests.golden_files import relative_error
from tests.model.networks import ROUNDING_FLOAT64, random_image, randomise, weights_as_arrays
from tests.oracles.convolution import convolve
from tests.oracles.local_attention import local_attention
from tests.oracles.upsamplers import leaky_relu

SIZES = [(1, 1), (1, 4), (3, 2), (5, 4)]


def whole(module: nn.Module, features: Tensor) -> Tensor:
    """The result of a whole map."""
    height, width = features.shape[-2:]
    return module(features, Stretch(start=0, length=height), Stretch(start=0, length=width))


def equal_attention(scale: int, dim: int = 8) -> LocalDeformableAttention:
    """Queries are zero, so all nine places weigh the same; offsets are zero until set."""
    attention = LocalDeformableAttention(dim, scale)
    for layer in (attention.to_query, attention.to_offset):
        nn.init.zeros_(layer.weight)
    nn.init.zeros_(attention.to_offset.bias)
    return attention


def ramps(height: int, width: int, channels: int = 8) -> Tensor:
    """Each channel is its row number, but for the last of each group, which is the column's."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    features = rows.expand(1, channels, -1, -1).float().clone()
    features[:, channels // 2 - 1 :: channels // 2] = columns.float()
    return features


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("scale", "dim"), [(2, 8), (2, 24), (3, 64), (4, 32), (5, 16)])
def test_every_pixel_attends_where_the_formula_says(scale, dim, size):
    """Equal to the oracle, image by image, in a batch, whatever the sides."""
    attention = LocalDeformableAttention(dim, scale).double()
    randomise(attention, seed=0)
    features = random_image(2, dim, *size, dtype=torch.float64) * 4 - 2
    ours = whole(attention, features)
    assert ours.shape == (2, dim, scale * size[0], scale * size[1])
    for image in range(2):
        right = local_attention(weights_as_arrays(attention), features[image].numpy(), scale)
        assert relative_error(ours[image], torch.from_numpy(right)) < ROUNDING_FLOAT64


def test_corners_lie_on_corners_and_neighbours_are_of_the_result():
    """By hand, x2: rows of the result lie at 0, 0.4, 0.8 … of 3; the mean of three rows' places."""
    result = whole(equal_attention(2), ramps(3, 3))
    inside = torch.tensor([0.4, 0.8, 1.2, 1.6])
    assert torch.allclose(result[0, 0, 1:5, 2], inside, atol=1e-6)
    assert torch.allclose(result[0, 3, 2, 1:5], inside, atol=1e-6)
    # The row before the first lies at -0.4: 0.6 of row 0, which is 0, and 0.4 of nothing.
    assert result[0, 0, 0, 2].item() == pytest.approx((0 + 0 + 0.4) / 3)
    # The row behind the last at 2.4: 0.6 of row 2 and 0.4 of nothing.
    assert result[0, 0, 5, 2].item() == pytest.approx((1.6 + 2 + 0.6 * 2) / 3)


@pytest.mark.parametrize("number", range(9))
def test_a_place_is_moved_down_by_y_and_right_by_x_in_pixels_of_the_result(number):
    """Channels are ordered (neighbour row by row; y, x): by hand, far from the borders."""
    attention, features = equal_attention(2), ramps(9, 9)
    still = whole(attention, features)
    step = 8 / 17  # pixels of the features per pixel of the result
    with torch.no_grad():
        attention.to_offset.bias[2 * number] = math.atanh(0.75 / 11)
        attention.to_offset.bias[2 * number + 1] = math.atanh(1.25 / 11)
    change = (whole(attention, features) - still)[0, :, 8, 8]
    assert change[0].item() == pytest.approx(0.75 * step / 9, abs=1e-6)
    assert change[3].item() == pytest.approx(1.25 * step / 9, abs=1e-6)


def test_offsets_end_at_11_pixels_of_the_result():
    """However large what makes them: 11 * tanh."""
    attention = equal_attention(2)
    nn.init.constant_(attention.to_offset.bias, 100.0)
    offsets = attention.offsets(torch.zeros(1, 2, 3, 4))
    assert offsets.shape == (LDA_GROUPS, 9, 2, 3, 4)
    assert offsets.unique().tolist() == [11.0]


def test_each_group_of_channels_is_sampled_at_its_own_places():
    """Offsets of the second group move the second half of the channels alone."""
    attention, features = equal_attention(2), ramps(9, 9)
    still = whole(attention, features)
    moved = torch.zeros(LDA_GROUPS, 9, 2, 18, 18)
    moved[1, 4, 0] = 3.0
    attention.offsets = lambda query: moved
    change = (whole(attention, features) - still)[0, :, 8, 8]
    assert change.tolist() == pytest.approx([0.0] * 4 + [3 * (8 / 17) / 9] * 3 + [0.0], abs=1e-6)


def test_places_beyond_the_border_are_zero():
    """Moved by 11 pixels of 6 to the right, all nine of each pixel are outside."""
    attention = equal_attention(2)
    with torch.no_grad():
        attention.to_offset.bias[1::2] = 100.0
    assert whole(attention, ramps(3, 3) + 1).abs().max() == 0


def test_the_better_a_key_fits_the_more_its_value_weighs():
    """By hand: scores are q . (k + position bias) / sqrt(hidden), over all channels."""
    attention = equal_attention(2)
    nn.init.zeros_(attention.to_key.weight)
    nn.init.zeros_(attention.position_bias)
    with torch.no_grad():
        # The norm of channels that are all alike is its bias: so the query is (1, 2) everywhere.
        nn.init.ones_(attention.norm.bias)
        attention.to_query.weight[:, 0, 0, 0] = torch.tensor([1.0, 2.0])
        # 1 * ln 2 * sqrt(2) / sqrt(2): the neighbour above weighs twice as much as each other.
        attention.position_bias[1, 0] = math.log(2) * 2**0.5
    features = ramps(9, 9)
    features[:, :] = features[:, :1]
    place = 8 * 8 / 17
    result = whole(attention, features)[0, :, 8, 8]
    assert result.tolist() == pytest.approx([place - (8 / 17) / 10] * 8, abs=1e-6)


@pytest.mark.parametrize(("dim", "inner_dim"), [(16, 16), (12, 16)])
def test_features_are_narrowed_where_the_widths_differ(dim, inner_dim):
    """Convolution and leaky ReLU 0.01 come first, unless both widths agree; 3x3 comes last."""
    layer = LocalAttentionReconstruction(dim, inner_dim, 2).double()
    randomise(layer, seed=0)
    features = random_image(2, dim, 3, 4, dtype=torch.float64) * 4 - 2
    ours = layer(features, torch.empty(0), (6, 8))
    last = weights_as_arrays(layer.to_image)
    for image in range(2):
        inside = features[image].numpy()
        if layer.narrow is not None:
            narrow = weights_as_arrays(layer.narrow)
            inside = leaky_relu(convolve(inside, narrow["weight"], narrow["bias"]), 0.01)
        attended = local_attention(weights_as_arrays(layer.attention), inside, 2)
        right = convolve(attended, last["weight"], last["bias"])
        assert relative_error(ours[image], torch.from_numpy(right)) < ROUNDING_FLOAT64
    assert (layer.narrow is None) == (dim == inner_dim)


@given(
    scale=st.integers(2, 5),
    height=st.integers(1, 40),
    start=st.integers(0, 20),
    length=st.integers(1, 40),
    narrows=st.booleans(),
    sideways=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_a_part_equals_its_part_of_the_whole(scale, height, start, length, narrows, sideways):
    """But within reach of a border that the whole map has not; rows and columns alike."""
    start = min(start, height - 1)
    stop = min(start + length, height)
    layer = LocalAttentionReconstruction(16, 64 if narrows else 16, scale).double()
    randomise(layer, seed=1)
    with torch.no_grad():
        layer.attention.to_offset.weight.mul_(5)  # offsets up to the largest
    features = random_image(1, 16, height, 3, dtype=torch.float64) * 4 - 2
    stretches = [Stretch(start=start, length=height), Stretch(start=0, length=3)]
    if sideways:
        stretches.reverse()

    def turned(values: Tensor) -> Tensor:
        return values.transpose(2, 3) if sideways else values

    with torch.no_grad():
        whole_result = turned(layer(turned(features), torch.empty(0), (0, 0)))
        part = turned(layer.enlarge_part(turned(features[:, :, start:stop]), *stretches))
    reach = layer.reach_pixels
    top = scale * (start + reach * (start > 0))
    bottom = scale * (stop - reach * (stop < height))
    if bottom > top:
        right = whole_result[:, :, top:bottom]
        difference = part[:, :, top - scale * start : bottom - scale * start] - right
        # A LayerNorm over two channels that are nearly alike makes much of rounding, another pixel
        # would differ by 1e-3.
        assert difference.abs().max() < 1e-8 * whole_result.abs().max()


@pytest.mark.parametrize(("scale", "reach"), [(2, 9), (3, 7), (4, 6), (13, 3)])
def test_the_farther_the_result_is_enlarged_the_less_far_it_looks(scale, reach):
    """13 pixels of the result, and two of the features."""
    assert attention_reach(scale) == reach
    assert LocalAttentionReconstruction(8, 8, scale).reach_pixels == reach
    assert LocalAttentionReconstruction(8, 16, scale).reach_pixels == reach + 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_keeps_places_apart_far_from_the_corner(dtype):
    """At column 600 bfloat16 knows every fourth pixel only; places are made in float32."""
    features = random_image(1, 8, 2, 600)
    attention = equal_attention(2)
    right = whole(attention, features)
    ours = whole(attention.to(dtype), features.to(dtype))
    assert ours.dtype == dtype
    # Nine rounded ninths of rounded samples; a wrong place would show another pixel.
    assert (ours.float() - right).abs().max() < 6 * torch.finfo(dtype).eps


def test_gradients_reach_every_weight_and_the_features():
    """Autograd agrees with finite differences, places away from pixel centres."""
    attention = LocalDeformableAttention(24, 2).double()
    randomise(attention, seed=0)
    names, weights = zip(*attention.named_parameters(), strict=True)
    features = random_image(1, 24, 3, 2, dtype=torch.float64).requires_grad_()
    stretches = (Stretch(start=0, length=3), Stretch(start=0, length=2))

    def run(image: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(names, values, strict=True))
        return torch.func.functional_call(attention, named, (image, *stretches))

    assert torch.autograd.gradcheck(run, (features, *weights), fast_mode=True)
