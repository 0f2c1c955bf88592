"""ConvAttention: the shared large kernel and the dynamic kernel."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from escsr.model.convolutional_attention import (
    ConvAttention,
    DynamicKernel,
    SharedLargeKernel,
    average_over_symmetries,
    convolve_large,
    convolve_per_image,
)
from tests.golden_files import relative_error
from tests.model.networks import (
    FEW_PARAMETERS,
    ROUNDING_FLOAT64,
    random_image,
    randomise,
    small_config,
)
from tests.oracles.convolution import (
    as_full_kernel,
    convolve,
    decomposed_conv_attention,
    dense_conv_attention,
    dynamic_kernel,
    symmetric_kernel,
)


def _parts(seed: int = 0, **fields):
    config = small_config(**fields)
    layer = ConvAttention(config.dim, config.pdim, kind=config.large_kernel).double()
    large = SharedLargeKernel(config.pdim, config.large_kernel_size, config.large_kernel).double()
    randomise(layer, seed=seed)
    randomise(large, seed=seed + 1)
    return layer, large


def _arrays(module):
    return {name: value.numpy() for name, value in module.state_dict().items()}


def _dynamic_layers(state):
    return [
        (state[f"dynamic_kernel.{name}.weight"][:, :, 0, 0], state[f"dynamic_kernel.{name}.bias"])
        for name in ("to_hidden", "to_kernel")
    ]


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (7, 8)])
@pytest.mark.parametrize("kernel_size", [3, 5, 13])
def test_dense_equals_one_merged_kernel_per_image(kernel_size, size):
    """`LK * a + DK * a` is a convolution with LK whose centre holds DK on the diagonal."""
    layer, large = _parts(large_kernel_size=kernel_size)
    features = random_image(2, 8, *size, dtype=torch.float64)
    ours = layer(features, large())
    state = _arrays(layer)
    for image in range(2):
        values = features[image].numpy()
        attended = dense_conv_attention(
            values[:4],
            _arrays(large)["weights.0"],
            dynamic_kernel(values[:4], _dynamic_layers(state)),
        )
        mixed = np.concatenate((attended, values[4:]))
        right = convolve(mixed, state["aggregate.weight"], state["aggregate.bias"])
        assert relative_error(ours[image], torch.from_numpy(right)) < ROUNDING_FLOAT64


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (7, 8)])
@pytest.mark.parametrize("kernel_size", [3, 5, 13])
def test_decomposed_equals_one_merged_depthwise_kernel_per_image(kernel_size, size):
    """DK is padded into LKs and made from the features *before* the shared 1x1."""
    layer, large = _parts(**{**FEW_PARAMETERS, "large_kernel_size": kernel_size})
    features = random_image(2, 8, *size, dtype=torch.float64)
    ours = layer(features, large())
    state, shared = _arrays(layer), _arrays(large)
    for image in range(2):
        values = features[image].numpy()
        attended = decomposed_conv_attention(
            values[:4],
            shared["weights.0"][:, :, 0, 0],
            shared["weights.1"][:, 0],
            dynamic_kernel(values[:4], _dynamic_layers(state)),
        )
        mixed = np.concatenate((attended, values[4:]))
        right = convolve(mixed, state["aggregate.weight"], state["aggregate.bias"])
        assert relative_error(ours[image], torch.from_numpy(right)) < ROUNDING_FLOAT64


def test_the_rest_of_the_channels_passes_through():
    """Without the last 1x1, channels from P on are those that came in."""
    layer, large = _parts()
    torch.nn.init.dirac_(layer.aggregate.weight)
    torch.nn.init.zeros_(layer.aggregate.bias)
    features = random_image(1, 8, 5, 6, dtype=torch.float64)
    mixed = layer(features, large())
    assert torch.equal(mixed[:, 4:], features[:, 4:])
    assert not torch.equal(mixed[:, :4], features[:, :4])


def test_all_channels_may_be_convolved():
    """P = C leaves nothing to pass through."""
    layer, large = _parts(pdim=8)
    assert layer(random_image(1, 8, 5, 6, dtype=torch.float64), large()).shape == (1, 8, 5, 6)


def test_each_image_is_convolved_with_its_own_kernel():
    """The depthwise convolution of a batch equals that of its images, tap by tap."""
    features = random_image(3, 2, 4, 5, dtype=torch.float64)
    kernel = random_image(3, 2, 3, 3, seed=2, dtype=torch.float64)
    ours = convolve_per_image(features, kernel)
    for image in range(3):
        right = convolve(features[image].numpy(), as_full_kernel(kernel[image].numpy()))
        assert relative_error(ours[image], torch.from_numpy(right)) < ROUNDING_FLOAT64


def test_averaging_is_the_mean_of_the_eight_images():
    """The averaged kernel equals the mean over rotations and mirror images."""
    kernel = random_image(2, 3, 5, 5, dtype=torch.float64)
    right = torch.from_numpy(symmetric_kernel(kernel.numpy()))
    assert relative_error(average_over_symmetries(kernel), right) < ROUNDING_FLOAT64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_averaged_kernel_is_symmetric_to_the_last_bit(dtype):
    """No flip and no rotation of the square changes it."""
    averaged = average_over_symmetries(torch.randn(2, 2, 13, 13).to(dtype))
    for turns, mirrored in itertools.product(range(4), (False, True)):
        other = averaged.rot90(turns, (-2, -1))
        assert torch.equal(other.flip(-1) if mirrored else other, averaged)


def test_averaging_twice_changes_nothing():
    """Checkpoints saved after the reference's `convert()` hold averaged kernels."""
    averaged = average_over_symmetries(torch.randn(2, 2, 5, 5, dtype=torch.float64))
    assert relative_error(average_over_symmetries(averaged), averaged) < ROUNDING_FLOAT64


