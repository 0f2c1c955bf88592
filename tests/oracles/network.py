"""ESC from ``x`` to the enlarged image, one image at a time, in float64 NumPy: not from ``src``."""

from collections.abc import Mapping

import numpy as np

from escsr.model import ESCConfig
from tests.oracles.attention import Array, layer_norm, window_attention
from tests.oracles.convolution import (
    as_full_kernel,
    convolve,
    decomposed_conv_attention,
    dense_conv_attention,
    dynamic_kernel,
    enlarge_bicubic,
    enlarge_nearest,
    gelu,
    shuffle_pixels,
)


class Oracle:
    """The network of a configuration, computed from its named weights."""

    def __init__(self, config: ESCConfig, weights: Mapping[str, Array]) -> None:
        self.config = config
        self.weights = weights

    def enlarge(self, lr_image: Array) -> Array:
        """(3, H, W) -> (3, scale*H, scale*W)."""
        config = self.config
        shallow = self.conv("shallow", lr_image)
        deep = shallow
        for block in range(config.num_blocks):
            deep = self.block(f"blocks.{block}", deep)
        if config.norm_before_last_conv:
            deep = self.norm("norm", deep)
        body = self.conv("deep", deep) + shallow
        subpixels = self.conv("reconstruction.to_subpixels", body)
        skip = enlarge_nearest if config.image_skip == "nearest" else enlarge_bicubic
        return shuffle_pixels(subpixels, config.scale) + skip(lr_image, config.scale)

    def block(self, name: str, features: Array) -> Array:
        """One attention, then ConvAttention layers."""
        inner = self.feed_forward(f"{name}.feed_forward", self.norm(f"{name}.norm_in", features))
        inner = inner + self.attention(
            f"{name}.attention", self.norm(f"{name}.norm_attention", inner)
        )
        for layer in range(self.config.num_conv_layers):
            inner = inner + self.conv_layer(f"{name}.conv_layers.{layer}", inner)
        return features + self.conv(f"{name}.conv_out", self.norm(f"{name}.norm_out", inner))

    def conv_layer(self, name: str, features: Array) -> Array:
        """ConvFFN, ConvAttn, 1x1."""
        if self.config.norm_in_conv_layers:
            features = self.norm(f"{name}.norm", features)
        hidden = self.feed_forward(f"{name}.feed_forward", features)
        pdim = self.config.pdim
        attention = f"{name}.conv_attention"
        dynamic = dynamic_kernel(
            hidden[:pdim],
            [
                self.linear(f"{attention}.dynamic_kernel.{layer}")
                for layer in ("to_hidden", "to_kernel")
            ],
        )
        first = self.weights["shared_large_kernel.weights.0"]
        if self.config.large_kernel == "dense":
            attended = dense_conv_attention(hidden[:pdim], first, dynamic)
        else:
            spatial = self.weights["shared_large_kernel.weights.1"][:, 0]
            attended = decomposed_conv_attention(hidden[:pdim], first[:, :, 0, 0], spatial, dynamic)
        return self.conv(f"{attention}.aggregate", np.concatenate((attended, hidden[pdim:])))

    def attention(self, name: str, features: Array) -> Array:
        """Window attention with its output layer."""
        attended = window_attention(
            features,
            self.linear(f"{name}.query_key_value"),
            self.weights[f"{name}.relative_position_bias"],
            window_size=self.config.window_size,
        )
        return self.conv(f"{name}.output_projection", attended)

    def feed_forward(self, name: str, features: Array) -> Array:
        """1x1, GELU, depthwise 3x3 with GELU and a residual, 1x1."""
        hidden = gelu(self.conv(f"{name}.expand", features))
        depthwise = as_full_kernel(self.weights[f"{name}.depthwise.weight"][:, 0])
        neighbours = convolve(hidden, depthwise, self.weights[f"{name}.depthwise.bias"])
        return self.conv(f"{name}.reduce", gelu(neighbours) + hidden)

    def norm(self, name: str, features: Array) -> Array:
        """LayerNorm."""
        return layer_norm(features, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def conv(self, name: str, features: Array) -> Array:
        """A full convolution with bias."""
        return convolve(features, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def linear(self, name: str) -> tuple[Array, Array]:
        """A 1x1 convolution as a matrix and a bias."""
        return self.weights[f"{name}.weight"][:, :, 0, 0], self.weights[f"{name}.bias"]
