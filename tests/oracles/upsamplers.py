"""Upsamplers that are stacks of convolutions, in float64 NumPy: not from ``src``."""

from collections.abc import Sequence

from tests.oracles.attention import Array
from tests.oracles.convolution import convolve, enlarge_nearest, shuffle_pixels

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
