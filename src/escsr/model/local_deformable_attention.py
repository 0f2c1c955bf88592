"""Enlarge features by attention: each pixel of the result attends to nine places of its choice."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.family.weight_shapes import LDA_GROUPS, LDA_NEIGHBOURS, LDA_REDUCTION
from escsr.model.layer_norm import ChannelLayerNorm
from escsr.shapes import FeatureMap, ImageBatch

OFFSET_RANGE = 11
"""Offsets are at most so many pixels of the result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Where the features at hand lie along one axis of the whole map."""

    start: int
    """First pixel at hand."""
    length: int
    """Pixels of the whole map."""


class LocalAttentionReconstruction(nn.Module):
    """From features to an image by ``LocalDeformableAttention``.

    Narrow the features where that is asked for; attend; a last convolution.

    Source: traiNNer-redux's ESC-Real-M ("lda").
    """

    def __init__(self, dim: int, inner_dim: int, scale: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(dim, inner_dim, 3, padding=1) if inner_dim != dim else None
        self.attention = LocalDeformableAttention(inner_dim, scale)
        self.to_image = nn.Conv2d(inner_dim, 3, 3, padding=1)

    def forward(
        self, features: FeatureMap, lr_image: ImageBatch, output_size: tuple[int, int]
    ) -> ImageBatch:
        """(B, C, h, w) -> (B, 3, scale*h, scale*w); the image is not looked at."""
        height, width = features.shape[-2:]
        rows, columns = Stretch(start=0, length=height), Stretch(start=0, length=width)
        return self.enlarge_part(features, rows, columns)

    def enlarge_part(self, features: FeatureMap, rows: Stretch, columns: Stretch) -> ImageBatch:
        """Make a part of the result from a part of the features, as ``forward`` makes the whole.

        Pixels within ``reach_pixels`` of a border that is none of the whole map differ.

        Args:
            features: (B, C, h, w) of the part.
            rows: where the part lies in the whole map.
            columns: likewise.
        Returns:
            (B, 3, scale*h, scale*w).
        """
        if self.narrow is not None:
            features = F.leaky_relu(self.narrow(features))
        return self.to_image(self.attention(features, rows, columns))

    @property
    def reach_pixels(self) -> int:
        """How far from a pixel of the features its part of the result looks, in these pixels."""
        return attention_reach(self.attention.scale) + (self.narrow is not None)


def attention_reach(scale: int) -> int:
    """How far a result looks in the features that are attended to, in their pixels.

    The last convolution looks one pixel of the result far, offsets and the neighbours they start
    from up to 12 more; the first pixel of the result lies up to a pixel before its place among the
    features, and interpolation looks one further.
    """
    return 2 + math.ceil((1 + OFFSET_RANGE + LDA_NEIGHBOURS // 2) / scale)


class LocalDeformableAttention(nn.Module):
    """Enlarge features: every pixel of the result attends to nine places of the features.

    Queries are interpolated to the size of the result and choose, for each group of channels, how
    far the places lie from the pixel's 3x3 neighbours. Keys and values are sampled there; attention
    has one head. Corners of the result lie on corners of the features (``align_corners``), so that
    the places depend on the size of the whole map.

    Args:
        dim: C; a multiple of 8.
        scale: factor per side, 2 or more.
    Source: Du et al., "LDA-AQU: Adaptive Query-guided Upsampling via Local Deformable Attention",
    ACM Multimedia 2024, as in traiNNer-redux.
    """

    def __init__(self, dim: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        hidden = dim // LDA_REDUCTION
        in_group = hidden // LDA_GROUPS
        self.norm = ChannelLayerNorm(dim)
        self.to_query = nn.Conv2d(dim, hidden, 1, bias=False)
        self.to_key = nn.Conv2d(dim, hidden, 1, bias=False)
        self.offset_depthwise = nn.Conv2d(
            in_group, in_group, 3, padding=1, groups=in_group, bias=False
        )
        self.offset_norm = ChannelLayerNorm(in_group)
        self.to_offset = nn.Conv2d(in_group, 2 * LDA_NEIGHBOURS**2, 3, padding=1)
        self.position_bias = nn.Parameter(torch.empty(LDA_NEIGHBOURS**2, hidden))
        nn.init.trunc_normal_(self.position_bias, std=0.02)

    def forward(self, features: FeatureMap, rows: Stretch, columns: Stretch) -> FeatureMap:
        """Enlarge a part of a map.

        Args:
            features: (B, C, h, w).
            rows: where the features lie in the whole map.
            columns: likewise.
        Returns:
            (B, C, scale*h, scale*w).
        """
        normal = self.norm(features)
        dtype = torch.promote_types(features.dtype, torch.float32)
        places = [
            _places(stretch, length, self.scale, dtype, features.device)
            for stretch, length in zip((rows, columns), features.shape[-2:], strict=True)
        ]
        query = _interpolated(_interpolated(self.to_query(normal), 2, places[0]), 3, places[1])
        steps = (_step(rows, self.scale), _step(columns, self.scale))
        grids = _Grids(self.offsets(query), places, steps)
        attention = self._attention(query, self.to_key(normal), grids)
        result = attention[:, 0, None] * grids.sample(features, 0)
        for number in range(1, LDA_NEIGHBOURS**2):
            shares = attention[:, number, None]
            result = torch.addcmul(result, shares, grids.sample(features, number))
        return result

    def offsets(self, query: FeatureMap) -> Tensor:
        """What the places of each group are moved by, in pixels of the result; at least float32.

        In bfloat16 an offset of 8 pixels would be one of whole sixteenths.

        Args:
            query: (B, hidden, H', W') at the size of the result.
        Returns:
            (B * groups, 9, 2, H', W'): neighbours row by row; y, then x.
        """
        batch, channels, height, width = query.shape
        grouped = query.reshape(batch * LDA_GROUPS, channels // LDA_GROUPS, height, width)
        hidden = F.silu(self.offset_norm(self.offset_depthwise(grouped)))
        moved = self.to_offset(hidden)
        moved = moved.to(torch.promote_types(query.dtype, torch.float32))
        return OFFSET_RANGE * moved.tanh().reshape(-1, LDA_NEIGHBOURS**2, 2, height, width)

    def _attention(self, query: FeatureMap, key: FeatureMap, grids: "_Grids") -> Tensor:
        """The weights of the nine places: (B, 9, H', W')."""
        position_bias = self.position_bias[..., None, None]
        query = query / key.shape[1] ** 0.5
        scores = [
            (query * (grids.sample(key, number) + position_bias[number])).sum(1)
            for number in range(LDA_NEIGHBOURS**2)
        ]
        return torch.stack(scores, 1).softmax(1)


class _Grids:
    """Samples maps at the places of one neighbour at a time, each group at its own."""

    def __init__(self, offsets: Tensor, places: list[Tensor], steps: tuple[float, float]) -> None:
        """Take what the places are made of.

        Args:
            offsets: (B * groups, 9, 2, H', W'), in pixels of the result.
            places: of rows and columns of the result, in pixels of the features.
            steps: from a row or column of the result to the next, in the same.
        """
        self._offsets, self._places, self._steps = offsets, places, steps

    def sample(self, values: FeatureMap, number: int) -> FeatureMap:
        """(B, C, h, w) -> (B, C, H', W') at one of the nine places; zeros beyond the map."""
        batch, channels, height, width = values.shape
        grid = self._grid(number, height, width)
        grouped = values.reshape(batch * LDA_GROUPS, channels // LDA_GROUPS, height, width)
        sampled = F.grid_sample(
            grouped.to(grid.dtype),
            grid,
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )
        return sampled.reshape(batch, channels, *sampled.shape[-2:]).to(values.dtype)

    def _grid(self, number: int, height: int, width: int) -> Tensor:
        """(B * groups, H', W', 2), x and y, from -1 to 1 over the features from edge to edge."""
        row, column = divmod(number, LDA_NEIGHBOURS)
        y_places, x_places = self._places
        moved_y, moved_x = self._offsets[:, number].unbind(1)
        y = y_places[:, None] + (moved_y + (row - LDA_NEIGHBOURS // 2)) * self._steps[0]
        x = x_places + (moved_x + (column - LDA_NEIGHBOURS // 2)) * self._steps[1]
        return torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), -1)


def _step(stretch: Stretch, scale: int) -> float:
    """From a pixel of the result to the next, in pixels of the features."""
    return (stretch.length - 1) / (scale * stretch.length - 1)


def _places(
    stretch: Stretch, length: int, scale: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Where pixels of the result lie among the features at hand: (scale * length,), in pixels.

    Pixel r of the result is at ``r * step`` of the map, here as r / scale less what corners on
    corners take off: so it stays exact in parts that lie far from the first pixel.
    """
    pixel = torch.arange(scale * length, device=device, dtype=dtype)
    per_pixel = (scale - 1) / (scale * (scale * stretch.length - 1))
    return pixel / scale - (pixel + scale * stretch.start) * per_pixel


def _interpolated(features: FeatureMap, dim: int, places: Tensor) -> FeatureMap:
    """Features at places along one dimension, linearly; beyond the first and last, these."""
    last = features.shape[dim] - 1
    front = places.floor().clamp(0, last)
    share = (places - front).clamp(0, 1).to(features.dtype)
    first = front.long()
    second = (first + 1).clamp(max=last)
    shape = [-1 if axis == dim else 1 for axis in range(features.dim())]
    return torch.lerp(
        features.index_select(dim, first),
        features.index_select(dim, second),
        share.reshape(shape),
    )
