"""ESC-RIB's position bias, one pair of pixels at a time, in float64 NumPy: not from ``src``."""

import math
from collections.abc import Mapping

import numpy as np

from tests.oracles.attention import Array


def place_features(row: int, column: int, window_size: int, frequencies: int) -> list[float]:
    """What the network is told of a pixel of a window."""
    x = 2 * (column + 0.5) / window_size - 1
    y = 2 * (row + 0.5) / window_size - 1
    features = [x, y]
    for i in range(frequencies):
        features += [math.sin(2**i * x), math.sin(2**i * y)]
        features += [math.cos(2**i * x), math.cos(2**i * y)]
    return features


def implicit_bias(weights: Mapping[str, Array], window_size: int, frequencies: int) -> Array:
    """(heads, T, T), row = query, from ``to_hidden``, ``hidden_bias``, ``to_query``, ``to_key``."""
    tokens, (heads, _, rank) = window_size**2, weights["to_query"].shape
    bias = np.zeros((heads, tokens, tokens))
    hidden = []
    for token in range(tokens):
        features = place_features(*divmod(token, window_size), window_size, frequencies)
        summed = np.array(features) @ weights["to_hidden"] + weights["hidden_bias"][0]
        hidden.append(np.maximum(summed, 0))
    for head in range(heads):
        for query in range(tokens):
            of_query = hidden[query] @ weights["to_query"][head] / math.sqrt(rank)
            for key in range(tokens):
                bias[head, query, key] = of_query @ (hidden[key] @ weights["to_key"][head])
    return bias
