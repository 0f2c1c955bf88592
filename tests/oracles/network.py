"""ESC from ``x`` to the enlarged image, one image at a time, in float64 NumPy: not from ``src``."""

import re
from collections.abc import Mapping

import numpy as np

from escsr.model import ESCConfig
from tests.oracles import local_attention, local_texture, upsamplers
from tests.oracles.attention import (
    Array,
    layer_norm,
    position_biases,
    reflected_position,
    window_attention,
)
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
from tests.oracles.dysample import dysample
from tests.oracles.implicit_bias import implicit_bias


class Oracle:
    """The network of a configuration, computed from its named weights."""

    def __init__(self, config: ESCConfig, weights: Mapping[str, Array]) -> None:
        self.config = config
        self.weights = weights

    def enlarge(self, lr_image: Array, output_size: tuple[int, int] | None = None) -> Array:
        """(3, H, W) -> (3, scale*H, scale*W), or to a size in ESC+LTE."""
        scale, (height, width) = self.config.scale, lr_image.shape[1:]
        size = output_size or (scale * height, scale * width)
        body = self.body(lr_image)
        return self.upsample(body, lr_image, size)[:, : size[0], : size[1]]

    def body(self, lr_image: Array) -> Array:
        """Features."""
        config = self.config
        entered = 2 * lr_image - 1 if config.upsampler == "lte" else lr_image
        entered = unshuffle(entered, config.unshuffle)
        shallow = self.conv("shallow", entered)
        deep = shallow
        for block in range(config.num_blocks):
            deep = self.block(f"blocks.{block}", deep)
        if config.norm_before_last_conv:
            deep = self.norm("norm", deep)
        body = self.conv("deep", deep) + shallow
        return body + self.feature_skip("feature_skip", entered) if config.feature_skip else body

    def upsample(self, body: Array, lr_image: Array, size: tuple[int, int]) -> Array:
        """Features -> image, before it is cropped."""
        config, of_head = self.config, self.below("reconstruction")
        scale, kind = config.scale * config.unshuffle, config.upsampler
        if kind == "lte":
            return local_texture.enlarge(of_head, body, lr_image, size)
        if kind == "pixelshuffledirect":
            subpixels = self.conv("reconstruction.to_subpixels", body)
            return shuffle_pixels(subpixels, scale) + self.image_skip(lr_image)
        if kind in ("dysample", "lda") and "narrow.weight" in of_head:
            body = upsamplers.leaky_relu(self.conv("reconstruction.narrow", body), 0.01)
        if kind == "dysample":
            return dysample(
                self.below("reconstruction.sampler"), body, scale, config.dysample_groups
            )
        if kind == "lda":
            attention = self.below("reconstruction.attention")
            attended = local_attention.local_attention(attention, body, scale)
            return self.conv("reconstruction.to_image", attended)
        return enlarge_by_stack(kind, of_head, body, scale)

    def image_skip(self, lr_image: Array) -> Array | float:
        """The enlarged image, or nothing."""
        if self.config.image_skip == "none":
            return 0.0
        skip = enlarge_nearest if self.config.image_skip == "nearest" else enlarge_bicubic
        return skip(lr_image, self.config.scale)

    def block(self, name: str, features: Array) -> Array:
        """One attention, then ConvAttention layers."""
        inner = self.feed_forward(f"{name}.feed_forward", self.norm(f"{name}.norm_in", features))
        normal = self.norm(f"{name}.norm_attention", inner)
        inner = inner + self.mix(f"{name}.attention", self.config.first_mixer, normal)
        for layer in range(self.config.num_conv_layers):
            inner = inner + self.conv_layer(f"{name}.conv_layers.{layer}", inner)
        return features + self.conv(f"{name}.conv_out", self.norm(f"{name}.norm_out", inner))

    def conv_layer(self, name: str, features: Array) -> Array:
        """ConvFFN, then ConvAttn."""
        if self.config.norm_in_conv_layers:
            features = self.norm(f"{name}.norm", features)
        hidden = self.feed_forward(f"{name}.feed_forward", features)
        return self.mix(f"{name}.conv_attention", self.config.layer_mixer, hidden)

    def mix(self, name: str, kind: str, features: Array) -> Array:
        """Window attention or ConvAttn."""
        return (self.attention if kind == "window" else self.conv_attention)(name, features)

    def conv_attention(self, name: str, hidden: Array) -> Array:
        """Large and dynamic kernel on the first channels, 1x1 on all."""
        pdim = self.config.pdim
        dynamic = np.zeros((pdim, 3, 3))
        if self.config.dynamic_kernel:
            layers = ("to_hidden", "to_kernel")
            dynamic = dynamic_kernel(
                hidden[:pdim], [self.linear(f"{name}.dynamic_kernel.{layer}") for layer in layers]
            )
        shared = self.config.share_large_kernel
        large = self.below("shared_large_kernel" if shared else f"{name}.own_kernel")
        first = large["weights.0"]
        if self.config.large_kernel == "dense":
            attended = dense_conv_attention(hidden[:pdim], first, dynamic)
        else:
            spatial = large["weights.1"][:, 0]
            attended = decomposed_conv_attention(hidden[:pdim], first[:, :, 0, 0], spatial, dynamic)
        return self.conv(f"{name}.aggregate", np.concatenate((attended, hidden[pdim:])))

    def attention(self, name: str, features: Array) -> Array:
        """Window attention with its gate and output layer."""
        attended = window_attention(
            features,
            self.linear(f"{name}.query_key_value"),
            self.biases(f"{name}.position_bias"),
            window_size=self.config.window_size,
        )
        if self.config.attention_gate:
            neighbours = self.depthwise(f"{name}.gate.depthwise", features)
            attended = attended / (1 + np.exp(-self.conv(f"{name}.gate.pointwise", neighbours)))
        return self.conv(f"{name}.output_projection", attended)

    def biases(self, name: str) -> Array:
        """(heads, T, T)."""
        window_size, frequencies = self.config.window_size, self.config.position_frequencies
        if self.config.position_bias == "table":
            return position_biases(self.weights[f"{name}.table"], window_size)
        return implicit_bias(self.below(name), window_size, frequencies)

    def feature_skip(self, name: str, image: Array) -> Array:
        """1x1, depthwise 7x7 on reflected borders, LReLU 0.2, 1x1."""
        wide = reflect(self.conv(f"{name}.expand", image), 3)
        filtered = self.depthwise(f"{name}.depthwise", wide)[:, 3:-3, 3:-3]
        return self.conv(f"{name}.reduce", upsamplers.leaky_relu(filtered, 0.2))

    def feed_forward(self, name: str, features: Array) -> Array:
        """1x1, GELU, depthwise 3x3 with GELU and a residual, 1x1."""
        hidden = gelu(self.conv(f"{name}.expand", features))
        neighbours = self.depthwise(f"{name}.depthwise", hidden)
        return self.conv(f"{name}.reduce", gelu(neighbours) + hidden)

    def norm(self, name: str, features: Array) -> Array:
        """LayerNorm."""
        return layer_norm(features, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def conv(self, name: str, features: Array) -> Array:
        """A full convolution with bias."""
        return convolve(features, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def depthwise(self, name: str, features: Array) -> Array:
        """A depthwise convolution with bias."""
        kernel = as_full_kernel(self.weights[f"{name}.weight"][:, 0])
        return convolve(features, kernel, self.weights[f"{name}.bias"])

    def linear(self, name: str) -> tuple[Array, Array]:
        """A 1x1 convolution as a matrix and a bias."""
        return self.weights[f"{name}.weight"][:, :, 0, 0], self.weights[f"{name}.bias"]

    def below(self, name: str) -> dict[str, Array]:
        """The weights of one part, by the rest of their names."""
        prefix = f"{name}."
        return {
            key.removeprefix(prefix): value
            for key, value in self.weights.items()
            if key.startswith(prefix)
        }


def enlarge_by_stack(kind: str, weights: Mapping[str, Array], features: Array, scale: int) -> Array:
    """An upsampler that is a stack of convolutions."""
    steps = {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]
    layers = convolutions_in_order(weights)
    if kind == "pa_up":
        gates = convolutions_in_order(weights, ".gate")
        return upsamplers.pixel_attention(layers, gates, features, steps)
    formulas = {
        "nearest+conv": upsamplers.nearest_conv,
        "conv+nearest": upsamplers.conv_nearest,
        "transpose+conv": upsamplers.transpose_conv,
        "pixelshuffle": upsamplers.pixelshuffle,
    }
    return formulas[kind](layers, features, steps)


def convolutions_in_order(
    weights: Mapping[str, Array], part: str = ""
) -> list[tuple[Array, Array]]:
    """Of a stack ``layers.#``, or of a part of its layers: weight and bias of each."""
    matches = (re.fullmatch(rf"layers\.(\d+){part}\.weight", name) for name in weights)
    places = sorted(int(match[1]) for match in matches if match is not None)
    names = [f"layers.{place}{part}" for place in places]
    return [(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in names]


def reflect(image: Array, pixels: int) -> Array:
    """(C, H, W) with so many reflected pixels on each side."""
    rows, columns = (
        [reflected_position(abs(place), length) for place in range(-pixels, length + pixels)]
        for length in image.shape[1:]
    )
    return image[:, rows][:, :, columns]


def unshuffle(image: Array, factor: int) -> Array:
    """(C, H, W), reflected to whole squares -> (C * factor^2, H', W'): (C, sub-row, sub-column)."""
    if factor == 1:
        return image
    height, width = image.shape[1:]
    rows = [reflected_position(place, height) for place in range(-(-height // factor) * factor)]
    columns = [reflected_position(place, width) for place in range(-(-width // factor) * factor)]
    padded = image[:, rows][:, :, columns]
    return np.stack(
        [
            channel[row::factor, column::factor]
            for channel in padded
            for row in range(factor)
            for column in range(factor)
        ]
    )
