"""ESC: image super-resolution that emulates self-attention with convolution."""

import torch.nn.functional as F
from torch import nn

from escsr.errors import ImageValueError
from escsr.model.attention_backends import AttentionBackend
from escsr.model.config import ESCConfig
from escsr.model.convolutional_attention import (
    ConvAttention,
    LargeKernelWeights,
    SharedLargeKernel,
)
from escsr.model.layer_norm import ChannelLayerNorm
from escsr.model.reconstruction import Reconstruction
from escsr.model.window_attention import WindowAttention
from escsr.shapes import FeatureMap, ImageBatch


class ESC(nn.Module):
    """ESC, ESC-light, ESC-FP and ESC-XL: one network, told apart by their configuration.

    ``f0 = Conv(x)``; blocks that share one large kernel; ``f = Conv(fN) + f0``; then the upsampler
    and the enlarged input image.

    Source: ESC, arXiv:2503.06671, section 3.1, figure 3.
    """

    def __init__(self, config: ESCConfig, *, attention_backend: AttentionBackend = "sdpa") -> None:
        super().__init__()
        self.config = config
        self.shallow = nn.Conv2d(3, config.dim, 3, padding=1)
        self.shared_large_kernel = SharedLargeKernel(
            config.pdim, config.large_kernel_size, config.large_kernel
        )
        self.blocks = nn.ModuleList(
            ESCBlock(config, attention_backend) for _ in range(config.num_blocks)
        )
        self.norm = ChannelLayerNorm(config.dim) if config.norm_before_last_conv else nn.Identity()
        self.deep = nn.Conv2d(config.dim, config.dim, 3, padding=1)
        self.reconstruction = Reconstruction(config)

    @property
    def scale(self) -> int:
        """Upscaling factor per side."""
        return self.config.scale

    def forward(self, lr_image: ImageBatch) -> ImageBatch:
        """Enlarge images.

        Args:
            lr_image: (B, 3, H, W) RGB in [0, 1], any H, W >= 1; it is left as it is.
        Returns:
            (B, 3, scale*H, scale*W), not clamped.
        Raises:
            ImageValueError: not four dimensions, not three channels, no image, an empty side, or a
                tensor of integers.
        """
        _require_image_batch(lr_image)
        large_kernel = self.shared_large_kernel()
        shallow = self.shallow(lr_image)
        deep = shallow
        for block in self.blocks:
            deep = block(deep, large_kernel)
        deep = self.deep(self.norm(deep)) + shallow
        return self.reconstruction(deep, lr_image)


class ESCBlock(nn.Module):
    """One window attention, then ConvAttention layers in its place.

    Source: ESC, arXiv:2503.06671, section 3.1, equations 1 to 3.
    """

    def __init__(self, config: ESCConfig, attention_backend: AttentionBackend) -> None:
        super().__init__()
        dim = config.dim
        self.norm_in = ChannelLayerNorm(dim)
        self.feed_forward = ConvFeedForward(dim, config.first_expansion)
        self.norm_attention = ChannelLayerNorm(dim)
        self.attention = WindowAttention(
            dim,
            window_size=config.window_size,
            num_heads=config.num_heads,
            backend=attention_backend,
        )
        self.conv_layers = nn.ModuleList(
            ConvAttentionLayer(config) for _ in range(config.num_conv_layers)
        )
        self.norm_out = ChannelLayerNorm(dim)
        self.conv_out = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, features: FeatureMap, large_kernel: LargeKernelWeights) -> FeatureMap:
        """(B, C, H, W) -> (B, C, H, W)."""
        inner = self.feed_forward(self.norm_in(features))
        inner = inner + self.attention(self.norm_attention(inner))
        for layer in self.conv_layers:
            inner = inner + layer(inner, large_kernel)
        return features + self.conv_out(self.norm_out(inner))


class ConvAttentionLayer(nn.Module):
    """``ConvAttention(ConvFeedForward([LayerNorm] x))``, without the residual."""

    def __init__(self, config: ESCConfig) -> None:
        super().__init__()
        self.norm = ChannelLayerNorm(config.dim) if config.norm_in_conv_layers else nn.Identity()
        self.feed_forward = ConvFeedForward(config.dim, config.expansion)
        self.conv_attention = ConvAttention(config)

    def forward(self, features: FeatureMap, large_kernel: LargeKernelWeights) -> FeatureMap:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.conv_attention(self.feed_forward(self.norm(features)), large_kernel)


class ConvFeedForward(nn.Module):
    """Widen, look at the neighbours, narrow: 1x1, depthwise 3x3 with a residual, 1x1."""

    def __init__(self, dim: int, expansion: float) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.expand = nn.Conv2d(dim, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.reduce = nn.Conv2d(hidden, dim, 1)

    def forward(self, features: FeatureMap) -> FeatureMap:
        """(B, C, H, W) -> (B, C, H, W)."""
        hidden = F.gelu(self.expand(features))
        hidden = F.gelu(self.depthwise(hidden)) + hidden
        return self.reduce(hidden)


def _require_image_batch(lr_image: ImageBatch) -> None:
    if lr_image.dim() != 4 or lr_image.shape[1] != 3:
        raise ImageValueError(
            f"The network was given a tensor of shape {tuple(lr_image.shape)}; it takes a batch of "
            "RGB images, (B, 3, H, W). Add the batch dimension with image[None], and give a grey "
            "image as three equal channels."
        )
    if lr_image.shape[0] == 0:
        raise ImageValueError("The batch holds no image; it needs at least 1.")
    if 0 in lr_image.shape[2:]:
        raise ImageValueError(
            f"The image is {lr_image.shape[3]}x{lr_image.shape[2]} pixels; both sides need at "
            "least 1."
        )
    if not lr_image.is_floating_point():
        raise ImageValueError(
            f"The image is a tensor of {lr_image.dtype}; the network takes floating-point RGB in "
            "[0, 1]. Divide 8-bit values by 255, 16-bit values by 65535."
        )
