"""Convolutions spelled out tap by tap, in float64 NumPy: slow, obvious, and not from ``src``."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def convolve(image: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Zero-padded correlation of (C, H, W) with (O, C, K, K), K odd -> (O, H, W)."""
    outputs, _, side, _ = kernel.shape
    _, height, width = image.shape
    reach = side // 2
    padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)))
    result = np.zeros((outputs, height, width))
    for row in range(side):
        for column in range(side):
            shifted = padded[:, row : row + height, column : column + width]
            result += np.einsum("oc,chw->ohw", kernel[:, :, row, column], shifted)
    return result if bias is None else result + bias[:, None, None]


def as_full_kernel(depthwise: Array) -> Array:
    """A depthwise kernel (C, K, K) as (C, C, K, K), zero between different channels."""
    channels, side, _ = depthwise.shape
    full = np.zeros((channels, channels, side, side))
    for channel in range(channels):
        full[channel, channel] = depthwise[channel]
    return full


def gelu(values: Array) -> Array:
    """``x * (1 + erf(x / sqrt 2)) / 2``, the exact form."""
    return values * (1 + np.vectorize(math.erf)(values / math.sqrt(2))) / 2


def symmetric_kernel(kernel: Array) -> Array:
    """The mean of a kernel (…, K, K) over the four rotations of itself and of its mirror image."""
    images = []
    for quarter_turns in range(4):
        turned = np.rot90(kernel, quarter_turns, axes=(-2, -1))
        images += [turned, turned[..., ::-1]]
    return np.mean(images, axis=0)


def dynamic_kernel(convolved: Array, layers: list[tuple[Array, Array]]) -> Array:
    """The 3x3 kernels (P, 3, 3) that a map (P, H, W) makes from its channels' means.

    Args:
        convolved: the P channels, before anything is done to them.
        layers: the (weight (O, I), bias (O,)) of both linear layers; GELU lies between them.
    """
    (weight_1, bias_1), (weight_2, bias_2) = layers
    means = convolved.mean(axis=(1, 2))
    return (weight_2 @ gelu(weight_1 @ means + bias_1) + bias_2).reshape(-1, 3, 3)


def dense_conv_attention(convolved: Array, large: Array, dynamic: Array) -> Array:
    """``LK * a + DK * a`` as one convolution with one merged kernel; LK is averaged here."""
    merged = with_room(symmetric_kernel(large))
    middle = slice(merged.shape[-1] // 2 - 1, merged.shape[-1] // 2 + 2)
    for channel in range(len(merged)):
        merged[channel, channel, middle, middle] += dynamic[channel]
    return convolve(convolved, merged)


def with_room(kernel: Array) -> Array:
    """A kernel (…, K, K) of 1x1 in the middle of zeros, so that it is 3x3."""
    missing = 1 if kernel.shape[-1] == 1 else 0
    return np.pad(kernel, [(0, 0)] * (kernel.ndim - 2) + [(missing, missing)] * 2)


def decomposed_conv_attention(
    convolved: Array, mixing: Array, spatial: Array, dynamic: Array
) -> Array:
    """ESC-FP: ``(LKs + pad(DK)) *_depthwise (LKc a)``; LKc (P, P), LKs (P, K, K)."""
    spatial = with_room(spatial)
    reach = spatial.shape[-1] // 2 - 1
    merged = spatial + np.pad(dynamic, ((0, 0), (reach, reach), (reach, reach)))
    mixed = np.einsum("oc,chw->ohw", mixing, convolved)
    return convolve(mixed, as_full_kernel(merged))


def shuffle_pixels(subpixels: Array, scale: int) -> Array:
    """(C * scale^2, H, W) -> (C, scale*H, scale*W); ordered (C, sub-row, sub-column)."""
    channels, height, width = subpixels.shape
    result = np.zeros((channels // scale**2, height * scale, width * scale))
    for channel in range(channels):
        colour, place = divmod(channel, scale**2)
        row, column = divmod(place, scale)
        result[colour, row::scale, column::scale] = subpixels[channel]
    return result


def enlarge_nearest(image: Array, scale: int) -> Array:
    """(C, H, W) -> (C, scale*H, scale*W): every pixel becomes a square."""
    return np.kron(image, np.ones((1, scale, scale)))


def enlarge_bicubic(image: Array, scale: int) -> Array:
    """(C, H, W) -> (C, scale*H, scale*W): a = -0.75, half-pixel centres, edges repeated."""
    rows = _bicubic_matrix(image.shape[1], scale)
    columns = _bicubic_matrix(image.shape[2], scale)
    return np.einsum("ih,chw,jw->cij", rows, image, columns)


def _bicubic_matrix(length: int, scale: int) -> Array:
    matrix = np.zeros((length * scale, length))
    for target in range(length * scale):
        centre = (target + 0.5) / scale - 0.5
        for source in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[target, min(max(source, 0), length - 1)] += _cubic(abs(centre - source))
    return matrix


def _cubic(distance: float, a: float = -0.75) -> float:
    """Keys' kernel: two cubics, zero beyond 2."""
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    if distance < 2:
        return a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return 0.0
