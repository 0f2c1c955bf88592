"""ESC: image super-resolution that emulates self-attention with convolution."""

from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import nn

from escsr.errors import ConfigurationError
from escsr.family.configuration import ESCConfig, Mixer
from escsr.family.inputs import require_image_batch, two_whole_numbers
from escsr.model.attention.backends import AttentionBackend
from escsr.model.convolutional_attention import (
    ConvAttention,
    LargeKernelWeights,
    SharedLargeKernel,
)
from escsr.model.layer_norm import ChannelLayerNorm
from escsr.model.padding import reflect_pad, reflect_pad_to_multiple
from escsr.model.position_bias import ImplicitPositionBias, TablePositionBias
from escsr.model.reconstruction import SLOPE, build_reconstruction
from escsr.model.window_attention import WindowAttention
from escsr.shapes import FeatureMap, ImageBatch


class ESC(nn.Module):
    """Every network of the family: ESC, -light, -FP, -XL, -Real, -Real-M, +LTE and -RIB.

    ``f0 = Conv(x)``; blocks that share one large kernel; ``f = Conv(fN) + f0``; then the upsampler
    and, in most, the enlarged input image. The configuration alone tells them apart.

    Source: ESC, arXiv:2503.06671, section 3.1, figure 3; ESC-RIB, arXiv:2603.06738.
    """

    def __init__(self, config: ESCConfig, *, attention_backend: AttentionBackend = "sdpa") -> None:
        super().__init__()
        self.config = config
        channels = 3 * config.unshuffle**2
        self.shallow = nn.Conv2d(channels, config.dim, 3, padding=1)
        self.shared_large_kernel = _shared_large_kernel(config)
        self.blocks = nn.ModuleList(
            ESCBlock(config, attention_backend) for _ in range(config.num_blocks)
        )
        self.norm = ChannelLayerNorm(config.dim) if config.norm_before_last_conv else nn.Identity()
        self.deep = nn.Conv2d(config.dim, config.dim, 3, padding=1)
        self.feature_skip = FeatureSkip(channels, config.dim) if config.feature_skip else None
        self.reconstruction = build_reconstruction(config)

    @property
    def scale(self) -> int:
        """Upscaling factor per side; of ESC+LTE, the one it takes unless given a size."""
        return self.config.scale

    def forward(
        self, lr_image: ImageBatch, output_size: tuple[int, int] | None = None
    ) -> ImageBatch:
        """Enlarge images.

        Args:
            lr_image: (B, 3, H, W) RGB in [0, 1], any H, W >= 1; it is left as it is.
            output_size: (H', W') of the result; ``scale`` times the image's unless given. Only
                ESC+LTE makes other sizes.
        Returns:
            (B, 3, H', W'), not clamped.
        Raises:
            ImageValueError: not four dimensions, not three channels, no image, an empty side, or a
                tensor of integers.
            ConfigurationError: no two whole numbers, or the network does not make that size.
        """
        require_image_batch(
            lr_image.shape,
            dtype=lr_image.dtype,
            is_floating_point=lr_image.is_floating_point(),
            kind="a tensor",
        )
        height, width = self._usual_size(lr_image)
        if output_size is not None:
            height, width = self._required_size(lr_image, output_size)
        features = self.features(lr_image)
        return self.reconstruction(features, lr_image, (height, width))[..., :height, :width]

    def features(self, lr_image: ImageBatch) -> FeatureMap:
        """What the body makes of images: (B, 3, H, W) -> (B, C, H / unshuffle, W / unshuffle)."""
        entered = self.enter(lr_image)
        large_kernel = self.shared_large_kernel() if self.shared_large_kernel is not None else None
        shallow = self.shallow(entered)
        deep = shallow
        for block in self.blocks:
            deep = block(deep, large_kernel)
        deep = self.deep(self.norm(deep)) + shallow
        return deep if self.feature_skip is None else deep + self.feature_skip(entered)

    def enter(self, lr_image: ImageBatch) -> FeatureMap:
        """The image as the body wants it: ESC+LTE's in [-1, 1], ESC-Real-M's pixels as channels.

        torch.export keeps sizes free only where no pixels become channels: a network with
        ``unshuffle`` above 1 is exported for one size of image.

        Differs: the reference fails on images smaller than their padding to whole groups of pixels
        (tests/model/test_network.py).
        """
        if self.config.is_arbitrary_scale:
            return (lr_image - 0.5) / 0.5
        if self.config.unshuffle == 1:
            return lr_image
        padded = reflect_pad_to_multiple(lr_image, self.config.unshuffle)
        return F.pixel_unshuffle(padded, self.config.unshuffle)

    def _usual_size(self, lr_image: ImageBatch) -> tuple[int, int]:
        height, width = lr_image.shape[-2:]
        return self.scale * height, self.scale * width

    def _required_size(self, lr_image: ImageBatch, output_size: object) -> tuple[int, int]:
        size = two_whole_numbers(output_size, _is_whole)
        if not self.config.is_arbitrary_scale and size != self._usual_size(lr_image):
            raise ConfigurationError(
                f"output_size is {size}, but this network enlarges by {self.scale}, to "
                f"{self._usual_size(lr_image)}. Leave it out and resize the result, or take a "
                'network whose upsampler is "lte".'
            )
        return size


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
        self.attention = _mixer(config, config.first_mixer, attention_backend)
        self.conv_layers = nn.ModuleList(
            ConvAttentionLayer(config, attention_backend) for _ in range(config.num_conv_layers)
        )
        self.norm_out = ChannelLayerNorm(dim)
        self.conv_out = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, features: FeatureMap, large_kernel: LargeKernelWeights | None) -> FeatureMap:
        """(B, C, H, W) -> (B, C, H, W)."""
        inner = self.feed_forward(self.norm_in(features))
        inner = inner + _mix(self.attention, self.norm_attention(inner), large_kernel)
        for layer in self.conv_layers:
            inner = inner + layer(inner, large_kernel)
        return features + self.conv_out(self.norm_out(inner))


