"""The named networks: one literal table."""

from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from escsr.errors import ConfigurationError, UnknownModelError
from escsr.family.configuration import ESCConfig

_REAL = ESCConfig(
    num_blocks=10,
    expansion=2.0,
    norm_in_conv_layers=True,
    image_skip="none",
    feature_skip=True,
    upsampler="nearest+conv",
)

VARIANTS: dict[str, ESCConfig] = {
    "esc": ESCConfig(),
    "esc-light": ESCConfig(num_blocks=3),
    "esc-fp": ESCConfig(
        dim=48,
        num_heads=3,
        first_expansion=1.5,
        norm_in_conv_layers=True,
        norm_before_last_conv=True,
        image_skip="bicubic",
        large_kernel="decomposed",
    ),
    "esc-xl": ESCConfig(
        dim=192,
        pdim=48,
        num_blocks=8,
        window_size=48,
        num_heads=12,
        norm_in_conv_layers=True,
    ),
    "esc-real": _REAL,
    "esc-real-dysample": replace(_REAL, upsampler="dysample", upsampler_dim=64),
    "esc-real-m": replace(_REAL, upsampler="conv+nearest"),
    "esc-real-m-pixelshuffledirect": replace(_REAL, upsampler="pixelshuffledirect"),
    "esc-real-m-pixelshuffle": replace(_REAL, upsampler="pixelshuffle"),
    "esc-real-m-dysample": replace(_REAL, upsampler="dysample"),
    "esc-real-m-conv": replace(_REAL, scale=1, upsampler="pixelshuffledirect"),
    "esc-real-m-transpose-conv": replace(_REAL, upsampler="transpose+conv", upsampler_dim=64),
    "esc-real-m-lda": replace(_REAL, upsampler="lda", upsampler_dim=64),
    "esc-real-m-pa-up": replace(_REAL, upsampler="pa_up", upsampler_dim=64),
    "esc-lte": ESCConfig(upsampler="lte", image_skip="none"),
    "esc-rib": ESCConfig(
        window_size=64,
        first_expansion=4.0,
        norm_before_last_conv=True,
        position_bias="implicit",
        attention_gate=True,
    ),
    "esc-small": ESCConfig(
        dim=48, pdim=16, num_blocks=3, num_conv_layers=4, window_size=16, num_heads=3
    ),
    "esc-tiny": ESCConfig(
        dim=32, pdim=8, num_blocks=2, num_conv_layers=4, window_size=16, num_heads=2
    ),
}
"""Name -> configuration at x4 (of the restorer esc-real-m-conv at x1). esc-small and
esc-tiny are ours, made to ship; esc-real-m-transpose-conv, -lda and -pa-up are traiNNer-redux's;
the others are the paper's, of its official code, and ESC-RIB's (arXiv:2603.06738)."""

_OTHER_SCALES: dict[str, tuple[int, ...]] = {
    "esc-real": (4,),
    "esc-real-dysample": (4,),
    "esc-real-m": (1, 2, 3, 4),
    "esc-real-m-pixelshuffledirect": (1, 2, 3, 4),
    "esc-real-m-pixelshuffle": (1, 2, 3, 4),
    "esc-real-m-dysample": (1, 2, 3, 4),
    "esc-real-m-conv": (1,),
}


_UNSHUFFLED = tuple(name for name, scales in _OTHER_SCALES.items() if scales == (1, 2, 3, 4))
"""ESC-Real-M: at x1 and x2 pixels become channels, so that its features are enlarged by 3 or 4.
Not traiNNer-redux's networks, unless asked for by ``unshuffle``."""


def variant_scales(name: str) -> tuple[int, ...]:
    """The factors that a variant was published for; others can be built too.

    Of esc-lte these are the factors it is trained between; it takes any.
    """
    return _OTHER_SCALES.get(name, (2, 3, 4))


def variant(name: str, *, scale: int, **overrides: Any) -> ESCConfig:
    """The configuration of a named network at a scale.

    Args:
        name: a key of ``VARIANTS``.
        scale: upscaling factor per side, an integer >= 1.
        overrides: fields of ``ESCConfig`` to change.
    Raises:
        UnknownModelError: no such name; the message lists the nearest.
        ConfigurationError: the scale or an override is not allowed.
    """
    if name not in VARIANTS:
        raise UnknownModelError(unknown_name_message(name, list(VARIANTS)))
    if scale in (1, 2) and name in _UNSHUFFLED:
        overrides = {"unshuffle": 4 // scale, **overrides}
    try:
        return replace(VARIANTS[name], scale=scale, **overrides)
    except TypeError as error:
        raise ConfigurationError(
            f"{error}; the fields are {', '.join(VARIANTS[name].to_dict())}."
        ) from error


def unknown_name_message(name: str, known: list[str]) -> str:
    """Say that a name is unknown, what is near it, and what there is."""
    near = get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"There is no model named {name!r}.{hint} The names are {', '.join(known)}."
