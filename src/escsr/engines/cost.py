"""What a network needs in memory: in PyTorch, from its configuration; in the core, as it says."""

import math
from dataclasses import dataclass

from escsr.core.network import Network
from escsr.family.configuration import ESCConfig

_MIB = 2**20
_FLOAT_BYTES = 4
_FIXED_BYTES = 64 * _MIB
_AROUND_CORE_BYTES = 32 * _MIB
"""What cutting and blending tiles leaves behind in the process's heap."""
_ANY_SIZE_BYTES = 64 * _MIB
"""What the head of ESC+LTE needs at a time on a CPU, whatever the size of its output."""
_ANY_SIZE_BYTES_ELSEWHERE = 192 * _MIB
"""The same on other devices: 16384 queries at once, of some 8 KB each, and the pixels around."""
_SLACK = 1.18
_FOREIGN_FLOATS_PER_PIXEL = 1024
_FOREIGN_WINDOW_SIZE = 32
"""For a network that is not an ESC and so tells neither: a generous guess."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkCost:
    """What a network needs beside its weights."""

    scale: float
    """Its factor; the larger of both sides' where they differ."""
    window_size: int
    """Grid on which tiles must start, in LR pixels."""
    bytes_per_pixel: int
    """Peak working memory per LR pixel of a tile."""
    fixed_bytes: int = _FIXED_BYTES
    """What any tile needs, however small."""


def network_cost(
    config: ESCConfig | None,
    *,
    scale: float,
    attention_backend: str | None = None,
    position_rank: int = 0,
    device_type: str = "cpu",
) -> NetworkCost:
    """Estimate a network's working memory from its configuration.

    The live feature maps at the three widest points (attention, feed-forward, upsampler) are
    counted; ``tests/upscaling/test_memory.py`` compares with a measured process.

    Args:
        config: None for a network that is not an ESC.
        scale: the factor to enlarge by.
        attention_backend: "naive" stores the scores.
        position_rank: what each head's queries, keys and so values grow by.
        device_type: such as "cuda"; other devices than a CPU do more of ESC+LTE's at a time.
    """
    if config is None:
        floats, window = _FOREIGN_FLOATS_PER_PIXEL, _FOREIGN_WINDOW_SIZE
    else:
        window = config.window_pixels
        attention = 12 * config.dim + 6 * config.num_heads * position_rank
        if attention_backend == "naive":
            attention += 3 * config.num_heads * config.window_size**2
        widest = int(config.dim * max(config.expansion, config.first_expansion))
        body = max(attention, 4 * config.dim + 4 * widest)
        floats = max(body, _upsampler_floats(config, scale)) / config.unshuffle**2
    fixed = _FIXED_BYTES
    if config is not None and config.is_arbitrary_scale:
        fixed += _ANY_SIZE_BYTES if device_type == "cpu" else _ANY_SIZE_BYTES_ELSEWHERE
    return NetworkCost(
        scale=scale,
        window_size=window,
        bytes_per_pixel=math.ceil(floats * _FLOAT_BYTES * _SLACK),
        fixed_bytes=fixed,
    )


def cost_on_core(core: Network, *, scale: float) -> NetworkCost:
    """The same where the core runs the network: by what it says of two sizes."""
    small, large = 256, 512
    any_size = core.config.is_arbitrary_scale
    taken = [
        core.plan((side, side), (edge, edge) if any_size else None).memory_bytes
        for side, edge in ((side, round(side * scale)) for side in (small, large))
    ]
    bytes_per_pixel = math.ceil((taken[1] - taken[0]) / (large**2 - small**2))
    return NetworkCost(
        scale=scale,
        window_size=core.config.window_pixels,
        bytes_per_pixel=bytes_per_pixel,
        fixed_bytes=max(0, taken[0] - bytes_per_pixel * small**2) + _AROUND_CORE_BYTES,
    )


def _upsampler_floats(config: ESCConfig, scale: float) -> float:
    """Live values per pixel of the features, in the upsampler and in what comes after it.

    Most upsamplers hold a map of all their channels at the size of the result, twice: that is more
    than all of the body. What they hold beside it was measured.
    """
    area = (scale * config.unshuffle) ** 2
    image = 2 * config.dim + 12 * area
    beside = 7 * config.dim
    match config.upsampler:
        case "nearest+conv" | "conv+nearest":
            return max(image, beside + 2 * config.dim * area)
        case "pixelshuffle":
            return max(image, beside + 2 * config.upsampler_dim * area)
        case "pa_up":
            return max(image, beside + 2.5 * config.upsampler_dim * area)
        case "lda":
            places = 18 * 2 + 4  # offsets of both groups, and one place of each
            return max(image, beside + (5.5 * config.upsampler_dim + places) * area)
        case "dysample":
            places = 2 * config.dysample_groups
            return max(image, beside + max(2.5 * config.upsampler_dim, 7 * places) * area)
        case "pixelshuffledirect" | "lte" | "transpose+conv":
            return image
