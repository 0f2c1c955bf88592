"""Filtering in the frequency domain is filtering."""

import numpy as np
import pytest
import torch
from torch import Tensor

from escsr.training.degradation import blur


def slowly_blurred(image: Tensor, kernel: Tensor) -> Tensor:
    """One image (C, H, W), by loops, numpy's reflection around it."""
    reach = kernel.shape[-1] // 2
    frame = ((0, 0), (reach, reach), (reach, reach))
    padded = np.pad(image.double().numpy(), frame, mode="reflect")
    result = np.zeros(image.shape)
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            part = padded[:, row : row + image.shape[1], column : column + image.shape[2]]
            result += float(kernel[row, column]) * part
    return torch.from_numpy(result).float()


def symmetric_kernels(count: int, side: int) -> Tensor:
    """Random ones that look the same upside down, as all ours do."""
    kernels = torch.rand(count, side, side, generator=torch.Generator().manual_seed(side))
    return (kernels + kernels.flip(1, 2)) / (kernels.sum(dim=(1, 2), keepdim=True) * 2)


@pytest.mark.parametrize(("height", "width", "side"), [(9, 14, 5), (37, 23, 21), (8, 5, 21)])
def test_each_image_is_filtered_with_its_own_kernel(height: int, width: int, side: int) -> None:
    """Whatever the size: prime, or smaller than the reach of the kernel, reflected repeatedly."""
    images = torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(1))
    kernels = symmetric_kernels(3, side)
    expected = torch.stack([slowly_blurred(*pair) for pair in zip(images, kernels, strict=True)])
    # float32 transforms are right to a few 1e-7 of the range.
    torch.testing.assert_close(blur(images, kernels), expected, rtol=0, atol=2e-6)


def test_one_kernel_serves_a_whole_batch() -> None:
    """Its spectrum is computed once."""
    images = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    kernel = symmetric_kernels(1, 7)
    torch.testing.assert_close(blur(images, kernel), blur(images, kernel.expand(2, -1, -1)))
