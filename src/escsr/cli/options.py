"""The values of the options of ``escsr upscale``, checked before any work."""

import math
import re
from collections.abc import Collection
from typing import Literal

from escsr.errors import ConfigurationError
from escsr.images.formats import WRITABLE_SUFFIXES

TileChoice = Literal["auto", "whole"] | int
"""Side of a tile in pixels of the input, or who chooses it."""

Existing = Literal["refuse", "overwrite", "skip"]
"""What happens to a file that already stands where a result would go."""

BYTES_OF_UNIT = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}


def parse_tile(text: str) -> TileChoice:
    """Read ``--tile``: ``auto``, ``whole`` (also ``0``), or a side in pixels of the input.

    Raises:
        ConfigurationError: anything else.
    """
    word = text.strip().lower()
    if word == "auto":
        return "auto"
    if word in ("whole", "0"):
        return "whole"
    if word.isascii() and word.isdigit():
        return int(word)
    raise ConfigurationError(
        f"--tile is {text!r}; it must be auto, a side in pixels such as 256, or 0 for no tiles."
    )


def parse_memory(text: str | None, *, option: str = "--memory") -> int | None:
    """Read an amount of memory such as ``2GB``, ``1.5GiB`` or ``800M``.

    Returns:
        Bytes; None where nothing was asked for.
    Raises:
        ConfigurationError: not a positive amount in a known unit.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", text.strip().upper(), re.ASCII)
    num_bytes = int(float(match[1]) * BYTES_OF_UNIT[match[2] or ""]) if match else 0
    if num_bytes < 1:
        raise ConfigurationError(
            f"{option} is {text!r}; it must be an amount such as 2GB, 1.5GiB or 800MB."
        )
    return num_bytes


def parse_format(text: str | None) -> str | None:
    """Read ``--format``: ``png``, ``.png`` and ``PNG`` all give ``.png``.

    Raises:
        ConfigurationError: not a format that can be written.
    """
    if text is None:
        return None
    suffix = "." + text.strip().lower().removeprefix(".")
    if suffix not in WRITABLE_SUFFIXES:
        raise ConfigurationError(
            f"--format is {text!r}; it must be one of {suffix_names(WRITABLE_SUFFIXES)}."
        )
    return suffix


def suffix_names(suffixes: Collection[str]) -> str:
    """Suffixes as words for a message: ``avif, jpg, png``."""
    return ", ".join(sorted(suffix.removeprefix(".") for suffix in suffixes))


def check_name_suffix(text: str | None) -> None:
    """Refuse a ``--suffix`` that would lead out of the folder.

    Raises:
        ConfigurationError: it holds a path separator.
    """
    if text is not None and any(sign in text for sign in "/\\\0"):
        raise ConfigurationError(
            f"--suffix is {text!r}; it is a part of a file name such as _big, without slashes."
        )


def existing_rule(*, overwrite: bool, skip_existing: bool) -> Existing:
    """What ``--overwrite`` and ``--skip-existing`` ask for.

    Raises:
        ConfigurationError: both at once.
    """
    if overwrite and skip_existing:
        raise ConfigurationError("Give --overwrite or --skip-existing, not both.")
    if overwrite:
        return "overwrite"
    return "skip" if skip_existing else "refuse"


def parse_max_pixels(megapixels: float | None) -> int | None:
    """Read ``--max-megapixels`` into pixels; None where nothing was asked for.

    Raises:
        ConfigurationError: not a number above 0.
    """
    if megapixels is None:
        return None
    if not (math.isfinite(megapixels) and megapixels > 0):
        raise ConfigurationError(
            f"--max-megapixels is {megapixels:g}; it must be a number above 0, such as 500."
        )
    return max(1, int(megapixels * 1e6))