class ConvAttentionLayer(nn.Module):
    """``ConvAttention(ConvFeedForward([LayerNorm] x))``, without the residual."""

    def __init__(self, config: ESCConfig, attention_backend: AttentionBackend) -> None:
        super().__init__()
        self.norm = ChannelLayerNorm(config.dim) if config.norm_in_conv_layers else nn.Identity()
        self.feed_forward = ConvFeedForward(config.dim, config.expansion)
        self.conv_attention = _mixer(config, config.layer_mixer, attention_backend)

    def forward(self, features: FeatureMap, large_kernel: LargeKernelWeights | None) -> FeatureMap:
        """(B, C, H, W) -> (B, C, H, W)."""
        return _mix(self.conv_attention, self.feed_forward(self.norm(features)), large_kernel)


def _mixer(config: ESCConfig, kind: Mixer, attention_backend: AttentionBackend) -> nn.Module:
    if kind == "window":
        return WindowAttention(
            config.dim,
            window_size=config.window_size,
            num_heads=config.num_heads,
            backend=attention_backend,
            position_bias=_position_bias(config),
            has_gate=config.attention_gate,
        )
    return ConvAttention(
        config.dim,
        config.pdim,
        kind=config.large_kernel,
        has_dynamic_kernel=config.dynamic_kernel,
        own_kernel=None if config.share_large_kernel else _large_kernel(config),
    )


def _position_bias(config: ESCConfig) -> nn.Module:
    if config.position_bias == "implicit":
        return ImplicitPositionBias(
            config.num_heads,
            config.window_size,
            rank=config.position_rank,
            hidden_dim=config.position_hidden_dim,
            frequencies=config.position_frequencies,
        )
    return TablePositionBias(config.num_heads, config.window_size)


def _mix(
    mixer: nn.Module, features: FeatureMap, large_kernel: LargeKernelWeights | None
) -> FeatureMap:
    """Window attention looks at the features alone, ConvAttention at the kernel too."""
    return mixer(features) if isinstance(mixer, WindowAttention) else mixer(features, large_kernel)


def _shared_large_kernel(config: ESCConfig) -> SharedLargeKernel | None:
    """None where nothing would use it: a weight without gradient is no part of a network."""
    is_used = "convolution" in (config.first_mixer, config.layer_mixer)
    return _large_kernel(config) if config.share_large_kernel and is_used else None


def _large_kernel(config: ESCConfig) -> SharedLargeKernel:
    return SharedLargeKernel(config.pdim, config.large_kernel_size, config.large_kernel)


class FeatureSkip(nn.Module):
    """Features straight from the image: 1x1, depthwise 7x7, leaky ReLU, 1x1.

    Source: ESC-Real, official code of arXiv:2503.06671.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, 2 * dim, 1)
        self.depthwise = nn.Conv2d(2 * dim, 2 * dim, 7, groups=2 * dim)
        self.reduce = nn.Conv2d(2 * dim, dim, 1)

    def forward(self, image: FeatureMap) -> FeatureMap:
        """(B, channels, H, W) -> (B, C, H, W); reflected at the borders."""
        padded = reflect_pad(self.expand(image), 3)
        return self.reduce(F.leaky_relu(self.depthwise(padded), SLOPE))


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


def _is_whole(side: object) -> TypeGuard[int]:
    # While a graph is exported, a side that stays free is a SymInt.
    return isinstance(side, int | torch.SymInt) and not isinstance(side, bool)


def count_parameters(network: nn.Module) -> int:
    """Number of trainable values; works on the meta device too."""
    return sum(parameter.numel() for parameter in network.parameters())
