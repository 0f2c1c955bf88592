"""The named networks: one literal table."""

from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from escsr.errors import ConfigurationError, UnknownModelError
from escsr.model.config import ESCConfig

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
    "esc-tiny": ESCConfig(
        dim=32, pdim=8, num_blocks=2, num_conv_layers=4, window_size=16, num_heads=2
    ),
}
"""Name -> configuration at x4. The first four are the paper's; esc-tiny is ours, made to ship."""


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
