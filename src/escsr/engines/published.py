"""A network that computes as the paper and its code write it down, to measure everything against.

Maps stay in NCHW; attention scores are stored; the position bias is gathered from its table at each
call; every ConvAttention convolves twice; the large kernel is averaged in each forward. Nothing is
made slower than that.
"""

import copy

from torch import Tensor, nn

from escsr.model.layer_norm import ChannelLayerNorm
from escsr.model.padding import reflect_pad_to_multiple
from escsr.model.position_bias import PositionFactors
from escsr.model.window_attention import WindowAttention
from escsr.shapes import FeatureMap


def as_published(network: nn.Module) -> nn.Module:
    """Copy a network for inference in the paper's formulation; the original stays as it is.

    Source: ESC, arXiv:2503.06671, sections 3.2 and 3.3.
    """
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ChannelLayerNorm):
                parent.add_module(name, PublishedLayerNorm(child))
            elif isinstance(child, WindowAttention):
                parent.add_module(name, PublishedAttention(child))
    return copied


class PublishedLayerNorm(nn.Module):
    """LayerNorm over the channels of a map in NCHW, which comes out in NCHW."""

    def __init__(self, source: ChannelLayerNorm) -> None:
        super().__init__()
        self.norm = source

    def forward(self, features: FeatureMap) -> FeatureMap:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.norm(features).contiguous()


class PublishedAttention(WindowAttention):
    """Window attention that stores its scores: pad, q, k, v, cut into windows, attend, put back."""

    def __init__(self, source: WindowAttention) -> None:
        nn.Module.__init__(self)
        self.window_size, self.num_heads, self.backend = (
            source.window_size,
            source.num_heads,
            "naive",
        )
        self.query_key_value, self.position_bias = source.query_key_value, source.position_bias
        self.gate, self.output_projection = source.gate, source.output_projection

    def forward(self, features: FeatureMap, gate: FeatureMap | None = None) -> FeatureMap:
        """(B, C, H, W) -> (B, C, H, W)."""
        height, width = features.shape[-2:]
        padded = reflect_pad_to_multiple(features, self.window_size)
        q, k, v = (self._cut(part) for part in self.query_key_value(padded).chunk(3, dim=1))
        attended = self._put_back(self._attend(q, k, v), padded)[..., :height, :width]
        if self.gate is not None:
            attended = attended * (self.gate(features) if gate is None else gate)
        return self.output_projection(attended)

    def _attend(self, q_BNTD: Tensor, k_BNTD: Tensor, v_BNTD: Tensor) -> Tensor:
        bias = self.position_bias()
        if isinstance(bias, PositionFactors):
            q_BNTD, k_BNTD = bias.appended_to(q_BNTD, k_BNTD)
            scores = q_BNTD @ k_BNTD.transpose(-2, -1)
        else:
            scores = (q_BNTD * q_BNTD.shape[-1] ** -0.5) @ k_BNTD.transpose(-2, -1) + bias
        return scores.softmax(dim=-1) @ v_BNTD

    def _cut(self, features: FeatureMap) -> Tensor:
        """(B, C, H, W), whole windows -> (B * windows, N, T, D)."""
        batch, channels, height, width = features.shape
        w, heads = self.window_size, self.num_heads
        split = features.reshape(batch, heads, channels // heads, height // w, w, width // w, w)
        cut = split.permute(0, 3, 5, 1, 4, 6, 2)
        return cut.reshape(-1, heads, w * w, channels // heads)

    def _put_back(self, windows_BNTD: Tensor, like: FeatureMap) -> FeatureMap:
        """(B * windows, N, T, D) -> (B, C, H, W)."""
        batch, channels, height, width = like.shape
        w, heads = self.window_size, self.num_heads
        split = windows_BNTD.reshape(
            batch, height // w, width // w, heads, w, w, channels // heads
        ).permute(0, 3, 6, 1, 4, 2, 5)
        return split.reshape(batch, channels, height, width).contiguous()
