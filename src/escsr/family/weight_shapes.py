"""The arrays that a network is made of, by name, as its configuration gives them; without torch.

The names are those of ``escsr.model.ESC``'s state dict, in its order.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

from escsr.family.configuration import ESCConfig, LargeKernel, Mixer

Shape = tuple[int, ...]
Shapes = Iterator[tuple[str, Shape]]

DYNAMIC_KERNEL_SIZE = 3
"""Side of the kernels that ConvAttention makes of each image."""
LDA_NEIGHBOURS = 3
"""Upsampler "lda": side of the square of neighbours that a pixel attends to."""
LDA_GROUPS = 2
"""Groups of channels, each of which is sampled at places of its own."""
LDA_REDUCTION = 4
"""Channels of the features over channels of queries and keys."""


def weight_shapes(config: ESCConfig) -> dict[str, Shape]:
    """The name and shape of every array of weights of a network.

    A configuration may ask for any number of layers: check their number first where it comes from
    a file.
    """
    return dict(_network(config))


def count_weights(config: ESCConfig) -> int:
    """Number of trainable values of a network."""
    return sum(math.prod(shape) for _, shape in _network(config))


def dynamic_hidden_dim(pdim: int, kind: LargeKernel) -> int:
    """Hidden channels of the network that makes the dynamic kernel; at least 1."""
    return max(1, pdim // (2 if kind == "dense" else 4))


def enlarging_steps(scale: int) -> list[int]:
    """By what a stack of convolutions enlarges step by step: 4 -> [2, 2], 3 -> [3]."""
    return [3] if scale == 3 else [2] * int(math.log2(scale))


def _network(config: ESCConfig) -> Shapes:
    dim, channels = config.dim, 3 * config.unshuffle**2
    yield from _convolution("shallow", channels, dim, 3)
    if config.share_large_kernel and "convolution" in (config.first_mixer, config.layer_mixer):
        yield from _large_kernel("shared_large_kernel", config)
    for index in range(config.num_blocks):
        yield from _block(f"blocks.{index}", config)
    if config.norm_before_last_conv:
        yield from _norm("norm", dim)
    yield from _convolution("deep", dim, dim, 3)
    if config.feature_skip:
        yield from _convolution("feature_skip.expand", channels, 2 * dim, 1)
        yield from _depthwise("feature_skip.depthwise", 2 * dim, 7)
        yield from _convolution("feature_skip.reduce", 2 * dim, dim, 1)
    yield from _reconstruction(config)


def _block(name: str, config: ESCConfig) -> Shapes:
    dim = config.dim
    yield from _norm(f"{name}.norm_in", dim)
    yield from _feed_forward(f"{name}.feed_forward", dim, config.first_expansion)
    yield from _norm(f"{name}.norm_attention", dim)
    yield from _mixer(f"{name}.attention", config, config.first_mixer)
    for index in range(config.num_conv_layers):
        layer = f"{name}.conv_layers.{index}"
        if config.norm_in_conv_layers:
            yield from _norm(f"{layer}.norm", dim)
        yield from _feed_forward(f"{layer}.feed_forward", dim, config.expansion)
        yield from _mixer(f"{layer}.conv_attention", config, config.layer_mixer)
    yield from _norm(f"{name}.norm_out", dim)
    yield from _convolution(f"{name}.conv_out", dim, dim, 3)


def _feed_forward(name: str, dim: int, expansion: float) -> Shapes:
    hidden = int(dim * expansion)
    yield from _convolution(f"{name}.expand", dim, hidden, 1)
    yield from _depthwise(f"{name}.depthwise", hidden, 3)
    yield from _convolution(f"{name}.reduce", hidden, dim, 1)


def _mixer(name: str, config: ESCConfig, kind: Mixer) -> Shapes:
    return _attention(name, config) if kind == "window" else _conv_attention(name, config)


def _attention(name: str, config: ESCConfig) -> Shapes:
    dim = config.dim
    yield from _convolution(f"{name}.query_key_value", dim, 3 * dim, 1)
    yield from _position_bias(f"{name}.position_bias", config)
    if config.attention_gate:
        yield from _depthwise(f"{name}.gate.depthwise", dim, 3)
        yield from _convolution(f"{name}.gate.pointwise", dim, dim, 1)
    yield from _convolution(f"{name}.output_projection", dim, dim, 1)


def _position_bias(name: str, config: ESCConfig) -> Shapes:
    if config.position_bias == "table":
        yield f"{name}.table", (config.num_heads, (2 * config.window_size - 1) ** 2)
        return
    hidden, rank = config.position_hidden_dim, config.position_rank
    yield f"{name}.to_hidden", (2 + 4 * config.position_frequencies, hidden)
    yield f"{name}.hidden_bias", (1, hidden)
    yield f"{name}.to_query", (config.num_heads, hidden, rank)
    yield f"{name}.to_key", (config.num_heads, hidden, rank)


def _conv_attention(name: str, config: ESCConfig) -> Shapes:
    if config.dynamic_kernel:
        hidden = dynamic_hidden_dim(config.pdim, config.large_kernel)
        taps = DYNAMIC_KERNEL_SIZE**2
        yield from _convolution(f"{name}.dynamic_kernel.to_hidden", config.pdim, hidden, 1)
        yield from _convolution(f"{name}.dynamic_kernel.to_kernel", hidden, config.pdim * taps, 1)
    if not config.share_large_kernel:
        yield from _large_kernel(f"{name}.own_kernel", config)
    yield from _convolution(f"{name}.aggregate", config.dim, config.dim, 1)


def _large_kernel(name: str, config: ESCConfig) -> Shapes:
    channels, side = config.pdim, config.large_kernel_size
    if config.large_kernel == "dense":
        yield f"{name}.weights.0", (channels, channels, side, side)
    else:
        yield f"{name}.weights.0", (channels, channels, 1, 1)
        yield f"{name}.weights.1", (channels, 1, side, side)


def _reconstruction(config: ESCConfig) -> Shapes:
    match config.upsampler:
        case "pixelshuffledirect":
            channels = 3 * config.inner_scale**2
            return _convolution("reconstruction.to_subpixels", config.dim, channels, 3)
        case "pixelshuffle":
            return _pixelshuffle(config)
        case "nearest+conv" | "conv+nearest":
            return _nearest_stack(config)
        case "dysample":
            return _dysample(config)
        case "lte":
            return _local_texture(config)
        case "transpose+conv":
            return _transposed(config)
        case "lda":
            return _local_attention(config)
        case "pa_up":
            return _pixel_attention(config)


def _pixelshuffle(config: ESCConfig) -> Shapes:
    inner, place = config.upsampler_dim, 2
    yield from _layer(0, config.dim, inner)
    for factor in enlarging_steps(config.inner_scale):
        yield from _layer(place, inner, inner * factor**2)
        place += 2
    yield from _layer(place, inner, 3)


def _nearest_stack(config: ESCConfig) -> Shapes:
    dim, steps = config.dim, len(enlarging_steps(config.inner_scale))
    first = 1 if config.upsampler == "nearest+conv" else 0
    for step in range(steps):
        yield from _layer(first + 3 * step, dim, dim)
    yield from _layer(3 * steps, dim, dim)
    yield from _layer(3 * steps + 2, dim, 3)


def _layer(place: int, inputs: int, outputs: int) -> Shapes:
    return _convolution(f"reconstruction.layers.{place}", inputs, outputs, 3)


def _dysample(config: ESCConfig) -> Shapes:
    inner = config.upsampler_dim
    offsets = 2 * config.dysample_groups * config.inner_scale**2
    if inner != config.dim:
        yield from _convolution("reconstruction.narrow", config.dim, inner, 3)
    yield from _convolution("reconstruction.sampler.offset", inner, offsets, 1)
    yield "reconstruction.sampler.scope.weight", (offsets, inner, 1, 1)
    yield from _convolution("reconstruction.sampler.mix", inner, 3, 1)


def _local_texture(config: ESCConfig) -> Shapes:
    texture = config.texture_dim
    yield from _convolution("reconstruction.amplitude", config.dim, texture, 3)
    yield from _convolution("reconstruction.frequency", config.dim, texture, 3)
    yield "reconstruction.phase.weight", (texture // 2, 2)
    widths = [texture, *[config.texture_mlp_dim] * config.texture_mlp_layers, 3]
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        yield f"reconstruction.decoder.{2 * index}.weight", (outputs, inputs)
        yield f"reconstruction.decoder.{2 * index}.bias", (outputs,)


def _transposed(config: ESCConfig) -> Shapes:
    *before, last = enlarging_steps(config.inner_scale)
    place = 0
    for factor in before:
        yield from _transposed_layer(place, config.dim, config.dim, factor)
        place += 2
    yield from _transposed_layer(place, config.dim, 3, last)
    yield from _layer(place + 1, 3, 3)


def _transposed_layer(place: int, inputs: int, outputs: int, factor: int) -> Shapes:
    side = 3 if factor == 3 else 4
    yield f"reconstruction.layers.{place}.weight", (inputs, outputs, side, side)
    yield f"reconstruction.layers.{place}.bias", (outputs,)


def _pixel_attention(config: ESCConfig) -> Shapes:
    inputs, inner, place = config.dim, config.upsampler_dim, 0
    for _ in enlarging_steps(config.inner_scale):
        yield from _layer(place + 1, inputs, inner)
        yield from _convolution(f"reconstruction.layers.{place + 2}.gate", inner, inner, 1)
        yield from _layer(place + 4, inner, inner)
        inputs, place = inner, place + 6
    yield from _layer(place, inner, 3)


def _local_attention(config: ESCConfig) -> Shapes:
    name, inner = "reconstruction.attention", config.upsampler_dim
    hidden, places = inner // LDA_REDUCTION, LDA_NEIGHBOURS**2
    in_group = hidden // LDA_GROUPS
    if inner != config.dim:
        yield from _convolution("reconstruction.narrow", config.dim, inner, 3)
    yield f"{name}.position_bias", (places, hidden)
    yield from _norm(f"{name}.norm", inner)
    yield f"{name}.to_query.weight", (hidden, inner, 1, 1)
    yield f"{name}.to_key.weight", (hidden, inner, 1, 1)
    yield f"{name}.offset_depthwise.weight", (in_group, 1, 3, 3)
    yield from _norm(f"{name}.offset_norm", in_group)
    yield from _convolution(f"{name}.to_offset", in_group, 2 * places, 3)
    yield from _convolution("reconstruction.to_image", inner, 3, 3)


def _convolution(name: str, inputs: int, outputs: int, side: int) -> Shapes:
    yield f"{name}.weight", (outputs, inputs, side, side)
    yield f"{name}.bias", (outputs,)


def _depthwise(name: str, channels: int, side: int) -> Shapes:
    yield f"{name}.weight", (channels, 1, side, side)
    yield f"{name}.bias", (channels,)


def _norm(name: str, dim: int) -> Shapes:
    yield f"{name}.weight", (dim,)
    yield f"{name}.bias", (dim,)
