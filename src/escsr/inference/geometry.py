"""Which passes of which models, and which final size, a wish for a larger image comes to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TypedDict

from escsr.errors import ConfigurationError, ImageSizeError

MAX_FACTOR = 16.0
"""The largest enlargement per side; beyond it a network only invents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeWish:
    """What a caller asked for: a factor, or a size in pixels; nothing means the model's factor."""

    scale: float | None = None
    """Factor per side, above 1 and at most ``MAX_FACTOR``; need not be whole."""
    width: int | None = None
    """Width of the result; alone, the height keeps the shape."""
    height: int | None = None
    """Height of the result; alone, the width keeps the shape."""
    longest: int | None = None
    """The longer side of the result; the other keeps the shape."""

    def __post_init__(self) -> None:
        """Check each value, and that they do not contradict each other."""
        if self.scale is not None:
            require_factor(self.scale)
        for name in ("width", "height", "longest"):
            _require_side(name, getattr(self, name))
        sized = self.width is not None or self.height is not None
        if (self.scale is not None) + sized + (self.longest is not None) > 1:
            raise ConfigurationError(
                f"The size was given twice: scale={self.scale}, width={self.width}, "
                f"height={self.height}, longest={self.longest}. Give a scale, or a width and/or "
                "a height, or the longest side."
            )


class SizeOptions(TypedDict, total=False):
    """A ``SizeWish`` as the keyword arguments of a call."""

    scale: float | None
    width: int | None
    height: int | None
    longest: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Enlargement:
    """How an image of one size becomes an image of another."""

    passes: tuple[int, ...]
    """Factors of the models to run one after another, smallest first, since that costs least."""
    network_size: tuple[int, int]
    """(width, height) after the last pass."""
    target_size: tuple[int, int]
    """(width, height) of the result; not larger than ``network_size``."""

    @property
    def shrinks(self) -> bool:
        """Whether the result of the networks is larger than asked for."""
        return self.network_size != self.target_size


def plan_enlargement(
    width: int, height: int, wish: SizeWish, *, scales: Sequence[int], default_scale: int
) -> Enlargement:
    """Choose the passes for one image.

    The one model that is nearest above the factor is run and its result shrunk. Where no single
    model reaches it, models run one after another: as few passes as can be, and among those the
    product nearest above (6 is 2 x 3, 5 is 2 x 3 shrunk, 8 is 2 x 4).

    Args:
        width: of the source, in pixels.
        height: of the source, in pixels.
        wish: what was asked for.
        scales: factors of the models at hand, each 2 or more.
        default_scale: the factor where ``wish`` says nothing.
    Raises:
        ImageSizeError: the result would be smaller than the source, as large, or absurdly large.
    """
    target_width, target_height = _target_size(width, height, wish, default_scale)
    factor = wish.scale or max(target_width / width, target_height / height)
    if target_width < width or target_height < height or factor <= 1:
        raise ImageSizeError(
            f"The image is {width}x{height} and the result would be "
            f"{target_width}x{target_height}: there is nothing to enlarge. Ask for a larger "
            "size, or use an image editor to shrink."
        )
    if factor > MAX_FACTOR:
        raise ImageSizeError(
            f"The image is {width}x{height} and the result would be "
            f"{target_width}x{target_height}, {factor:.4g} times larger; at most "
            f"{MAX_FACTOR:g} times is allowed."
        )
    passes = _choose_passes(factor, scales)
    product = math.prod(passes)
    return Enlargement(
        passes=passes,
        network_size=(width * product, height * product),
        target_size=(target_width, target_height),
    )


def require_factor(scale: float) -> None:
    """Refuse a factor that cannot be.

    Raises:
        ConfigurationError: not a number, NaN, 1 or less, or above ``MAX_FACTOR``.
    """
    is_number = isinstance(scale, (int, float)) and not isinstance(scale, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not is_number or not 1 < scale <= MAX_FACTOR:
        reason = " A factor of 1 enlarges nothing, and less would shrink." if scale == 1 else ""
        raise ConfigurationError(
            f"The scale is {scale!r}; it must be above 1 and at most {MAX_FACTOR:g}, such as 4 "
            f"or 2.7.{reason}"
        )


def _target_size(width: int, height: int, wish: SizeWish, default: int) -> tuple[int, int]:
    if wish.width is not None and wish.height is not None:
        return wish.width, wish.height
    if wish.longest is not None:
        return _keeping_shape(width, height, wish.longest / max(width, height))
    if wish.width is not None:
        return wish.width, _keeping_shape(width, height, wish.width / width)[1]
    if wish.height is not None:
        return _keeping_shape(width, height, wish.height / height)[0], wish.height
    return _keeping_shape(width, height, wish.scale or default)


def _keeping_shape(width: int, height: int, factor: float) -> tuple[int, int]:
    return math.floor(width * factor + 0.5), math.floor(height * factor + 0.5)


def _choose_passes(factor: float, scales: Sequence[int]) -> tuple[int, ...]:
    count = 1
    while max(scales) ** count < factor:
        count += 1
    reaching = [
        passes
        for passes in combinations_with_replacement(sorted(scales), count)
        if math.prod(passes) >= factor
    ]
    return min(reaching, key=math.prod)


def _require_side(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name} is {value!r}; it must be a whole number of pixels, >= 1.")
