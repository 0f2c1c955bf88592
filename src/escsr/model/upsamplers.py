"""The upsamplers of ESC-Real and ESC-Real-M that are stacks of convolutions.

Each takes features, the LR image and the size to make, and looks at the features alone.
"""

import math

from torch import nn

from escsr.shapes import FeatureMap, ImageBatch

SLOPE = 0.2
"""Of the leaky ReLU between convolutions of an enlarged map."""


class _Stack(nn.Module):
    """Layers that turn features into an image."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(
        self, features: FeatureMap, lr_image: ImageBatch, output_size: tuple[int, int]
    ) -> ImageBatch:
        """(B, C, h, w) -> (B, 3, scale*h, scale*w)."""
        return self.layers(features)


class NearestConvReconstruction(_Stack):
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


class ConvNearestReconstruction(_Stack):
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


class PixelShuffleReconstruction(_Stack):
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


def enlarging_steps(scale: int) -> list[int]:
    """By what a stack enlarges step by step: 4 -> [2, 2], 3 -> [3]."""
    return [3] if scale == 3 else [2] * int(math.log2(scale))


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)
