"""One small network of every class of the family, with random weights."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from escsr.engines.engine import Floats
from escsr.family import ESCConfig, variant
from tests.networks import network_file, random_weights

if TYPE_CHECKING:
    from escsr.model import ESC

_SMALL = {
    "dim": 16,
    "pdim": 4,
    "num_blocks": 1,
    "num_conv_layers": 1,
    "window_size": 8,
    "num_heads": 2,
    "large_kernel_size": 5,
    "texture_dim": 8,
    "texture_mlp_dim": 12,
    "texture_mlp_layers": 2,
    "position_rank": 4,
    "position_hidden_dim": 6,
    "position_frequencies": 3,
}

_REAL_M = ("", "-pixelshuffledirect", "-pixelshuffle", "-dysample")
_REDUX = ("-transpose-conv", "-lda", "-pa-up")
_INNER_DIMS = {"esc-real-dysample": 16, "esc-real-m-lda": 64}
"""A LayerNorm of a group of 64 / 4 / 2 channels lets the offsets of "lda" differ."""

FAMILY: dict[str, ESCConfig] = {
    f"{name}-x{scale}": replace(
        variant(name, scale=scale),
        **_SMALL,
        upsampler_dim=_INNER_DIMS.get(name, 8),
    )
    for name, scale in [
        ("esc", 2),
        ("esc-light", 3),
        ("esc-fp", 4),
        ("esc-xl", 2),
        ("esc-real", 4),
        ("esc-real-dysample", 4),
        *((f"esc-real-m{kind}", scale) for kind in _REAL_M for scale in (1, 2, 3, 4)),
        ("esc-real-m-conv", 1),
        *((f"esc-real-m{kind}", scale) for kind in _REDUX for scale in (2, 3, 4)),
        ("esc-lte", 4),
        ("esc-rib", 2),
    ]
}
"""Name and factor -> what the class is, but for its size."""
FAMILY["esc-real-m-lda-x1"] = replace(FAMILY["esc-real-m-lda-x4"], scale=1, unshuffle=4)


def family_weights(name: str) -> dict[str, Floats]:
    """Random weights of a network of ``FAMILY``; its result stays near [0, 1]."""
    return random_weights(FAMILY[name])


def family_file(name: str) -> Path:
    """The file of that network."""
    return network_file(FAMILY[name])


def family_network(name: str) -> "ESC":
    """That network as a module of torch's."""
    from escsr.weights.building import network_of

    return network_of(FAMILY[name], family_weights(name)).requires_grad_(False)
