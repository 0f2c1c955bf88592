"""Padding by reflection of any length, in a form that exports."""

import torch
from torch import Tensor

from escsr.shapes import FeatureMap


def reflect_pad_to_multiple(features: FeatureMap, multiple: int) -> FeatureMap:
    """Extend a map at the bottom and right by reflection until both sides are multiples.

    Where a side is shorter than its padding the reflection repeats (a triangle wave), and a side
    of 1 is replicated, so every H, W >= 1 works.

    Args:
        features: (B, C, H, W).
        multiple: the window side, in pixels.
    Returns:
        (B, C, H', W') with H' and W' the next multiples of ``multiple``.
    Differs: the reference fails where the padding is as long as the side
    (tests/model/test_padding.py).
    """
    height, width = features.shape[-2:]
    padded_height = (height + multiple - 1) // multiple * multiple
    padded_width = (width + multiple - 1) // multiple * multiple
    if padded_height == height and padded_width == width:
        return features
    rows = reflected_positions(_range(padded_height, features), height)
    columns = reflected_positions(_range(padded_width, features), width)
    return features.index_select(-2, rows).index_select(-1, columns)


def reflect_pad(features: FeatureMap, pixels: int) -> FeatureMap:
    """Extend a map on all four sides by reflection; sides may be shorter than the padding.

    Args:
        features: (B, C, H, W), any H, W >= 1.
        pixels: on each side.
    Returns:
        (B, C, H + 2 pixels, W + 2 pixels).
    """
    rows, columns = (_mirrored_range(side, pixels, features) for side in features.shape[-2:])
    return features.index_select(-2, rows).index_select(-1, columns)


def reflected_positions(position: Tensor, length: int) -> Tensor:
    """Fold positions beyond the end of an axis back into it, by repeated reflection.

    Args:
        position: any shape, int64, >= 0.
        length: of the axis, >= 1.
    Returns:
        As ``position``: 0, 1, …, length-1 stay, then come length-2, …, 1, 0, 1, … .
    """
    last = length - 1
    # A tensor, not a number: torch.export takes a symbolic length for 2 or more and would drop the
    # clamp, which a length of 1 needs.
    period = torch.full((), 2 * last, dtype=torch.int64, device=position.device).clamp(min=1)
    forth = position % period
    # Not `last - (forth - last).abs()`: torch 2.6 cannot compile indices made by abs().
    return torch.minimum(forth, 2 * last - forth)


def _mirrored_range(length: int, pixels: int, like: Tensor) -> Tensor:
    position = _range(length + 2 * pixels, like) - pixels
    return reflected_positions(torch.maximum(position, -position), length)


def _range(length: int, like: Tensor) -> Tensor:
    return torch.arange(length, device=like.device)
