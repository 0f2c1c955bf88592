"""DySample: every sub-pixel looks where the formula says."""

import pytest
import torch
from torch import Tensor, nn

from escsr.model.reconstruction import DySample, DySampleReconstruction
from escsr.weights.official import initial_places
from tests.golden_files import relative_error
from tests.model.networks import ROUNDING_FLOAT64, random_image, randomise, weights_as_arrays
from tests.oracles.convolution import convolve
from tests.oracles.dysample import dysample
from tests.oracles.upsamplers import leaky_relu

SIZES = [(1, 1), (1, 4), (3, 2), (5, 4)]


def small_sampler(scale: int, groups: int, *, seed: int = 0) -> DySample:
    """Of 8 channels, float64; offsets of about a pixel, so that borders are crossed."""
    sampler = DySample(8, 3, scale, groups=groups).double()
    randomise(sampler, seed=seed)
    with torch.no_grad():
        sampler.offset.weight.mul_(6)
    return sampler


def still_sampler(scale: int, groups: int = 1) -> DySample:
    """Without offsets; the three channels that come in go out."""
    sampler = DySample(3, 3, scale, groups=groups)
    nn.init.zeros_(sampler.offset.weight)
    nn.init.dirac_(sampler.mix.weight)
    nn.init.zeros_(sampler.mix.bias)
    return sampler


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("scale", "groups"), [(1, 1), (2, 4), (3, 2), (4, 4), (4, 8)])
def test_every_sub_pixel_is_sampled_where_the_formula_says(scale, groups, size):
    """Equal to the oracle, image by image, in a batch, whatever the sides."""
    sampler = small_sampler(scale, groups)
    features = random_image(2, 8, *size, dtype=torch.float64) * 4 - 2
    ours = sampler(features)
    assert ours.shape == (2, 3, scale * size[0], scale * size[1])
    for image in range(2):
        right = dysample(weights_as_arrays(sampler), features[image].numpy(), scale, groups)
        assert relative_error(ours[image], torch.from_numpy(right)) < ROUNDING_FLOAT64


def test_without_offsets_it_enlarges_bilinearly():
    """As torch's own interpolation with half-pixel centres, borders repeated."""
    image = random_image(2, 3, 5, 4)
    right = nn.functional.interpolate(image, scale_factor=4, mode="bilinear")
    # Places are made in another way: their rounding times the steepest step between pixels.
    assert (still_sampler(4)(image) - right).abs().max() < 1e-5


def moved_by(sampler: DySample, x: float, y: float, *, group: int, sub_pixel: int) -> DySample:
    """Move one sub-pixel of one group by so many LR pixels."""
    # scope starts at zero, so that 0.5 * sigmoid(0) * offset is a quarter of the offset
    per_axis = sampler.offset.bias.numel() // 2
    place = group * sampler.scale**2 + sub_pixel
    with torch.no_grad():
        sampler.offset.bias[place] = 4 * x
        sampler.offset.bias[per_axis + place] = 4 * y
    return sampler


