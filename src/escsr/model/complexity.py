"""What a network costs: parameters, and multiply-accumulates as the field counts them."""

from torch import nn

from escsr.model.config import ESCConfig
from escsr.model.convolutional_attention import DYNAMIC_KERNEL_SIZE


def count_parameters(network: nn.Module) -> int:
    """Number of trainable values; works on the meta device too."""
    return sum(parameter.numel() for parameter in network.parameters())


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
    published figures (tests/model/test_complexity.py).
    """
    pixels = height * width
    window_pixels = config.window_size**2
    padded_pixels = (
        -(-height // config.window_size) * -(-width // config.window_size) * window_pixels
    )
    block = (
        _feed_forward(config.dim, config.first_expansion) * pixels
        + 3 * config.dim**2 * padded_pixels
        + 2 * window_pixels * config.dim * padded_pixels
        + config.dim**2 * pixels
        + config.num_conv_layers * _conv_layer(config, pixels)
        + 9 * config.dim**2 * pixels
        + 3 * _norm(config.dim) * pixels
    )
    ends = 9 * config.dim * (3 + config.dim + 3 * config.scale**2) * pixels
    if config.norm_before_last_conv:
        ends += _norm(config.dim) * pixels
    return config.num_blocks * block + ends


def _feed_forward(dim: int, expansion: float) -> int:
    hidden = int(dim * expansion)
    return 2 * dim * hidden + 9 * hidden


def _norm(dim: int) -> int:
    return 5 * dim


def _conv_layer(config: ESCConfig, pixels: int) -> int:
    p, k = config.pdim, config.large_kernel_size
    dynamic_taps = DYNAMIC_KERNEL_SIZE**2
    if config.large_kernel == "dense":
        per_pixel = p * p * k * k + p * dynamic_taps
    else:
        per_pixel = p * p + p * k * k
    per_pixel += _feed_forward(config.dim, config.expansion) + config.dim**2 + p
    if config.norm_in_conv_layers:
        per_pixel += _norm(config.dim)
    per_image = config.hidden_dynamic_dim * p * (1 + dynamic_taps)
    return per_pixel * pixels + per_image
