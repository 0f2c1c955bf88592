"""DySample, one sub-pixel at a time, in float64 NumPy: not from ``src``."""

import math
from collections.abc import Mapping

import numpy as np

from tests.oracles.attention import Array
from tests.oracles.convolution import convolve


def dysample(weights: Mapping[str, Array], features: Array, scale: int, groups: int) -> Array:
    """(C, H, W) -> (O, scale*H, scale*W).

    Args:
        weights: ``offset``, ``scope`` (without bias) and ``mix``, all 1x1.
        features: (C, H, W).
        scale: s.
        groups: C / groups channels at a time are sampled at one place.
    """
    channels, height, width = features.shape
    offset = convolve(features, weights["offset.weight"], weights["offset.bias"])
    scope = convolve(features, weights["scope.weight"])
    moved = 0.5 / (1 + np.exp(-scope)) * offset
    # Channels are ordered (xy, group, sub-row, sub-column).
    moved = moved.reshape(2, groups, scale, scale, height, width)
    result = np.zeros((channels, scale * height, scale * width))
    each = channels // groups
    for group, row, column in np.ndindex(groups, scale * height, scale * width):
        (source_row, i), (source_column, j) = divmod(row, scale), divmod(column, scale)
        o_x, o_y = moved[:, group, i, j, source_row, source_column]
        x = source_column + 1 / 2 + (j - (scale - 1) / 2) / scale + o_x
        y = source_row + 1 / 2 + (i - (scale - 1) / 2) / scale + o_y
        part = slice(group * each, (group + 1) * each)
        result[part, row, column] = _bilinear(features[part], y, x)
    return convolve(result, weights["mix.weight"], weights["mix.bias"])


def _bilinear(image: Array, y: float, x: float) -> Array:
    """(C, H, W) at a place in pixels, pixel 0 from 0 to 1; beyond the border, the border."""
    value = np.zeros(len(image))
    at_y, at_x = (
        min(max(place - 0.5, 0), length - 1)
        for place, length in zip((y, x), image.shape[1:], strict=True)
    )
    for row in {math.floor(at_y), math.ceil(at_y)}:
        for column in {math.floor(at_x), math.ceil(at_x)}:
            value += (1 - abs(at_y - row)) * (1 - abs(at_x - column)) * image[:, row, column]
    return value
