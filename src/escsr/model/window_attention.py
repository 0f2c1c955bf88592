"""Self-attention within non-overlapping windows, with a position bias."""

import torch
from torch import Tensor, nn

from escsr.model.attention.backends import AttentionBackend, attend, require_backend
from escsr.model.padding import reflected_positions
from escsr.model.position_bias import Bias, PositionFactors, TablePositionBias
from escsr.shapes import FeatureMap, WindowTokens


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows of ``window_size``: no shift, no mask.

    The features are extended by reflection to whole windows *before* q, k, v are made and cropped
    *before* the gate and the output projection.

    Args:
        dim: channels of the features; a multiple of ``num_heads``.
        window_size: side of a window, in pixels.
        num_heads: number of heads.
        backend: how attention is computed.
        position_bias: called without arguments gives the bias of a window; a learned table of
            relative offsets unless given.
        has_gate: weigh the result by ``sigmoid(Conv1x1(DWConv3x3(features)))``.
    Raises:
        ConfigurationError: no such back-end.
    Source: ESC, arXiv:2503.06671, section 3.3; the gate is ESC-RIB's, arXiv:2603.06738.
    """

    def __init__(
        self,
        dim: int,
        *,
        window_size: int,
        num_heads: int,
        backend: AttentionBackend = "sdpa",
        position_bias: nn.Module | None = None,
        has_gate: bool = False,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.num_heads = num_heads
        self.backend: AttentionBackend = require_backend(backend)
        self.query_key_value = nn.Conv2d(dim, 3 * dim, 1)
        self.position_bias = position_bias or TablePositionBias(num_heads, window_size)
        self.gate = Gate(dim) if has_gate else None
        self.output_projection = nn.Conv2d(dim, dim, 1)

    def forward(self, features: FeatureMap, gate: FeatureMap | None = None) -> FeatureMap:
        """Attend within windows: (B, C, H, W) -> (B, C, H, W), any H, W >= 1.

        ``gate`` takes the place of what the own gate makes of the features, where more of their
        surroundings was known.

        On a CPU autocast is left out: projections and attention compute in float32. The gradient of
        a score is a difference of nearly equal numbers, which bfloat16 would store in between: the
        error of the features' gradient was 1000 times what rounding the features makes
        (tests/training/test_precision.py, docs/decisions/0001).
        """
        if features.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self._mix(features.float(), gate)
        return self._mix(features, gate)

    def _mix(self, features: FeatureMap, gate: FeatureMap | None = None) -> FeatureMap:
        q, k, v = self.queries_keys_values(features)
        bias: Bias = self.position_bias()
        if isinstance(bias, PositionFactors):
            q, k = bias.appended_to(q, k)
            attended_BNTD = attend(q, k, v, None, backend=self.backend, scale=1.0)
        else:
            attended_BNTD = attend(q, k, v, bias, backend=self.backend)
        height, width = features.shape[-2:]
        merged = merge_windows(merge_heads(attended_BNTD), self.window_size, height, width)
        if self.gate is not None:
            merged = merged * (self.gate(features) if gate is None else gate)
        return self.output_projection(merged)

    def queries_keys_values(
        self, features: FeatureMap
    ) -> tuple[WindowTokens, WindowTokens, WindowTokens]:
        """(B, C, H, W) -> q, k and v of all windows, (windows, N, T, D) each."""
        w = self.window_size
        windows_BTC = partition_windows(features, w)
        # A window is a w x w map to the 1x1 convolution: a wide and thin one would be slow.
        maps = windows_BTC.reshape(-1, w, w, windows_BTC.shape[-1]).permute(0, 3, 1, 2)
        qkv_BTC = self.query_key_value(maps).permute(0, 2, 3, 1).flatten(1, 2)
        q, k, v = (split_heads(tokens_BTC, self.num_heads) for tokens_BTC in qkv_BTC.chunk(3, -1))
        return q, k, v


class Gate(nn.Module):
    """How much of each attended value passes: in (0, 1), from a pixel and its neighbours."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.pointwise = nn.Conv2d(dim, dim, 1)

    def forward(self, features: FeatureMap) -> FeatureMap:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.pointwise(self.depthwise(features)).sigmoid()


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
