"""The whole network: any size, any batch, any precision, one function in every mode."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from escsr.errors import ImageValueError
from escsr.model import ESC, ESCConfig
from tests.golden_files import relative_error
from tests.model.networks import (
    FEW_PARAMETERS,
    ROUNDING_FLOAT64,
    random_image,
    randomise,
    small_config,
    small_network,
    weights_as_arrays,
)
from tests.oracles.network import Oracle

SIZES = [(1, 1), (1, 9), (7, 1), (2, 3), (4, 8), (5, 5), (9, 13)]
"""Below, at and above a window of 4; a side of 1; padding longer than the side."""
FORMS = [
    pytest.param({}, id="dense"),
    pytest.param({"norm_in_conv_layers": True}, id="dense-norm"),
    pytest.param(FEW_PARAMETERS, id="decomposed"),
]


@pytest.mark.parametrize("fields", FORMS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_network_is_the_papers_at_any_size(fields, height, width):
    """The network equals the oracle, written from the paper alone, for every H, W >= 1."""
    network = small_network(**fields).double()
    image = random_image(1, 3, height, width, dtype=torch.float64)
    right = Oracle(network.config, weights_as_arrays(network)).enlarge(image[0].numpy())
    assert relative_error(network(image)[0], torch.from_numpy(right)) < ROUNDING_FLOAT64


@st.composite
def configurations(draw):
    """Any small network that ESCConfig allows."""
    heads = draw(st.integers(1, 3))
    dim = heads * draw(st.integers(1, 3))
    return ESCConfig(
        scale=draw(st.integers(1, 3)),
        dim=dim,
        pdim=draw(st.integers(1, dim)),
        num_blocks=1,
        num_conv_layers=draw(st.integers(0, 2)),
        window_size=draw(st.integers(1, 5)),
        num_heads=heads,
        large_kernel_size=draw(st.sampled_from([3, 5, 7])),
        expansion=draw(st.sampled_from([1.0, 1.25, 2])),
        first_expansion=draw(st.sampled_from([1.5, 2.0])),
        norm_in_conv_layers=draw(st.booleans()),
        norm_before_last_conv=draw(st.booleans()),
        image_skip=draw(st.sampled_from(["nearest", "bicubic"])),
        large_kernel=draw(st.sampled_from(["dense", "decomposed"])),
    )


@settings(deadline=None, max_examples=40)
@given(
    config=configurations(),
    batch=st.integers(1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 9),
)
def test_every_allowed_configuration_holds_its_promises(config, batch, height, width, seed):
    """Back-ends agree, shapes are right, a batch equals its images alone and the oracle."""
    naive, sdpa = (ESC(config, attention_backend=name).double() for name in ("naive", "sdpa"))
    randomise(naive, seed=seed)
    sdpa.load_state_dict(naive.state_dict())
    images = random_image(batch, 3, height, width, seed=seed, dtype=torch.float64)
    with torch.no_grad():
        together = sdpa(images)
        alone = torch.cat([sdpa(image[None]) for image in images])
        specified = naive(images)
    assert together.shape == (batch, 3, config.scale * height, config.scale * width)
    assert relative_error(together, specified) < ROUNDING_FLOAT64
    assert relative_error(together, alone) < ROUNDING_FLOAT64
    right = Oracle(config, weights_as_arrays(naive)).enlarge(images[0].numpy())
    assert relative_error(together[0], torch.from_numpy(right)) < ROUNDING_FLOAT64


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("fields", [{}, FEW_PARAMETERS], ids=["nearest", "bicubic"])
def test_any_integer_scale_enlarges(scale, fields):
    """The output is scale times as high and as wide, for scales beyond the paper's too."""
    enlarged = small_network(scale=scale, **fields)(random_image(2, 3, 5, 7))
    assert enlarged.shape == (2, 3, scale * 5, scale * 7)


@pytest.mark.parametrize("fields", FORMS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        # Epsilon of the type, times a margin for some forty layers, each of which rounds its
        # result and whose errors partly cancel; another formula is off by 1 or so.
        (torch.float32, 16 * 2**-23),
        (torch.float16, 16 * 2**-10),
        (torch.bfloat16, 16 * 2**-7),
    ],
    ids=str,
)
def test_lower_precision_comes_near_float64(fields, dtype, tolerance):
    """float32, float16 and bfloat16 networks answer in their type, within their rounding."""
    network = small_network(**fields)
    image = random_image(2, 3, 9, 6, dtype=torch.float64)
    with torch.no_grad():
        right = network.double()(image)
        ours = network.to(dtype)(image.to(dtype))
    assert ours.dtype == dtype
    assert relative_error(ours.double(), right) < tolerance


def test_large_float16_maps_do_not_overflow_in_the_pooling():
    """The mean over more pixels than float16 can count stays finite."""
    network = small_network(num_blocks=1, num_conv_layers=1).half()
    with torch.no_grad():
        enlarged = network(torch.ones(1, 3, 260, 260, dtype=torch.float16))
    assert enlarged.isfinite().all()


@pytest.mark.parametrize("fields", FORMS)
def test_training_and_evaluation_are_one_function(fields):
    """train() changes neither the output nor, for a batch, anything else."""
    network = small_network(**fields)
    image = random_image(2, 3, 6, 7)
    evaluated = network.eval()(image)
    assert torch.equal(network.train()(image), evaluated)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("backend", ["naive", "sdpa"])
