"""From features to an image."""

import pytest
import torch

from escsr.model.reconstruction import Reconstruction
from tests.golden_files import relative_error
from tests.model.networks import ROUNDING_FLOAT64, random_image, randomise, small_config
from tests.oracles.convolution import convolve, enlarge_bicubic, enlarge_nearest, shuffle_pixels

ENLARGE = {"nearest": enlarge_nearest, "bicubic": enlarge_bicubic}


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 3)])
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("image_skip", ["nearest", "bicubic"])
def test_subpixels_are_shuffled_and_the_enlarged_image_added(image_skip, scale, size):
    """Equals the convolution, the shuffle and the enlargement spelled out."""
    layer = Reconstruction(small_config(scale=scale, image_skip=image_skip)).double()
    randomise(layer, seed=0)
    features = random_image(2, 8, *size, dtype=torch.float64)
    image = random_image(2, 3, *size, seed=2, dtype=torch.float64)
    ours = layer(features, image, (scale * size[0], scale * size[1]))
    weight, bias = (value.numpy() for value in layer.state_dict().values())
    for index in range(2):
        subpixels = convolve(features[index].numpy(), weight, bias)
        right = shuffle_pixels(subpixels, scale) + ENLARGE[image_skip](image[index].numpy(), scale)
        assert relative_error(ours[index], torch.from_numpy(right)) < ROUNDING_FLOAT64


HALF_OF_A_BRIGHT_PIXEL = {
    "nearest": [0, 0, 0, 0, 1],
    # Keys' kernel with a = -0.75 at distances 2.25, 1.75, 1.25, 0.75 and 0.25, worked by hand.
    "bicubic": [0, -0.03515625, -0.10546875, 0.26171875, 0.87890625],
}


@pytest.mark.parametrize("image_skip", ["nearest", "bicubic"])
def test_the_skip_of_one_bright_pixel(image_skip):
    """The enlarged image alone, where the features say nothing; overshoot is kept."""
    layer = Reconstruction(small_config(scale=2, image_skip=image_skip))
    torch.nn.init.zeros_(layer.to_subpixels.weight)
    torch.nn.init.zeros_(layer.to_subpixels.bias)
    image = torch.zeros(1, 3, 1, 5)
    image[..., 2] = 1
    enlarged = layer(torch.zeros(1, 8, 1, 5), image, (2, 10))
    half = HALF_OF_A_BRIGHT_PIXEL[image_skip]
    assert enlarged[0, 0, 0].tolist() == pytest.approx([*half, *reversed(half)], abs=1e-6)
