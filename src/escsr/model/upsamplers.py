"""The upsamplers of ESC-Real, ESC-Real-M and traiNNer-redux that are stacks of convolutions.

Each takes features, the LR image and the size to make, and looks at the features alone.
"""

import math

import torch
from torch import nn

from escsr.shapes import FeatureMap, ImageBatch

SLOPE = 0.2
"""Of the leaky ReLU between convolutions of an enlarged map."""


class Stack(nn.Module):
    """Layers that turn features into an image."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(
        self, features: FeatureMap, lr_image: ImageBatch, output_size: tuple[int, int]
    ) -> ImageBatch:
        """(B, C, h, w) -> (B, 3, scale*h, scale*w)."""
        return self.layers(features)


class NearestConvReconstruction(Stack):
    """ESC-Real's: as often as it takes nearest x2, convolution, leaky ReLU; then two convolutions.

    Source: ESC, arXiv:2503.06671, its official code.
    """

    def __init__(self, dim: int, scale: int) -> None:
        enlarge = [
            layer
            for factor in enlarging_steps(scale)
            for layer in (nn.Upsample(scale_factor=factor), _conv(dim, dim), nn.LeakyReLU(SLOPE))
        ]
        super().__init__(*enlarge, _conv(dim, dim), nn.LeakyReLU(SLOPE), _conv(dim, 3))


class ConvNearestReconstruction(Stack):
    """ESC-Real-M's "nearest+conv": convolution, nearest, leaky ReLU; then two convolutions.

    Source: the official code of ESC-Real-M.
    """

    def __init__(self, dim: int, scale: int) -> None:
        enlarge = [
            layer
            for factor in enlarging_steps(scale)
            for layer in (_conv(dim, dim), nn.Upsample(scale_factor=factor), nn.LeakyReLU(SLOPE))
        ]
        super().__init__(*enlarge, _conv(dim, dim), nn.LeakyReLU(SLOPE), _conv(dim, 3))


class PixelShuffleReconstruction(Stack):
    """Narrow; as often as it takes convolution and pixel shuffle; a last convolution.

    Source: the official code of ESC-Real-M.
    """

    def __init__(self, dim: int, inner_dim: int, scale: int) -> None:
        enlarge = [
            layer
            for factor in enlarging_steps(scale)
            for layer in (_conv(inner_dim, inner_dim * factor**2), nn.PixelShuffle(factor))
        ]
        super().__init__(_conv(dim, inner_dim), nn.LeakyReLU(), *enlarge, _conv(inner_dim, 3))


class TransposeConvReconstruction(Stack):
    """Transposed convolutions to three channels, GELU between two of them; a last convolution.

    Each enlarges by 2 or 3; the first of two keeps all channels.

    Source: traiNNer-redux's ESC-Real-M ("transpose+conv").
    """

    def __init__(self, dim: int, scale: int) -> None:
        *before, last = enlarging_steps(scale)
        enlarge = [
            layer for factor in before for layer in (_transposed(dim, dim, factor), nn.GELU())
        ]
        super().__init__(*enlarge, _transposed(dim, 3, last), _conv(3, 3))


class PixelAttentionReconstruction(Stack):
    """As often as it takes nearest, convolution, pixel attention, convolution; a last convolution.

    Source: traiNNer-redux's ESC-Real-M ("pa_up"), after PAN, arXiv:2010.01073.
    """

    def __init__(self, dim: int, inner_dim: int, scale: int) -> None:
        enlarge: list[nn.Module] = []
        for factor in enlarging_steps(scale):
            enlarge += [
                nn.Upsample(scale_factor=factor),
                _conv(dim, inner_dim),
                PixelAttention(inner_dim),
                nn.LeakyReLU(SLOPE),
                _conv(inner_dim, inner_dim),
                nn.LeakyReLU(SLOPE),
            ]
            dim = inner_dim
        super().__init__(*enlarge, _conv(inner_dim, 3))


class PixelAttention(nn.Module):
    """Weigh every value by a gate made of its pixel: ``x * sigmoid(Conv1x1(x))``.

    Source: Zhao et al., "Efficient Image Super-Resolution Using Pixel Attention",
    arXiv:2010.01073, section 3.2.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(dim, dim, 1)

    def forward(self, features: FeatureMap) -> FeatureMap:
        """(B, C, H, W) -> (B, C, H, W)."""
        return features * torch.sigmoid(self.gate(features))


def enlarging_steps(scale: int) -> list[int]:
    """By what a stack enlarges step by step: 4 -> [2, 2], 3 -> [3]."""
    return [3] if scale == 3 else [2] * int(math.log2(scale))


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def _transposed(in_channels: int, out_channels: int, factor: int) -> nn.ConvTranspose2d:
    """Enlarges by 2 with overlapping kernels of 4x4, or by 3 with kernels of 3x3 side by side."""
    if factor == 3:
        return nn.ConvTranspose2d(in_channels, out_channels, 3, stride=3)
    return nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1)