def test_only_the_dense_kernel_is_averaged():
    """ESC-FP's kernels are used as they are stored."""
    _, large = _parts(**FEW_PARAMETERS)
    for used, stored in zip(large(), large.weights, strict=True):
        assert torch.equal(used, stored)


def test_a_dense_kernel_starts_orthogonal():
    """Its rows, one per output channel, are orthonormal."""
    rows = SharedLargeKernel(16, 13, "dense").weights[0].flatten(1)
    # float32, sums of 2704 products.
    assert torch.allclose(rows @ rows.T, torch.eye(16), atol=1e-5)


def test_a_decomposed_kernel_starts_orthogonal_in_space_and_normal_in_channels():
    """LKs is orthogonal over (P, K*K), LKc plainly normal."""
    torch.manual_seed(0)
    channels, spatial = SharedLargeKernel(16, 13, "decomposed").weights
    assert channels.shape == (16, 16, 1, 1)
    assert spatial.shape == (16, 1, 13, 13)
    rows = spatial.flatten(1)
    assert torch.allclose(rows @ rows.T, torch.eye(16), atol=1e-5)
    # 256 draws of N(0, 1): the deviation is known to 4.4 %, the mean to 6 %; four times that.
    assert channels.std().item() == pytest.approx(1, abs=0.18)
    assert channels.mean().item() == pytest.approx(0, abs=0.25)


def test_a_dense_networks_dynamic_kernel_starts_at_zero():
    """At the start only the large kernel works."""
    layer = ConvAttention(8, 4)
    assert layer.dynamic_kernel.to_kernel.weight.count_nonzero() == 0
    assert layer.dynamic_kernel.to_kernel.bias.count_nonzero() == 0
    assert layer.dynamic_kernel(random_image(2, 4, 3, 3)).count_nonzero() == 0
    assert layer.dynamic_kernel.to_hidden.weight.count_nonzero() > 0


def test_a_decomposed_networks_dynamic_kernel_does_not_start_at_zero():
    """ESC-FP keeps PyTorch's own initial values."""
    layer = ConvAttention(8, 4, kind="decomposed")
    assert layer.dynamic_kernel.to_kernel.weight.count_nonzero() > 0
    assert layer.dynamic_kernel.to_kernel.bias.count_nonzero() > 0


def test_the_dynamic_kernel_depends_on_means_alone():
    """Shuffling the pixels of an image leaves its kernel as it is; other images get others."""
    kernel = DynamicKernel(4, hidden_dim=2, starts_at_zero=False).double()
    features = random_image(2, 4, 3, 4, dtype=torch.float64)
    order = torch.randperm(12)
    shuffled = features.flatten(2)[..., order].reshape(features.shape)
    assert relative_error(kernel(shuffled), kernel(features)) < ROUNDING_FLOAT64
    assert not torch.allclose(kernel(features)[0], kernel(features)[1])


@pytest.mark.parametrize(("kind", "hidden"), [("dense", 8), ("decomposed", 4)])
def test_the_dynamic_kernels_hidden_layer_is_a_share_of_its_channels(kind, hidden):
    """P/2 in ESC, P/4 in ESC-FP."""
    layer = ConvAttention(16, 16, kind=kind)
    assert layer.dynamic_kernel.to_hidden.weight.shape == (hidden, 16, 1, 1)
    assert layer.dynamic_kernel.to_kernel.weight.shape == (16 * 9, hidden, 1, 1)


@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 9),
    height=st.integers(1, 15),
    width=st.integers(1, 24),
    kernel_size=st.sampled_from([1, 3, 5, 7, 9, 13, 17]),
    is_channels_last=st.booleans(),
)
def test_two_pixels_at_a_time_are_the_plain_convolution(
    batch, channels, height, width, kernel_size, is_channels_last
):
    """Results and gradients, whether or not size and layout let pixels go in pairs: float64."""
    layout = torch.channels_last if is_channels_last else torch.contiguous_format
    torch.manual_seed(0)
    features = torch.randn(batch, channels, height, width, dtype=torch.float64)
    features = features.contiguous(memory_format=layout).requires_grad_()
    kernel = torch.randn(
        channels, channels, kernel_size, kernel_size, dtype=torch.float64, requires_grad=True
    )
    ours = convolve_large(features, kernel)
    plain = F.conv2d(features, kernel, padding=kernel_size // 2)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(plain)
    pairs = zip(
        torch.autograd.grad((ours * weights).sum(), (features, kernel)),
        torch.autograd.grad((plain * weights).sum(), (features, kernel)),
        strict=True,
    )
    for our_gradient, gradient in pairs:
        torch.testing.assert_close(our_gradient, gradient, rtol=1e-11, atol=1e-11)
