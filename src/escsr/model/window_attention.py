"""Self-attention within non-overlapping windows, with a learned relative position bias."""

import torch
from torch import Tensor, nn

from escsr.model.attention_backends import AttentionBackend, attend, require_backend
from escsr.model.padding import reflected_positions
from escsr.shapes import FeatureMap


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows of ``window_size``: no shift, no mask.

    The features are extended by reflection to whole windows *before* q, k, v are made and cropped
    *before* the output projection.

    Raises:
        ConfigurationError: no such back-end.
    Source: ESC, arXiv:2503.06671, section 3.3.
    """

    def __init__(
        self, dim: int, *, window_size: int, num_heads: int, backend: AttentionBackend
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.num_heads = num_heads
        self.backend: AttentionBackend = require_backend(backend)
        self.query_key_value = nn.Conv2d(dim, 3 * dim, 1)
        self.output_projection = nn.Conv2d(dim, dim, 1)
        self.relative_position_bias = nn.Parameter(
            torch.empty(num_heads, (2 * window_size - 1) ** 2)
        )
        self.reset_bias()

    def reset_bias(self) -> None:
        """Draw the bias table from N(0, 0.001), as the reference does."""
        nn.init.normal_(self.relative_position_bias, std=0.001)

    def forward(self, features: FeatureMap) -> FeatureMap:
        """Attend within windows: (B, C, H, W) -> (B, C, H, W), any H, W >= 1.

        On a CPU autocast is left out, but by the chunked back-end. The gradient of a score is a
        difference of nearly equal numbers, and there bfloat16 stores them in between: its rounding
        was up to 1000 times the gradient, and training got worse with every step
        (tests/training/test_precision.py).
        """
        on_cpu = features.device.type == "cpu"
        if on_cpu and torch.is_autocast_enabled("cpu") and self.backend != "chunked":
            with torch.autocast("cpu", enabled=False):
                return self._attend(features.float())
        return self._attend(features)

    def _attend(self, features: FeatureMap) -> FeatureMap:
        w = self.window_size
        windows_BTC = partition_windows(features, w)
        # A window is a w x w map to the 1x1 convolution: a wide and thin one would be slow.
        maps = windows_BTC.reshape(-1, w, w, windows_BTC.shape[-1]).permute(0, 3, 1, 2)
        qkv_BTC = self.query_key_value(maps).permute(0, 2, 3, 1).flatten(1, 2)
        q, k, v = (split_heads(tokens_BTC, self.num_heads) for tokens_BTC in qkv_BTC.chunk(3, -1))
        attended_BNTD = attend(q, k, v, self.position_bias(), backend=self.backend)
        height, width = features.shape[-2:]
        merged = merge_windows(merge_heads(attended_BNTD), w, height, width)
        return self.output_projection(merged)

    def position_bias(self) -> Tensor:
        """The bias of every (query, key) pair of a window: (N, T, T)."""
        return expand_bias(self.relative_position_bias, self.window_size)


def expand_bias(bias_table: Tensor, window_size: int) -> Tensor:
    """The bias of every (query, key) pair of a window, from the table of relative offsets.

    Args:
        bias_table: (N, (2w-1)^2); the entry of an offset is
            ``(key_row - query_row + w-1) * (2w-1) + (key_col - query_col + w-1)``.
        window_size: w.
    Returns:
        (N, w^2, w^2), row = query, tokens row-major.
    Source: the official code; the sign is key minus query, the transpose of Swin's.
    """
    w = window_size
    row = torch.arange(w, device=bias_table.device)
    offset = row[None, :] - row[:, None] + (w - 1)  # (query, key) along one axis
    index = offset[:, None, :, None] * (2 * w - 1) + offset[None, :, None, :]
    return bias_table[:, index.reshape(w * w, w * w)]


def partition_windows(features: FeatureMap, window_size: int) -> Tensor:
    """Cut a feature map into non-overlapping square windows, extended by reflection to whole ones.

    One gather by computed indices, instead of padding and permuting: it is faster, and it leaves no
    axis whose length is a number of windows, which torch.export could not keep dynamic.

    Args:
        features: (B, C, H, W), any H, W >= 1.
        window_size: side of a window, in LR pixels.
    Returns:
        (B * windows, window_size**2, C), windows and tokens in row-major order.
    Differs: the reference fails where the padding is as long as the side
    (tests/model/test_window_attention.py).
    """
    batch, channels, height, width = features.shape
    w, tokens = window_size, window_size**2
    rows, columns = _windows_along(height, w), _windows_along(width, w)
    position = torch.arange(rows * columns * tokens, device=features.device)
    window, token = position // tokens, position % tokens
    row = reflected_positions(window // columns * w + token // w, height)
    column = reflected_positions(window % columns * w + token % w, width)
    pixels_C = features.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    index = _in_every_image(row * width + column, batch, height * width)
    return pixels_C.index_select(0, index).reshape(batch * rows * columns, tokens, channels)


def merge_windows(windows_BTC: Tensor, window_size: int, height: int, width: int) -> FeatureMap:
    """Put windows back into a map and crop it: the inverse of ``partition_windows``.

    Args:
        windows_BTC: (B * windows, window_size**2, C).
        window_size: side of a window, in LR pixels.
        height: of the map, before it was extended to whole windows.
        width: likewise.
    Returns:
        (B, C, height, width).
    """
    w, tokens, channels = window_size, window_size**2, windows_BTC.shape[-1]
    rows, columns = _windows_along(height, w), _windows_along(width, w)
    batch = windows_BTC.shape[0] // (rows * columns)
    position = torch.arange(height * width, device=windows_BTC.device)
    row, column = position // width, position % width
    window, token = row // w * columns + column // w, row % w * w + column % w
    index = _in_every_image(window * tokens + token, batch, rows * columns * tokens)
    pixels_C = windows_BTC.reshape(-1, channels).index_select(0, index)
    return pixels_C.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


def _windows_along(length: int, window_size: int) -> int:
    return (length + window_size - 1) // window_size


def _in_every_image(index: Tensor, batch: int, image_length: int) -> Tensor:
    """Repeat an index into one image for all images of a batch that lie one after another."""
    first = torch.arange(batch, device=index.device) * image_length
    return (first[:, None] + index).flatten()


def split_heads(tokens_BTC: Tensor, num_heads: int) -> Tensor:
    """(windows, T, C) -> (windows, N, T, D); channels are ordered (head, channel)."""
    windows, tokens, channels = tokens_BTC.shape
    return tokens_BTC.reshape(windows, tokens, num_heads, channels // num_heads).transpose(1, 2)


def merge_heads(tokens_BNTD: Tensor) -> Tensor:
    """(windows, N, T, D) -> (windows, T, C): the inverse of ``split_heads``."""
    return tokens_BNTD.transpose(1, 2).flatten(2)
