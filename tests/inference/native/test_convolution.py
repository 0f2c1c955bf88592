"""3x3 convolutions by Winograd's transforms against PyTorch's in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from escsr.inference.native.calls import lanes
from escsr.inference.native.convolution import NativeConvolution, convolves_natively
from tests.inference.native.formulas import array, largest_error

pytestmark = pytest.mark.usefixtures("kernels")

ROUNDING = 1e-5
"""Of the largest value: transforms multiply by up to 8 and take differences."""


def assert_convolves(batch: int, inputs: int, outputs: int, height: int, width: int) -> None:
    """A random convolution on a random batch, and the memory format it comes in."""
    torch.manual_seed(height * 100 + width)
    source = nn.Conv2d(inputs * lanes(), outputs * lanes(), 3, padding=1)
    image = torch.randn(batch, inputs * lanes(), height, width)
    assert source.bias is not None
    expected = F.conv2d(image.double(), source.weight.double(), source.bias.double(), padding=1)
    with torch.inference_mode():
        for features in (image, image.contiguous(memory_format=torch.channels_last)):
            result = NativeConvolution(source)(features)
            assert result.shape == expected.shape
            assert largest_error(result, array(expected.detach())) <= ROUNDING


@given(
    batch=st.integers(1, 2),
    inputs=st.integers(1, 3),
    outputs=st.integers(1, 3),
    height=st.integers(1, 21),
    width=st.integers(1, 70),
)
@settings(max_examples=15, deadline=None)
def test_it_equals_a_direct_convolution_at_any_size(
    batch: int, inputs: int, outputs: int, height: int, width: int
) -> None:
    """Sides that are no multiples of a tile's four, and more tiles than go through at a time."""
    assert_convolves(batch, inputs, outputs, height, width)


def test_what_is_added_comes_on_top() -> None:
    """The residual of a block is added on the way out."""
    source = nn.Conv2d(lanes(), lanes(), 3, padding=1)
    features, added = torch.randn(2, 35, lanes())
    with torch.inference_mode():
        native = NativeConvolution(source)
        plain = native.of_matrix(features.contiguous(), (5, 7))
        both = native.of_matrix(features.contiguous(), (5, 7), added=added.contiguous())
    assert torch.equal(both, plain + added)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(3, 64, 3, padding=1),
        nn.Conv2d(64, 64, 1),
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, padding=1, stride=2),
        nn.Conv2d(64, 64, 3, padding=1, groups=64),
        nn.Conv2d(64, 64, 3, padding=1, bias=False),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
    ],
    ids=["3 channels", "1x1", "no padding", "stride", "depthwise", "no bias", "reflect"],
)
def test_other_convolutions_are_left_alone(convolution: nn.Conv2d) -> None:
    """Only what the kernel computes is replaced."""
    assert not convolves_natively(convolution)
