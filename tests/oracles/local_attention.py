"""traiNNer-redux's "lda", one pixel of the result at a time, in float64 NumPy: not from ``src``."""

import math
from collections.abc import Mapping

import numpy as np

from tests.oracles.attention import Array, layer_norm
from tests.oracles.convolution import as_full_kernel, convolve

GROUPS = 2


def local_attention(weights: Mapping[str, Array], features: Array, scale: int) -> Array:
    """(C, H, W) -> (C, scale*H, scale*W).

    Args:
        weights: ``norm``, ``to_query``, ``to_key``, ``offset_depthwise``, ``offset_norm``,
            ``to_offset`` and ``position_bias``.
        features: (C, H, W).
        scale: 2 or more.
    """
    normal = layer_norm(features, weights["norm.weight"], weights["norm.bias"])
    query = convolve(normal, weights["to_query.weight"])
    key = convolve(normal, weights["to_key.weight"])
    query = enlarge_with_corners(query, scale)
    hidden, height, width = query.shape
    moved = [offsets(weights, part) for part in np.split(query, GROUPS)]
    result = np.zeros((len(features), height, width))
    for row, column in np.ndindex(height, width):
        keys, values = np.zeros((9, hidden)), np.zeros((9, len(features)))
        for number, group in np.ndindex(9, GROUPS):
            o_y, o_x = moved[group][number, :, row, column]
            y = (row + o_y) * (features.shape[1] - 1) / (height - 1)
            x = (column + o_x) * (features.shape[2] - 1) / (width - 1)
            for source, target in ((key, keys), (features, values)):
                each = len(source) // GROUPS
                part = slice(group * each, (group + 1) * each)
                target[number, part] = bilinear(source[part], y, x)
        scores = (keys + weights["position_bias"]) @ query[:, row, column] / math.sqrt(hidden)
        shares = np.exp(scores - scores.max())
        result[:, row, column] = shares @ values / shares.sum()
    return result


def offsets(weights: Mapping[str, Array], query: Array) -> Array:
    """(hidden / groups, H', W') -> (9, 2, H', W'): y, then x, of each neighbour, row by row."""
    kernel = as_full_kernel(weights["offset_depthwise.weight"][:, 0])
    inner = convolve(query, kernel)
    inner = layer_norm(inner, weights["offset_norm.weight"], weights["offset_norm.bias"])
    inner = inner / (1 + np.exp(-inner))
    moved = convolve(inner, weights["to_offset.weight"], weights["to_offset.bias"])
    moved = 11 * np.tanh(moved.reshape(9, 2, *query.shape[1:]))
    for number, (row, column) in enumerate(np.ndindex(3, 3)):
        moved[number, 0] += row - 1
        moved[number, 1] += column - 1
    return moved


def enlarge_with_corners(image: Array, scale: int) -> Array:
    """(C, H, W) -> (C, scale*H, scale*W), bilinear; corner pixels lie on corner pixels."""
    _, height, width = image.shape
    result = np.zeros((len(image), scale * height, scale * width))
    for row, column in np.ndindex(scale * height, scale * width):
        y = row * (height - 1) / (scale * height - 1)
        x = column * (width - 1) / (scale * width - 1)
        result[:, row, column] = bilinear(image, y, x)
    return result


def bilinear(image: Array, y: float, x: float) -> Array:
    """(C, H, W) at a place in pixels, pixel 0 at 0; zero beyond the border."""
    value = np.zeros(len(image))
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                value += (1 - abs(y - row)) * (1 - abs(x - column)) * image[:, row, column]
    return value
