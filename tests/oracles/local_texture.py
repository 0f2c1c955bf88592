"""The Local Texture Estimator, one query at a time, in float64 NumPy: not from ``src``."""

import math
from collections.abc import Mapping

import numpy as np

from tests.oracles.attention import Array
from tests.oracles.convolution import convolve


def enlarge(
    weights: Mapping[str, Array], features: Array, lr_image: Array, output_size: tuple[int, int]
) -> Array:
    """Every pixel of an output: (C, H, W) features and the (3, H, W) image -> (3, H', W').

    The cell is 2 / output size, times scale / 4 of the axis where the scale is above 4.
    """
    result = np.zeros((3, *output_size))
    cell = []
    for length, output_length in zip(lr_image.shape[1:], output_size, strict=True):
        cell.append(2 / output_length * max(output_length / length / 4, 1))
    waves = maps_of_waves(weights, features)
    for row in range(output_size[0]):
        for column in range(output_size[1]):
            place = [
                -1 + (2 * index + 1) / length
                for index, length in zip((row, column), output_size, strict=True)
            ]
            result[:, row, column] = query(weights, waves, lr_image, place, cell)
    return result


def maps_of_waves(weights: Mapping[str, Array], features: Array) -> tuple[Array, Array]:
    """Amplitudes and frequencies, (D, H, W) each."""
    amplitudes, frequencies = (
        convolve(features, weights[f"{name}.weight"], weights[f"{name}.bias"])
        for name in ("amplitude", "frequency")
    )
    return amplitudes, frequencies


def query(
    weights: Mapping[str, Array],
    waves: tuple[Array, Array],
    lr_image: Array,
    place: list[float],
    cell: list[float],
) -> Array:
    """One pixel, (3,) on the scale of ``lr_image``, which is [0, 1].

    Args:
        weights: of the head.
        waves: from ``maps_of_waves``.
        lr_image: (3, H, W).
        place: row and column in [-1, 1].
        cell: height and width of the pixel.
    """
    size = lr_image.shape[1:]
    predictions, areas = [], []
    for direction in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        pixel = [
            nearest(place[axis] + direction[axis] / size[axis] + 1e-6, size[axis])
            for axis in (0, 1)
        ]
        offset = [
            (place[axis] - (-1 + (2 * pixel[axis] + 1) / size[axis])) * size[axis]
            for axis in (0, 1)
        ]
        predictions.append(decode(weights, waves, pixel, offset, cell, size))
        areas.append(abs(offset[0] * offset[1]) + 1e-9)
    predicted = sum(
        prediction * area / sum(areas)
        for prediction, area in zip(predictions, reversed(areas), strict=True)
    )
    assert isinstance(predicted, np.ndarray)
    return (predicted + bilinear(2 * lr_image - 1, place)) * 0.5 + 0.5


def nearest(coordinate: float, length: int) -> int:
    """The pixel whose centre is nearest to a coordinate, clamped to the image first."""
    coordinate = min(max(coordinate, -1 + 1e-6), 1 - 1e-6)
    distances = [abs(coordinate - (-1 + (2 * pixel + 1) / length)) for pixel in range(length)]
    return distances.index(min(distances))


def decode(
    weights: Mapping[str, Array],
    waves: tuple[Array, Array],
    pixel: list[int],
    offset: list[float],
    cell: list[float],
    size: tuple[int, ...],
) -> Array:
    """What the MLP makes of one pixel's waves: (3,)."""
    amplitude, frequency = (part[:, pixel[0], pixel[1]] for part in waves)
    half_pixels = np.array([cell[0] * size[0], cell[1] * size[1]])
    phase = weights["phase.weight"] @ half_pixels
    turns = np.array(
        [
            frequency[2 * wave] * offset[0] + frequency[2 * wave + 1] * offset[1] + phase[wave]
            for wave in range(len(phase))
        ]
    )
    values = amplitude * np.concatenate((np.cos(math.pi * turns), np.sin(math.pi * turns)))
    layers = sorted(
        int(name.split(".")[1])
        for name in weights
        if name.startswith("decoder.") and "weight" in name
    )
    for layer in layers:
        values = weights[f"decoder.{layer}.weight"] @ values + weights[f"decoder.{layer}.bias"]
        if layer != layers[-1]:
            values = np.maximum(values, 0)
    return values


def bilinear(image: Array, place: list[float]) -> Array:
    """(3, H, W) at a place between its pixels; beyond the centres at the border, the border: (3,).

    The weight of a pixel falls from 1 at its centre to 0 one pixel away, along both axes.
    """
    result = np.zeros(3)
    size = image.shape[1:]
    at = [min(max(((place[axis] + 1) * size[axis] - 1) / 2, 0), size[axis] - 1) for axis in (0, 1)]
    for row in range(size[0]):
        for column in range(size[1]):
            weight = max(0, 1 - abs(at[0] - row)) * max(0, 1 - abs(at[1] - column))
            result += weight * image[:, row, column]
    return result