@pytest.mark.parametrize(("sub_row", "sub_column"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_sub_pixel_is_moved_right_by_x_and_down_by_y(sub_row, sub_column):
    """Channels are ordered (xy, x first; group; sub-row; sub-column), by hand at scale 2."""
    sampler = moved_by(still_sampler(2), 1.25, 0.75, group=0, sub_pixel=2 * sub_row + sub_column)
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    image = torch.stack((rows, columns, torch.zeros(6, 6)))[None]
    change = sampler(image) - still_sampler(2)(image)
    moved = change[0, :2, 4 + sub_row, 4 + sub_column]  # of pixel (2, 2): far from the borders
    assert moved.tolist() == pytest.approx([0.75, 1.25], abs=1e-5)
    change[..., sub_row::2, sub_column::2] = 0
    assert change.abs().max() == 0


def test_each_group_of_channels_is_moved_by_its_own_offsets():
    """With three groups of one channel, only the second moves."""
    sampler = moved_by(still_sampler(2, groups=3), 1.0, 0.0, group=1, sub_pixel=0)
    image = random_image(1, 3, 4, 4)
    change = (sampler(image) - still_sampler(2, groups=3)(image)).abs().amax((0, 2, 3))
    assert (change > 1e-3).tolist() == [False, True, False]


def test_places_beyond_the_border_show_the_border():
    """Moved by 100 pixels to the right and down, every sub-pixel is the last pixel."""
    sampler = still_sampler(3)
    nn.init.constant_(sampler.offset.bias, 400.0)
    image = random_image(1, 3, 4, 5)
    assert torch.allclose(sampler(image), image[..., -1:, -1:].expand(-1, -1, 12, 15))


def test_the_stored_constant_grid_is_the_one_that_is_used():
    """What the reference keeps as `init_pos` is where sub-pixels lie without offsets."""
    scale, groups = 4, 2
    grid = torch.from_numpy(initial_places(scale, groups)).reshape(2, groups, scale, scale)
    # One pixel, so that [-1, 1] is its width, and 0 its centre.
    places = still_sampler(scale, groups).double().places(torch.zeros(1, 3, 1, 1).double()) / 2
    assert torch.allclose(grid.permute(1, 2, 3, 0).double(), places, atol=1e-7)
    x, y = [-0.25, 0.25, -0.25, 0.25], [-0.25, -0.25, 0.25, 0.25]
    assert initial_places(2, 1).reshape(-1).tolist() == [*x, *y]


def test_it_starts_near_bilinear_sampling():
    """Offsets are drawn with a deviation of 0.02, the scope starts at zero."""
    torch.manual_seed(0)
    sampler = DySample(64, 3, 4, groups=4)
    assert sampler.scope.weight.count_nonzero() == 0
    assert sampler.scope.bias is None
    # 8192 draws: the deviation is known to 0.8 %; five times that.
    assert sampler.offset.weight.std().item() == pytest.approx(0.02, rel=0.04)


@pytest.mark.parametrize(("dim", "inner_dim"), [(8, 8), (8, 4)])
def test_features_are_narrowed_where_the_widths_differ(dim, inner_dim):
    """Convolution and leaky ReLU 0.01 come first, unless both widths agree."""
    layer = DySampleReconstruction(dim, inner_dim, 2, groups=2).double()
    randomise(layer, seed=0)
    features = random_image(2, dim, 3, 4, dtype=torch.float64) * 4 - 2
    ours = layer(features, torch.empty(0), (6, 8))
    weights = weights_as_arrays(layer.sampler)
    for image in range(2):
        inside = features[image].numpy()
        if layer.narrow is not None:
            narrow = weights_as_arrays(layer.narrow)
            inside = leaky_relu(convolve(inside, narrow["weight"], narrow["bias"]), 0.01)
        right = dysample(weights, inside, 2, 2)
        assert relative_error(ours[image], torch.from_numpy(right)) < ROUNDING_FLOAT64
    assert (layer.narrow is None) == (dim == inner_dim)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_keeps_places_apart_far_from_the_corner(dtype):
    """At column 600 bfloat16 knows every fourth pixel only; places are made in float32."""
    image = random_image(1, 3, 2, 600)
    sampler = still_sampler(2)
    right = sampler(image)
    ours = sampler.to(dtype)(image.to(dtype))
    assert ours.dtype == dtype
    # Rounded where it comes in and where it goes out; a wrong place would show another pixel.
    assert (ours.float() - right).abs().max() < 2 * torch.finfo(dtype).eps


def test_gradients_reach_offsets_scope_and_features():
    """Autograd agrees with finite differences, places away from pixel centres."""
    sampler = small_sampler(2, 2)
    names, weights = zip(*sampler.named_parameters(), strict=True)
    features = random_image(1, 8, 2, 3, dtype=torch.float64).requires_grad_()

    def run(image: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(sampler, dict(zip(names, values, strict=True)), (image,))

    assert torch.autograd.gradcheck(run, (features, *weights), fast_mode=True)
