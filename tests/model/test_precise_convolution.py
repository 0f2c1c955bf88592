"""A convolution that keeps the 24 bits of float32, on a GPU too."""

import pytest
import torch
import torch.nn.functional as F

from escsr.model.local_texture import convolve_by_products, convolve_precisely
from tests.golden_files import relative_error

FLOAT32 = 16 * 2**-23
"""Sums of 9 * 24 products in another order."""


def parts(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two maps of 24 channels, a 3x3 kernel for 10, and a bias."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 24, 7, 9), (10, 24, 3, 3), (10,))
    features, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes
    )
    return features, weight, bias


def rows(maps: torch.Tensor) -> torch.Tensor:
    """(B, O, H, W) -> (B * H * W, O)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_products_of_taps_are_the_convolution(layout: torch.memory_format) -> None:
    """In float64 within its rounding, whatever way the features lie in memory."""
    features, weight, bias = parts(torch.float64)
    right = rows(F.conv2d(features, weight, bias))
    for convolve in (convolve_by_products, convolve_precisely):
        ours = convolve(features.to(memory_format=layout), weight, bias)
        torch.testing.assert_close(ours, right, rtol=0, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_computes_in_full_float32() -> None:
    """Whatever cuDNN may do with convolutions; TF32 would be off by 1e-3."""
    right = rows(F.conv2d(*parts(torch.float64)))
    ours = convolve_precisely(*(part.cuda() for part in parts(torch.float32)))
    assert relative_error(ours.cpu().double(), right) < FLOAT32
