"""Upsamplers that are stacks of convolutions, in float64 NumPy: not from ``src``."""

from collections.abc import Sequence

import numpy as np

from tests.oracles.attention import Array
from tests.oracles.convolution import convolve, enlarge_nearest, gelu, shuffle_pixels

Layers = Sequence[tuple[Array, Array]]
"""Weight and bias of each convolution, in order."""


def leaky_relu(values: Array, slope: float) -> Array:
    """Negative values times the slope."""
    return values.clip(min=0) + slope * values.clip(max=0)


def nearest_conv(layers: Layers, features: Array, steps: Sequence[int]) -> Array:
    """ESC-Real: (nearest, convolution, LReLU 0.2) per step; convolution, LReLU, convolution."""
    *enlarging, before_last, last = layers
    for layer, step in zip(enlarging, steps, strict=True):
        features = leaky_relu(convolve(enlarge_nearest(features, step), *layer), 0.2)
    return convolve(leaky_relu(convolve(features, *before_last), 0.2), *last)


def conv_nearest(layers: Layers, features: Array, steps: Sequence[int]) -> Array:
    """ESC-Real-M: (convolution, nearest, LReLU 0.2) per step; convolution, LReLU, convolution."""
    *enlarging, before_last, last = layers
    for layer, step in zip(enlarging, steps, strict=True):
        features = leaky_relu(enlarge_nearest(convolve(features, *layer), step), 0.2)
    return convolve(leaky_relu(convolve(features, *before_last), 0.2), *last)


def pixelshuffle(layers: Layers, features: Array, steps: Sequence[int]) -> Array:
    """ESC-Real-M: convolution, LReLU 0.01; (convolution, shuffle) per step; convolution."""
    first, *enlarging, last = layers
    features = leaky_relu(convolve(features, *first), 0.01)
    for layer, step in zip(enlarging, steps, strict=True):
        features = shuffle_pixels(convolve(features, *layer), step)
    return convolve(features, *last)


def transpose_conv(layers: Layers, features: Array, steps: Sequence[int]) -> Array:
    """traiNNer-redux: transposed convolution per step, GELU between two; convolution."""
    *enlarging, last = layers
    for number, (layer, step) in enumerate(zip(enlarging, steps, strict=True)):
        features = convolve_transposed(gelu(features) if number else features, *layer, step)
    return convolve(features, *last)


def pixel_attention(layers: Layers, gates: Layers, features: Array, steps: Sequence[int]) -> Array:
    """traiNNer-redux: (nearest, conv, gate, LReLU 0.2, conv, LReLU) per step; convolution."""
    *enlarging, last = layers
    for number, (gate, step) in enumerate(zip(gates, steps, strict=True)):
        first, second = enlarging[2 * number : 2 * number + 2]
        features = convolve(enlarge_nearest(features, step), *first)
        features = leaky_relu(features / (1 + np.exp(-convolve(features, *gate))), 0.2)
        features = leaky_relu(convolve(features, *second), 0.2)
    return convolve(features, *last)


def convolve_transposed(features: Array, kernel: Array, bias: Array, stride: int) -> Array:
    """Every pixel of (C, H, W) puts a kernel (C, O, K, K) down; kernels that overlap add up.

    So much is cut off at each border that (O, stride*H, stride*W) is left.
    """
    _, outputs, side, _ = kernel.shape
    _, height, width = features.shape
    result = np.zeros((outputs, stride * (height - 1) + side, stride * (width - 1) + side))
    for row, column in np.ndindex(height, width):
        top, left = stride * row, stride * column
        put = np.einsum("c,cohw->ohw", features[:, row, column], kernel)
        result[:, top : top + side, left : left + side] += put
    cut = (side - stride) // 2
    cropped = result[:, cut : cut + stride * height, cut : cut + stride * width]
    return cropped + bias[:, None, None]
