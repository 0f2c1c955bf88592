"""A convolution that keeps the 24 bits of float32 on every device."""

import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.shapes import FeatureMap


def convolve_precisely(features: FeatureMap, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve without padding; where cuDNN would round float32 to TF32's 11 bits, by products.

    A flag of cuDNN's would do too, but it is one for the whole process, other threads included.

    Args:
        features: (B, C, H, W).
        weight: (O, C, K, K), of the same dtype.
        bias: (O), of the same dtype.
    Returns:
        (B * (H-K+1) * (W-K+1), O), pixels in row-major order.
    """
    if features.device.type == "cuda":
        return convolve_by_products(features, weight, bias)
    maps = F.conv2d(features, weight, bias)
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def convolve_by_products(features: FeatureMap, weight: Tensor, bias: Tensor) -> Tensor:
    """The same as ``convolve_precisely``, as a matrix product for each tap of the kernel.

    PyTorch computes these in full float32 unless told otherwise.
    """
    size = weight.shape[-1]
    height, width = (side - size + 1 for side in features.shape[-2:])
    pixels = features.permute(0, 2, 3, 1)
    total = bias
    for row in range(size):
        for column in range(size):
            shifted = pixels[:, row : row + height, column : column + width]
            tap = weight[:, :, row, column].T
            total = torch.addmm(total, shifted.reshape(-1, tap.shape[0]), tap)
    return total