@pytest.mark.parametrize("fields", FORMS)
def test_gradients_reach_every_parameter(fields, backend, training):
    """Every weight learns, in evaluation mode as in training mode."""
    network = small_network(backend=backend, **fields).train(training)
    network(random_image(2, 3, 6, 9)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.count_nonzero() > 0, name


def test_gradients_are_those_of_the_function():
    """Autograd agrees with finite differences, for the image and for a weight of each kind."""
    network = small_network(num_blocks=1, num_conv_layers=1, window_size=2, dim=2, pdim=2).double()
    names = [
        "shared_large_kernel.weights.0",
        "blocks.0.attention.position_bias.table",
        "blocks.0.attention.query_key_value.bias",
        "blocks.0.conv_layers.0.conv_attention.dynamic_kernel.to_kernel.weight",
    ]
    weights = [network.get_parameter(name) for name in names]

    def run(image, *values):
        return torch.func.functional_call(network, dict(zip(names, values, strict=True)), (image,))

    image = random_image(2, 3, 3, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(run, (image, *weights), fast_mode=True)


@pytest.mark.parametrize("fields", FORMS)
def test_the_input_is_left_as_it_is(fields):
    """Nothing writes into the image, contiguous or channels_last."""
    network = small_network(**fields)
    for layout in (torch.contiguous_format, torch.channels_last):
        image = random_image(2, 3, 6, 5).to(memory_format=layout)
        before = image.clone()
        network(image)
        assert torch.equal(image, before)


def test_memory_layouts_give_one_result():
    """A channels_last image, a cropped view and a contiguous image are the same image."""
    network = small_network().double()
    image = random_image(2, 3, 6, 5, dtype=torch.float64)
    right = network(image)
    view = random_image(2, 3, 9, 9, dtype=torch.float64)[..., 1:7, 2:7].copy_(image)
    for other in (image.to(memory_format=torch.channels_last), view):
        assert relative_error(network(other), right) < ROUNDING_FLOAT64
    assert relative_error(network.to(memory_format=torch.channels_last)(image), right) < (
        ROUNDING_FLOAT64
    )


def test_the_output_is_not_clamped():
    """Values beyond [0, 1] come out, so that losses see them."""
    enlarged = small_network()(random_image(1, 3, 16, 16))
    assert enlarged.min() < 0
    assert enlarged.max() > 1


def test_windows_do_not_see_each_other():
    """Without ConvAttention, a change ends where its window and the 3x3 convolutions end."""
    network = small_network(num_blocks=1, num_conv_layers=0, window_size=8).double()
    image = random_image(1, 3, 32, 32, dtype=torch.float64)
    other = image.clone()
    other[..., 0, 0] += 1
    changed = (network(image) != network(other)).any(dim=1)[0]
    # Reach: conv, depthwise -> window 0 only; out: three 3x3 -> 3 pixels beyond it, times 2.
    rows, columns = np.nonzero(changed.numpy())
    assert max(rows) == max(columns) == 2 * (8 + 3) - 1


def test_the_dynamic_kernel_looks_at_the_whole_image():
    """With ConvAttention, one pixel's change reaches every pixel through the pooled statistics."""
    network = small_network().double()
    image = random_image(1, 3, 48, 48, dtype=torch.float64)
    other = image.clone()
    other[..., 0, 0] += 1
    assert (network(image) != network(other)).any(dim=1).all()


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((3, 8, 8), torch.float32, ["(3, 8, 8)", "(B, 3, H, W)", "image[None]"]),
        ((1, 1, 3, 8, 8), torch.float32, ["(1, 1, 3, 8, 8)", "(B, 3, H, W)"]),
        ((1, 1, 8, 8), torch.float32, ["(1, 1, 8, 8)", "three"]),
        ((1, 4, 8, 8), torch.float32, ["(1, 4, 8, 8)", "RGB"]),
        ((1, 8, 8, 3), torch.float32, ["(1, 8, 8, 3)", "(B, 3, H, W)"]),
        ((0, 3, 8, 8), torch.float32, ["no image", "at least 1"]),
        ((1, 3, 0, 40), torch.float32, ["40x0", "at least 1"]),
        ((1, 3, 40, 0), torch.float32, ["0x40", "at least 1"]),
        ((1, 3, 8, 8), torch.uint8, ["torch.uint8", "255"]),
        ((1, 3, 8, 8), torch.int64, ["torch.int64", "floating"]),
        ((1, 3, 8, 8), torch.bool, ["torch.bool", "floating"]),
    ],
)
def test_what_is_no_batch_of_images_is_refused_in_words(shape, dtype, words):
    """The error says what came, what is allowed and what to do."""
    with pytest.raises(ImageValueError) as caught:
        small_network()(torch.zeros(shape, dtype=dtype))
    for word in words:
        assert word in str(caught.value)


def test_scale_and_config_are_those_given():
    """`.scale` and `.config` say what was built."""
    config = small_config(scale=3)
    network = ESC(config)
    assert network.scale == 3
    assert network.config is config


def test_the_network_works_without_gradients_and_under_autocast():
    """Inference mode and bfloat16 autocast answer as the plain network does."""
    network = small_network()
    image = random_image(2, 3, 6, 5)
    right = network(image)
    with torch.inference_mode():
        # Without gradients sdpa takes a fused kernel, whose sums run in another order.
        assert relative_error(network(image), right) < 16 * 2**-23
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # As for a bfloat16 network, above.
        assert relative_error(network(image).float(), right) < 16 * 2**-7


def test_a_batch_of_many_sizes_keeps_no_state():
    """Results do not depend on what was computed before."""
    network = small_network()
    images = [random_image(1, 3, *size) for size in SIZES]
    first = [network(image) for image in images]
    for image, right in itertools.islice(zip(images, first, strict=True), 0, None, 2):
        assert torch.equal(network(image), right)
