"""The large kernel in the frequency domain, by PyTorch's own transforms.

A kernel averaged over the square's symmetries has a real spectrum, so each frequency takes one real
matrix of channels. The map is cut into overlapping tiles (overlap-save): transforms of 48 x 48 stay
in the cache, and every matrix serves all tiles.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.shapes import FeatureMap

TILE_SIDE = 48
"""In pixels; sides of 32, 64, 96 and 128 and the whole map were slower for 320x180 pixels."""
LEAST_PIXELS = 96 * 96
"""Of a map. For 16 channels and a kernel of 13 a direct convolution was faster on 64x64 pixels,
equal on 96x96, and slower on larger ones (``benchmarks/measure_frequency_domain.py``)."""
LARGEST_KERNEL = 25
"""Beyond it half of a tile is margin."""
LEAST_PRODUCTS = 24_000
"""Per pixel, of the direct convolution. 16 channels and a kernel of 9 make 21,000, and it was the
faster; 12 channels and 13 make 24,000."""


def has_fast_spectrum(dense: Tensor) -> bool:
    """Whether a kernel (P, P, K, K) gains from its spectrum on maps that are large enough."""
    return dense[0].numel() * dense.shape[0] >= LEAST_PRODUCTS and dense.shape[-1] <= LARGEST_KERNEL


def is_faster_by_spectrum(features: FeatureMap) -> bool:
    """Whether a map (1, P, H, W) is for the frequency domain: float32, on a CPU, and large."""
    is_large = features.shape[-2] * features.shape[-1] >= LEAST_PIXELS
    return is_large and features.device.type == "cpu" and features.dtype == torch.float32


def real_spectrum(dense: Tensor) -> Tensor:
    """What a symmetric kernel does to each frequency of a tile.

    Args:
        dense: (P, P, K, K), equal to itself turned by 180 degrees; K odd, below ``TILE_SIDE``.
    Returns:
        (frequencies, P, P) of the same dtype: (out, in) of each.
    """
    spectrum = _transformed(centred_kernel(dense.double(), TILE_SIDE)).real
    return spectrum.permute(2, 3, 0, 1).flatten(0, 1).to(dense.dtype).contiguous()


def centred_kernel(kernels: Tensor, side: int) -> Tensor:
    """Spread kernels over a tile, their middles at its first place, where transforms begin.

    (…, K, K) -> (…, side, side), K odd, at most ``side``.
    """
    size = kernels.shape[-1]
    spread = F.pad(kernels, (0, side - size, 0, side - size))
    return torch.roll(spread, (-(size // 2), -(size // 2)), (-2, -1))


def convolve_by_spectrum(features: FeatureMap, spectrum: Tensor, kernel_size: int) -> FeatureMap:
    """Convolve with a symmetric kernel, zeros beyond the map.

    Args:
        features: (1, P, H, W).
        spectrum: from ``real_spectrum``.
        kernel_size: side of the kernel.
    Returns:
        (1, P, H, W).
    """
    _, channels, height, width = features.shape
    margin, inner = kernel_size // 2, TILE_SIDE - kernel_size + 1
    rows, columns = (-(-side // inner) for side in (height, width))
    beyond = (margin, columns * inner + margin - width, margin, rows * inner + margin - height)
    padded = F.pad(features[0].contiguous(), beyond)
    tiles = padded.unfold(1, TILE_SIDE, inner).unfold(2, TILE_SIDE, inner)
    parts = torch.view_as_real(_transformed(tiles)).view(channels, rows * columns, -1, 2)
    by_frequency = parts.permute(2, 0, 1, 3).reshape(-1, channels, 2 * rows * columns)
    mixed = torch.bmm(spectrum, by_frequency).view(-1, channels, rows, columns, 2)
    split = (TILE_SIDE, TILE_SIDE // 2 + 1, channels, rows, columns, 2)
    ordered = mixed.view(split).permute(2, 3, 4, 0, 1, 5).contiguous()
    whole = _transformed_back(torch.view_as_complex(ordered))
    kept = whole[..., margin : margin + inner, margin : margin + inner]
    # (P, rows, columns, inner, inner) -> (1, P, H, W) in channels_last
    joined = kept.permute(1, 3, 2, 4, 0).reshape(rows * inner, columns * inner, channels)
    return joined[:height, :width].permute(2, 0, 1).unsqueeze(0)


def _transformed(tiles: Tensor) -> Tensor:
    return cast(Tensor, torch.fft.rfft2(tiles))  # pyright: ignore[reportUnknownMemberType]


def _transformed_back(tiles: Tensor) -> Tensor:
    sides = (TILE_SIDE, TILE_SIDE)
    return cast(Tensor, torch.fft.irfft2(tiles, s=sides))  # pyright: ignore[reportUnknownMemberType]
