"""Window attention and LayerNorm, one pixel at a time, in float64 NumPy: not from ``src``."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def layer_norm(features: Array, weight: Array, bias: Array, epsilon: float = 1e-6) -> Array:
    """Each pixel of (C, H, W) to mean 0 and variance 1 over its channels, then weight and bias."""
    mean = features.mean(axis=0)
    variance = ((features - mean) ** 2).mean(axis=0)
    normal = (features - mean) / np.sqrt(variance + epsilon)
    return normal * weight[:, None, None] + bias[:, None, None]


def reflected_position(position: int, length: int) -> int:
    """Walk to and fro along an axis, one step at a time, and say where ``position`` steps lead."""
    place, direction = 0, 1
    for _ in range(position):
        if length == 1:
            return 0
        if not 0 <= place + direction < length:
            direction = -direction
        place += direction
    return place


def window_attention(
    features: Array, qkv: tuple[Array, Array], biases: Array, *, window_size: int
) -> Array:
    """Attention of (C, H, W) within windows, heads concatenated, before the output layer.

    Args:
        features: after LayerNorm.
        qkv: weight (3C, C) and bias (3C,); channels ordered (qkv, head, channel).
        biases: (heads, T, T), row = query; of a table, from ``position_biases``.
        window_size: w.
    Returns:
        (C, H, W).
    """
    _, height, width = features.shape
    weight, bias = qkv
    result = np.zeros_like(features)
    for top in range(0, height, window_size):
        for left in range(0, width, window_size):
            places = [
                (top + row, left + column)
                for row in range(window_size)
                for column in range(window_size)
            ]
            tokens = np.stack(
                [
                    features[:, reflected_position(row, height), reflected_position(column, width)]
                    for row, column in places
                ]
            )
            attended = _attend(tokens @ weight.T + bias, biases)
            for (row, column), token in zip(places, attended, strict=True):
                if row < height and column < width:
                    result[:, row, column] = token
    return result


def _attend(qkv_tokens: Array, biases: Array) -> Array:
    """(T, 3C) -> (T, C)."""
    heads, channels = len(biases), qkv_tokens.shape[1] // 3
    head_dim = channels // heads
    parts = []
    for head in range(heads):
        q, k, v = (
            qkv_tokens[:, part * channels + head * head_dim :][:, :head_dim] for part in range(3)
        )
        scores = q @ k.T / math.sqrt(head_dim) + biases[head]
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        parts.append(weights / weights.sum(axis=1, keepdims=True) @ v)
    return np.concatenate(parts, axis=1)


def position_biases(table: Array, window_size: int) -> Array:
    """A table (heads, (2w-1)^2) as (heads, T, T)."""
    return np.stack([position_bias(of_head, window_size) for of_head in table])


def position_bias(table: Array, window_size: int) -> Array:
    """One head's table ((2w-1)^2,) as (T, T), row = query: the offset is key minus query."""
    w = window_size
    bias = np.zeros((w * w, w * w))
    for query in range(w * w):
        for key in range(w * w):
            down = key // w - query // w
            right = key % w - query % w
            bias[query, key] = table[(down + w - 1) * (2 * w - 1) + (right + w - 1)]
    return bias
