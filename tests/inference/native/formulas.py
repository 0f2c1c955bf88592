"""What each kernel computes, in float64 NumPy and by other ways than the kernels'."""

import numpy as np
import torch
from torch import Tensor

from tests.oracles.attention import Array, reflected_position
from tests.oracles.convolution import gelu


def random_map(*shape: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    """Normal numbers, float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * spread


def array(values: Tensor) -> Array:
    """As the formulas take it."""
    return values.double().numpy()


def largest_error(ours: Tensor, expected: Array) -> float:
    """Largest difference, as a share of the largest expected value; not a number stays one."""
    return float(np.abs(array(ours) - expected).max() / np.abs(expected).max())


def window_attention(
    qkv: Array, table: Array, size: tuple[int, int], window_size: int
) -> tuple[Array, float]:
    """Attention of a map (H*W, 3C) within windows, scores stored.

    Args:
        qkv: channels ordered (qkv, head, channel).
        table: (N, 2w-1, 2w-1); row: key minus query, column: query minus key.
        size: (H, W).
        window_size: w.
    Returns:
        (H*W, C), and the largest score.
    """
    (height, width), w, heads = size, window_size, len(table)
    rows, columns = (
        [reflected_position(place, side) for place in range(-(-side // w) * w)] for side in size
    )
    padded = qkv.reshape(height, width, 3, heads, -1)[rows][:, columns]
    row, column = np.divmod(np.arange(w * w), w)
    down, left = row[None] - row[:, None], column[:, None] - column[None]
    bias = table[:, down + w - 1, left + w - 1]
    result = np.zeros((*padded.shape[:2], *padded.shape[3:]))
    largest = 0.0
    for top in range(0, len(rows), w):
        for first in range(0, len(columns), w):
            window = padded[top : top + w, first : first + w]
            q, k, v = window.reshape(w * w, 3, heads, -1).transpose(1, 2, 0, 3)
            scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]) + bias
            largest = max(largest, float(np.abs(scores).max()))
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            attended = weights / weights.sum(axis=-1, keepdims=True) @ v
            result[top : top + w, first : first + w] = attended.transpose(1, 0, 2).reshape(
                w, w, heads, -1
            )
    return result[:height, :width].reshape(height * width, -1), largest


def normalised(values: Array) -> Array:
    """(pixels, C): each pixel to mean 0 and variance 1, eps 1e-6."""
    centred = values - values.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)


def hidden_map(values: Array, weights: dict[str, Array], size: tuple[int, int]) -> Array:
    """``h = GELU(x expand + b)``, then ``GELU(depthwise 3x3 of h) + h``: (H*W, E)."""
    hidden = gelu(values @ weights["expand_weight"] + weights["expand_bias"])
    height, width = size
    padded = np.pad(hidden.reshape(height, width, -1), ((1, 1), (1, 1), (0, 0)))
    looked = weights["depthwise_bias"] + sum(
        weights["depthwise_weight"][tap] * padded[tap // 3 :][:height, tap % 3 :][:, :width]
        for tap in range(9)
    )
    return gelu(looked.reshape(height * width, -1)) + hidden
