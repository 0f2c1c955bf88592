"""The large kernel in the frequency domain equals a direct convolution."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from escsr.engines.folding import (
    LARGEST_KERNEL,
    WeightsWithSpectrum,
    convolve_by_spectrum,
    fold,
    has_fast_spectrum,
    real_spectrum,
)
from escsr.model import ESC, variant
from escsr.model.convolutional_attention import average_over_symmetries

ROUNDING = 2e-6
"""Of the largest value: transforms of 48x48 numbers and back."""


@given(
    channels=st.sampled_from((3, 16)),
    kernel_size=st.sampled_from((5, 13, 17, LARGEST_KERNEL)),
    height=st.integers(1, 80),
    width=st.integers(1, 80),
)
@settings(max_examples=20, deadline=None)
def test_it_equals_a_direct_convolution_at_any_size(
    channels: int, kernel_size: int, height: int, width: int
) -> None:
    """Maps smaller than a tile's margin, and of several tiles."""
    torch.manual_seed(height * 100 + width)
    kernel = average_over_symmetries(torch.randn(channels, channels, kernel_size, kernel_size))
    features = torch.randn(1, channels, height, width)
    expected = F.conv2d(features.double(), kernel.double(), padding=kernel_size // 2)
    result = convolve_by_spectrum(features, real_spectrum(kernel), kernel_size)
    assert result.shape == features.shape
    assert (result - expected).abs().max() <= ROUNDING * expected.abs().max()


@pytest.mark.parametrize("size", [(95, 97), (128, 80)])
def test_a_folded_network_uses_it_on_large_maps_alone(size: tuple[int, int]) -> None:
    """And answers as the network does, with a dynamic kernel that is not zero."""
    torch.manual_seed(0)
    config = replace(variant("esc-tiny", scale=2), pdim=16, num_blocks=1, num_conv_layers=2)
    network = ESC(config).eval()
    for name, parameter in network.named_parameters():
        if "to_kernel" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    folded = fold(network)
    assert isinstance(folded.shared_large_kernel(), WeightsWithSpectrum)  # type: ignore[operator]
    image = torch.rand(1, 3, *size)
    with torch.inference_mode():
        expected = network.double()(image.double())
        assert (folded(image) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_small_kernels_stay_direct() -> None:
    """16 channels gain from 13 on, 8 never: those are convolved two pixels at a time."""
    assert has_fast_spectrum(torch.zeros(16, 16, 13, 13))
    assert not has_fast_spectrum(torch.zeros(16, 16, 9, 9))
    assert not has_fast_spectrum(torch.zeros(8, 8, 13, 13))
    assert not has_fast_spectrum(torch.zeros(16, 16, 27, 27))
