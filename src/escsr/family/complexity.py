"""Multiply-accumulates of a network, as the field counts them; without torch."""

from itertools import pairwise

from escsr.family.configuration import ESCConfig, Mixer
from escsr.family.weight_shapes import (
    DYNAMIC_KERNEL_SIZE,
    LDA_NEIGHBOURS,
    LDA_REDUCTION,
    dynamic_hidden_dim,
    enlarging_steps,
)


def count_macs(config: ESCConfig, height: int, width: int) -> int:
    """Multiply-accumulates of one forward pass on one image.

    Counted as in the paper's "#FLOPs" column: convolutions and both products of attention, on
    windows padded to their full size, 5 per normalised value and 1 per pooled value; activations,
    sums and the softmax are not.

    Args:
        config: the network.
        height: of the LR image, in pixels.
        width: of the LR image, in pixels.
    Source: ESC, arXiv:2503.06671, table 1; the convention is fvcore's, found by comparing with the
    published figures (tests/family/test_complexity.py).
    Differs: ESC-RIB's published figures (1825.8, 842.9 and 457.8 G) are higher by 80 for each pair
    of query and key in a window and layer, which we cannot explain (there, too).
    """
    rows, columns = -(-height // config.unshuffle), -(-width // config.unshuffle)
    w, pixels = config.window_size, rows * columns
    padded_pixels = -(-rows // w) * -(-columns // w) * w**2
    block = (
        _feed_forward(config.dim, config.first_expansion) * pixels
        + _mixer(config, config.first_mixer, pixels, padded_pixels)
        + config.num_conv_layers * _layer(config, pixels, padded_pixels)
        + 9 * config.dim**2 * pixels
        + 3 * _norm(config.dim) * pixels
    )
    channels = 3 * config.unshuffle**2
    ends = 9 * config.dim * (channels + config.dim) * pixels
    if config.norm_before_last_conv:
        ends += _norm(config.dim) * pixels
    if config.feature_skip:
        ends += 2 * config.dim * (channels + 49 + config.dim) * pixels
    return config.num_blocks * block + ends + pixels * _upsampler(config)


def _feed_forward(dim: int, expansion: float) -> int:
    hidden = int(dim * expansion)
    return 2 * dim * hidden + 9 * hidden


def _norm(dim: int) -> int:
    return 5 * dim


def _layer(config: ESCConfig, pixels: int, padded_pixels: int) -> int:
    per_pixel = _feed_forward(config.dim, config.expansion)
    if config.norm_in_conv_layers:
        per_pixel += _norm(config.dim)
    return per_pixel * pixels + _mixer(config, config.layer_mixer, pixels, padded_pixels)


def _mixer(config: ESCConfig, kind: Mixer, pixels: int, padded_pixels: int) -> int:
    if kind == "window":
        return _window_attention(config, pixels, padded_pixels)
    return _conv_attention(config, pixels)


def _window_attention(config: ESCConfig, pixels: int, padded_pixels: int) -> int:
    dim, tokens = config.dim, config.window_size**2
    score_dim, per_window_place = dim, 0
    if config.position_bias == "implicit":
        places = 2 + 4 * config.position_frequencies
        ranks = config.num_heads * config.position_rank
        score_dim = dim + ranks
        per_window_place = config.position_hidden_dim * (places + 2 * ranks)
    per_pixel = dim**2 + (dim * (9 + dim) if config.attention_gate else 0)
    per_padded_pixel = 3 * dim**2 + tokens * (score_dim + dim)
    return per_pixel * pixels + per_padded_pixel * padded_pixels + per_window_place * tokens


def _conv_attention(config: ESCConfig, pixels: int) -> int:
    p, k = config.pdim, config.large_kernel_size
    dynamic_taps = DYNAMIC_KERNEL_SIZE**2 if config.dynamic_kernel else 0
    merged_taps = max(k * k, dynamic_taps)
    if config.large_kernel == "dense":
        per_pixel = p * p * k * k + p * dynamic_taps
    else:
        per_pixel = p * p + p * merged_taps
    per_pixel += config.dim**2
    if not config.dynamic_kernel:
        return per_pixel * pixels
    hidden = dynamic_hidden_dim(p, config.large_kernel)
    return (per_pixel + p) * pixels + hidden * p * (1 + dynamic_taps)


def _upsampler(config: ESCConfig) -> int:
    """Per pixel of the features."""
    dim, inner, scale = config.dim, config.upsampler_dim, config.inner_scale
    match config.upsampler:
        case "pixelshuffledirect":
            return 9 * dim * 3 * scale**2
        case "pixelshuffle":
            areas = [1, *_areas(scale)]
            inside = sum(9 * inner**2 * area for area in areas[1:])
            return 9 * dim * inner + inside + 9 * inner * 3 * areas[-1]
        case "nearest+conv" | "conv+nearest":
            areas = [1, *_areas(scale)]
            steps = areas[1:] if config.upsampler == "nearest+conv" else areas[:-1]
            return 9 * dim**2 * (sum(steps) + areas[-1]) + 9 * dim * 3 * areas[-1]
        case "dysample":
            narrow = 9 * dim * inner if inner != dim else 0
            offsets = 4 * config.dysample_groups * scale**2 * inner
            return narrow + offsets + 3 * inner * scale**2
        case "lte":
            waves = config.texture_dim
            widths = [waves, *[config.texture_mlp_dim] * config.texture_mlp_layers, 3]
            inside = sum(before * after for before, after in pairwise(widths))
            return 2 * 9 * dim * waves + 4 * scale**2 * inside
        case "transpose+conv":
            return _transpose_conv(dim, scale)
        case "lda":
            return _local_attention(dim, inner, scale)
        case "pa_up":
            widths = [dim, *[inner] * (len(_areas(scale)) - 1)]
            steps = zip(widths, _areas(scale), strict=True)
            inside = sum((9 * width + 10 * inner) * inner * area for width, area in steps)
            return inside + 9 * inner * 3 * scale**2


def _transpose_conv(dim: int, scale: int) -> int:
    """Every pixel that comes in meets a whole kernel."""
    taps = 9 if scale == 3 else 16
    first = taps * dim * dim if scale == 4 else 0
    pixels_before_last = 4 if scale == 4 else 1
    return first + pixels_before_last * taps * dim * 3 + 9 * 3 * 3 * scale**2


def _local_attention(dim: int, inner: int, scale: int) -> int:
    """Interpolation is not counted, as torch's counter does not; both products of attention are."""
    hidden, places = inner // LDA_REDUCTION, LDA_NEIGHBOURS**2
    narrow = 9 * dim * inner if inner != dim else 0
    offsets = 9 * hidden + _norm(hidden) + 9 * hidden * 2 * places
    attention = places * (hidden + inner)
    at_result = offsets + attention + 9 * inner * 3
    return narrow + _norm(inner) + 2 * inner * hidden + at_result * scale**2


def _areas(scale: int) -> list[int]:
    """Pixels per pixel of the features after each step of a stack."""
    areas, side = list[int](), 1
    for step in enlarging_steps(scale):
        side *= step
        areas.append(side**2)
    return areas
