"""The tensor shapes of this package, and their legend.

Legend of the letters, also used as suffixes where a layout changes (``q_BNTC``)::

    B  images in the batch          C  channels            H, W  height and width in pixels
    N  heads                        T  tokens of a window  D     channels of one head
    K  side of the large kernel     P  channels that ConvAttention convolves
"""

from typing import TypeAlias

from torch import Tensor

ImageBatch: TypeAlias = Tensor
"""(B, 3, H, W) RGB in [0, 1], floating point."""

FeatureMap: TypeAlias = Tensor
"""(B, C, H, W) floating point."""

WindowTokens: TypeAlias = Tensor
"""(windows, N, T, D): one row per window, tokens row-major within it."""
