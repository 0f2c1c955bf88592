"""Queries of one photograph: an LR patch, pixels drawn from its HR crop, and where they lie."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from escsr.training.data.patches import Pixels, shrink_by_pillow

QUERY_VALUES = 7
"""Numbers per query: row and column of its centre, height and width of its pixel, R, G, B."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuerySettings:
    """What is drawn from a photograph."""

    patch_pixels: int
    """Side of an LR patch."""
    largest_scale: int
    """Scales are drawn evenly from 1 to this."""
    queries: int
    """Pixels per photograph; all of the smallest crop where that has fewer."""

    @property
    def largest_crop_pixels(self) -> int:
        """Side of an HR crop at the largest scale."""
        return self.patch_pixels * self.largest_scale

    @property
    def query_count(self) -> int:
        """Pixels that are drawn, from crops of all scales alike."""
        return min(self.queries, self.patch_pixels**2)


def draw_queries(
    photograph: Pixels, generator: np.random.Generator, settings: QuerySettings
) -> tuple[Pixels, npt.NDArray[np.float32]]:
    """Crop at random, shrink the crop to an LR patch, and choose pixels of the crop.

    The side of the crop is ``round(patch_pixels * s)`` with s drawn evenly from 1 to
    ``largest_scale``; LR is made of it by Pillow's bicubic filter.

    Args:
        photograph: (S, S, 3) uint8, S at least ``settings.largest_crop_pixels``.
        generator: gives the same sequence of draws in every version: runs depend on it.
        settings: what to draw.
    Returns:
        LR (h, h, 3) uint8, and (queries, ``QUERY_VALUES``): places and sizes in the coordinates of
        the Local Texture Estimator, [-1, 1] from edge to edge; colours in [0, 1].
    Raises:
        MissingExtraError: Pillow is not installed.
    Source: the training of ESC+LTE, arXiv:2503.06671.
    """
    scale = generator.uniform(1, settings.largest_scale)
    side = round(settings.patch_pixels * scale)
    top = int(generator.integers(photograph.shape[0] - side + 1))
    left = int(generator.integers(photograph.shape[1] - side + 1))
    crop = np.ascontiguousarray(photograph[top : top + side, left : left + side])
    chosen = generator.choice(side * side, settings.query_count, replace=False)
    queries = np.empty((settings.query_count, QUERY_VALUES), np.float32)
    centres = (2 * np.arange(side) + 1) / side - 1
    queries[:, 0] = centres[chosen // side]
    queries[:, 1] = centres[chosen % side]
    queries[:, 2:4] = 2 / side
    queries[:, 4:] = crop.reshape(-1, 3)[chosen] / np.float32(255)
    return shrink_by_pillow(crop, settings.patch_pixels), queries
