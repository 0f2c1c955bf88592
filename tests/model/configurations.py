"""Small configurations, chosen ones and random ones of the whole family; without torch."""

from typing import Any

from hypothesis import strategies as st

from escsr.family import ESCConfig
from escsr.family.configuration import Upsampler

SMALL: dict[str, Any] = {
    "scale": 2,
    "dim": 8,
    "pdim": 4,
    "num_blocks": 2,
    "num_conv_layers": 2,
    "window_size": 4,
    "num_heads": 2,
    "large_kernel_size": 5,
}
FEW_PARAMETERS: dict[str, Any] = {
    "first_expansion": 1.5,
    "norm_in_conv_layers": True,
    "norm_before_last_conv": True,
    "image_skip": "bicubic",
    "large_kernel": "decomposed",
}
"""What makes an ESC an ESC-FP."""


def small_config(**overrides: Any) -> ESCConfig:
    """A configuration that runs in milliseconds."""
    return ESCConfig(**{**SMALL, **overrides})


FACTORS = [(1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (1, 3), (1, 4), (2, 2)]
"""(scale, unshuffle): from features to pixels by 1 to 4."""
UPSAMPLERS: list[Upsampler] = [
    *("pixelshuffledirect", "pixelshuffle", "nearest+conv", "conv+nearest", "dysample", "lte"),
    *("transpose+conv", "lda", "pa_up"),
]


@st.composite
def configurations(draw: st.DrawFn) -> ESCConfig:
    """Any small network of the family or between its members, with at least 8 channels.

    A LayerNorm over few channels divides by next to nothing where they happen to be equal, and
    makes of float32's rounding what it likes.
    """
    kind = draw(st.sampled_from(UPSAMPLERS))
    return ESCConfig(
        dim=draw(st.sampled_from([8, 12])),
        pdim=draw(st.sampled_from([1, 4, 8])),
        num_blocks=draw(st.integers(1, 2)),
        num_conv_layers=draw(st.integers(0, 2)),
        window_size=draw(st.sampled_from([1, 2, 3, 4, 7, 8])),
        num_heads=draw(st.sampled_from([1, 2, 4])),
        large_kernel_size=draw(st.sampled_from([1, 3, 5, 9, 13])),
        expansion=draw(st.sampled_from([1.25, 2.0])),
        first_expansion=draw(st.sampled_from([1.5, 2.0, 4.0])),
        upsampler=kind,
        feature_skip=draw(st.booleans()),
        position_bias=draw(st.sampled_from(["table", "implicit"])),
        position_rank=draw(st.integers(1, 4)),
        position_hidden_dim=draw(st.integers(1, 8)),
        position_frequencies=draw(st.integers(0, 3)),
        first_mixer=draw(st.sampled_from(["window", "window", "convolution"])),
        layer_mixer=draw(st.sampled_from(["convolution", "convolution", "window"])),
        large_kernel=draw(st.sampled_from(["dense", "decomposed"])),
        **{name: draw(st.booleans()) for name in _SWITCHES},
        **draw(_upsampling(kind)),
    )


_SWITCHES = (
    "norm_in_conv_layers",
    "norm_before_last_conv",
    "attention_gate",
    "dynamic_kernel",
    "share_large_kernel",
)


@st.composite
def _upsampling(draw: st.DrawFn, kind: Upsampler) -> dict[str, Any]:
    """What fits a kind of upsampler."""
    if kind == "lte":
        return {
            "scale": draw(st.integers(1, 4)),
            "image_skip": "none",
            "texture_dim": draw(st.sampled_from([2, 6])),
            "texture_mlp_dim": draw(st.integers(1, 8)),
            "texture_mlp_layers": draw(st.integers(0, 2)),
        }
    enlarges = kind not in ("pixelshuffledirect", "dysample")
    scale, unshuffle = draw(st.sampled_from(FACTORS[1:] if enlarges else FACTORS))
    has_skip = kind == "pixelshuffledirect" and unshuffle == 1
    skips = ["nearest", "bicubic", "none"] if has_skip else ["none"]
    return {
        "scale": scale,
        "unshuffle": unshuffle,
        "image_skip": draw(st.sampled_from(skips)),
        # LayerNorms of "lda" are over an eighth of the channels: of one, or of enough.
        "upsampler_dim": draw(st.sampled_from([8, 64] if kind == "lda" else [4, 8, 12])),
        "dysample_groups": draw(st.sampled_from([1, 2, 4])),
    }
