"""How the work on an image of any size is cut into pieces that need little memory."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from escsr.shapes import FeatureMap

_WINDOW_PIXELS = 124
"""Side of the piece of the LR image, but for its margins, whose waves are in memory at a time.

Pieces depend on the sizes of images alone. A convolution rounds differently in a piece of another
shape, and a cosine of a high frequency would make more of it; the number of queries at a time may
change without that.
"""
_OUTPUT_PIXELS = 4096
"""Longest side of a piece of the output."""


def output_side(output_length: int, length: int) -> int:
    """How many output pixels need at most ``_WINDOW_PIXELS`` of the input, by an axis."""
    fitting = max(1, _WINDOW_PIXELS * output_length // length)
    return min(fitting, _OUTPUT_PIXELS, output_length)


def pieces(length: int, side: int) -> Iterator[slice]:
    """Cut an axis into stretches of ``side`` pixels; the last may be shorter."""
    return (slice(first, min(first + side, length)) for first in range(0, length, side))


def chunks(size: torch.Size, queries_at_once: int) -> Iterator[tuple[slice, slice]]:
    """Cut (height, width) into groups of whole rows as far as they fit, else into parts of one."""
    columns = min(size[1], max(1, queries_at_once))
    rows = max(1, queries_at_once // columns)
    return (
        (row_slice, column_slice)
        for row_slice in pieces(size[0], rows)
        for column_slice in pieces(size[1], columns)
    )


def cut_with_margin(
    features: FeatureMap, top: int, bottom: int, left: int, right: int
) -> FeatureMap:
    """A rectangle with one pixel more on each side, zero beyond the image."""
    height, width = features.shape[-2:]
    window = features[:, :, max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1]
    margins = (left == 0, right == width, top == 0, bottom == height)
    return F.pad(window, [int(is_beyond) for is_beyond in margins])
