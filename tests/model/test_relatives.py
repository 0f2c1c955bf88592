"""What ESC's relatives add: pixels as channels, features from the image, any output size."""

import pytest
import torch
from torch.nn import functional

from escsr.errors import ConfigurationError
from escsr.model.network import FeatureSkip
from escsr.model.padding import reflect_pad
from tests.golden_files import relative_error
from tests.model.networks import (
    ROUNDING_FLOAT64,
    random_image,
    randomise,
    small_network,
    weights_as_arrays,
)
from tests.oracles.attention import reflected_position
from tests.oracles.convolution import as_full_kernel, convolve
from tests.oracles.network import Oracle, reflect

REAL = {
    "norm_in_conv_layers": True,
    "image_skip": "none",
    "feature_skip": True,
    "upsampler_dim": 8,
}
RIB = {"position_bias": "implicit", "attention_gate": True, "norm_before_last_conv": True}
LTE = {
    "upsampler": "lte",
    "image_skip": "none",
    "texture_dim": 6,
    "texture_mlp_dim": 5,
    "texture_mlp_layers": 1,
}
RELATIVES = [
    pytest.param({**REAL, "scale": 4, "upsampler": "nearest+conv"}, id="real"),
    pytest.param({**REAL, "scale": 4, "upsampler": "dysample"}, id="real-dysample"),
    pytest.param({**REAL, "scale": 1, "unshuffle": 4}, id="real-m-direct-x1"),
    pytest.param(
        {**REAL, "scale": 1, "unshuffle": 4, "upsampler": "conv+nearest"}, id="real-m-nearest-x1"
    ),
    pytest.param(
        {**REAL, "scale": 2, "unshuffle": 2, "upsampler": "pixelshuffle"}, id="real-m-shuffle-x2"
    ),
    pytest.param(
        {**REAL, "scale": 2, "unshuffle": 2, "upsampler": "dysample", "upsampler_dim": 4},
        id="real-m-dysample-x2",
    ),
    pytest.param({**REAL, "scale": 3, "upsampler": "conv+nearest"}, id="real-m-nearest-x3"),
    pytest.param({**REAL, "scale": 1}, id="real-m-conv-x1"),
    pytest.param({**REAL, "scale": 3, "upsampler": "transpose+conv"}, id="real-m-transpose-x3"),
    pytest.param(
        {**REAL, "scale": 1, "unshuffle": 4, "upsampler": "transpose+conv"},
        id="real-m-transpose-x1",
    ),
    pytest.param({**REAL, "scale": 2, "upsampler": "lda", "upsampler_dim": 32}, id="real-m-lda-x2"),
    pytest.param({**REAL, "scale": 4, "upsampler": "pa_up"}, id="real-m-pa-up-x4"),
    pytest.param(RIB, id="rib"),
    pytest.param(LTE, id="lte"),
]
SIZES = [(1, 1), (1, 9), (5, 2), (6, 7)]


@pytest.mark.parametrize("fields", RELATIVES)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_relative_is_the_papers_at_any_size(fields, height, width):
    """The network equals the oracle, written from the paper alone, for every H, W >= 1."""
    network = small_network(num_blocks=1, num_conv_layers=1, **fields).double()
    image = random_image(1, 3, height, width, dtype=torch.float64)
    right = Oracle(network.config, weights_as_arrays(network)).enlarge(image[0].numpy())
    assert relative_error(network(image)[0], torch.from_numpy(right)) < ROUNDING_FLOAT64


@pytest.mark.parametrize(
    "kind", ["pixelshuffledirect", "conv+nearest", "dysample", "transpose+conv", "lda", "pa_up"]
)
@pytest.mark.parametrize(("scale", "unshuffle"), [(1, 4), (2, 2)])
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 6), (3, 3), (4, 8), (5, 7), (17, 2), (41, 43)], ids=str
)
def test_pixels_become_channels_whatever_the_size(size, scale, unshuffle, kind):
    """The result is that of the image padded by hand, cropped; the reference fails at 41x43."""
    network = small_network(
        num_blocks=1, num_conv_layers=1, scale=scale, unshuffle=unshuffle, upsampler=kind, **REAL
    ).double()
    image = random_image(2, 3, *size, dtype=torch.float64)
    rows, columns = (
        [reflected_position(place, side) for place in range(-(-side // unshuffle) * unshuffle)]
        for side in size
    )
    padded = image[:, :, rows][..., columns]
    with torch.no_grad():
        ours, by_hand = network(image), network(padded)
    assert ours.shape == (2, 3, scale * size[0], scale * size[1])
    assert by_hand.shape[-2:] == (scale * len(rows), scale * len(columns))
    assert torch.equal(ours, by_hand[..., : scale * size[0], : scale * size[1]])


def test_pixels_of_a_square_become_neighbouring_channels():
    """The first convolution sees (colour, sub-row, sub-column), as torch's pixel_unshuffle."""
    network = small_network(scale=2, unshuffle=2, **REAL).double()
    image = random_image(1, 3, 4, 6, dtype=torch.float64)
    before = []
    network.shallow.register_forward_pre_hook(lambda _, given: before.append(given[0]))
    network(image)
    assert before[0].shape == (1, 12, 2, 3)
    assert torch.equal(before[0][0, 4 + 2 * 1 + 0], image[0, 1, 1::2, 0::2])


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 2), (3, 7), (9, 4)], ids=str)
def test_the_feature_skip_is_its_formula_on_any_size(size):
    """1x1, depthwise 7x7 on reflected features, leaky ReLU 0.2, 1x1; tiny maps reflect on."""
    skip = FeatureSkip(3, 4).double()
    randomise(skip, seed=0)
    image = random_image(2, 3, *size, dtype=torch.float64) * 2 - 1
    ours, state = skip(image), weights_as_arrays(skip)
    kernel = as_full_kernel(state["depthwise.weight"][:, 0])
    for index in range(2):
        wide = convolve(image[index].numpy(), state["expand.weight"], state["expand.bias"])
        filtered = convolve(reflect(wide, 3), kernel, state["depthwise.bias"])[:, 3:-3, 3:-3]
        active = filtered.clip(min=0) + 0.2 * filtered.clip(max=0)
        right = convolve(active, state["reduce.weight"], state["reduce.bias"])
        assert relative_error(ours[index], torch.from_numpy(right)) < ROUNDING_FLOAT64


@pytest.mark.parametrize("size", [(4, 4), (5, 9)], ids=str)
def test_reflection_on_all_sides_is_torchs_where_that_works(size):
    """Maps of more than 3 pixels per side."""
    features = random_image(2, 4, *size)
    assert torch.equal(reflect_pad(features, 3), functional.pad(features, [3] * 4, mode="reflect"))


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 2)], ids=str)
def test_reflection_on_all_sides_goes_to_and_fro_on_tiny_maps(size):
    """A side of 2 becomes 1 0 1 0 1 0 1 0; a side of 1 is repeated."""
    features = random_image(1, 2, *size)
    assert torch.equal(
        reflect_pad(features, 3), torch.from_numpy(reflect(features[0].numpy(), 3))[None]
    )


@pytest.mark.parametrize("fields", RELATIVES)
def test_the_usual_output_size_may_be_said(fields):
    """The image times scale is what comes out unless told; telling it changes nothing."""
    network = small_network(num_blocks=1, num_conv_layers=1, **fields)
    image, scale = random_image(2, 3, 5, 7), network.scale
    for size in ((5 * scale, 7 * scale), [5 * scale, 7 * scale]):
        assert torch.equal(network(image, size), network(image))


@pytest.mark.parametrize("size", [(10, 15), (11, 14), (5, 7), (40, 28)], ids=str)
def test_another_output_size_is_refused_in_words(size):
    """By all but ESC+LTE; the message says which size is possible, and what to do."""
    with pytest.raises(ConfigurationError) as caught:
        small_network(scale=2)(random_image(1, 3, 5, 7), size)
    for word in (str(size), "enlarges by 2", "(10, 14)", "resize the result", '"lte"'):
        assert word in str(caught.value)


@pytest.mark.parametrize("fields", [{}, LTE], ids=["esc", "lte"])
@pytest.mark.parametrize(
    "size",
    [(0, 14), (10, -1), (10.0, 14.0), (10, True), (10,), (10, 14, 1), (), 10, "10"],
    ids=str,
)
def test_what_is_no_size_of_an_output_is_refused(size, fields):
    """By every network; the message says what came and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        small_network(**fields)(random_image(1, 3, 5, 7), size)
    assert f"output_size is {size!r}; it must be two whole numbers" in str(caught.value)


@pytest.mark.parametrize("size", [(1, 1), (9, 4), (13, 40)], ids=str)
def test_esc_lte_makes_any_size(size):
    """Smaller, larger, and another factor for each axis: equal to the oracle."""
    network = small_network(num_blocks=1, num_conv_layers=1, **LTE).double()
    image = random_image(2, 3, 5, 7, dtype=torch.float64)
    ours = network(image, size)
    assert ours.shape == (2, 3, *size)
    oracle = Oracle(network.config, weights_as_arrays(network))
    for index in range(2):
        right = oracle.enlarge(image[index].numpy(), size)
        assert relative_error(ours[index], torch.from_numpy(right)) < ROUNDING_FLOAT64


@pytest.mark.parametrize("fields", RELATIVES)
def test_gradients_reach_every_parameter_of_every_relative(fields):
    """Every weight learns."""
    network = small_network(num_blocks=1, num_conv_layers=1, **fields)
    network(random_image(2, 3, 8, 9)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.count_nonzero() > 0, name
