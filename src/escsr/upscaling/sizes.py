"""Plan the passes for a requested output size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations_with_replacement
from operator import mul
from typing import TypedDict

from escsr.errors import ConfigurationError, ImageSizeError, NothingToEnlargeError

MAX_FACTOR = 16.0
"""The largest enlargement per side; beyond it a network only invents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeRequest:
    """What a caller asked for: a factor, or a size in pixels; nothing means the model's factor."""

    scale: float | None = None
    """Factor per side, at most ``MAX_FACTOR``, above 1 or, of a restorer, 1; need not be whole."""
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

    def as_options(self) -> "SizeOptions":
        """As the keyword arguments of a call."""
        return SizeOptions(
            scale=self.scale, width=self.width, height=self.height, longest=self.longest
        )


class SizeOptions(TypedDict, total=False):
    """A ``SizeRequest`` as the keyword arguments of a call."""

    scale: float | None
    width: int | None
    height: int | None
    longest: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Enlargement:
    """How an image of one size becomes an image of another."""

    passes: tuple[int, ...]
    """Factors of the models to run one after another, smallest first, since that costs least. Of a
    model for any size, the factor by which it is known."""
    sizes: tuple[tuple[int, int], ...]
    """(width, height) after each pass."""
    target_size: tuple[int, int]
    """(width, height) of the result; not larger than ``network_size``."""

    @property
    def network_size(self) -> tuple[int, int]:
        """(width, height) after the last pass."""
        return self.sizes[-1]

    def factors(self, width: int, height: int) -> tuple[float, ...]:
        """By what each pass enlarges a source of one size; the larger of both sides' factors."""
        before = ((width, height), *self.sizes[:-1])
        return tuple(
            max(after[0] / size[0], after[1] / size[1])
            for size, after in zip(before, self.sizes, strict=True)
        )

    @property
    def shrinks(self) -> bool:
        """Whether the result of the networks is larger than asked for."""
        return self.network_size != self.target_size


def plan_enlargement(
    width: int,
    height: int,
    request: SizeRequest,
    *,
    scales: Sequence[int],
    default_scale: int,
    makes_any_size: bool = False,
) -> Enlargement:
    """Choose the passes for one image.

    A model for any size makes it in one pass. Else the one model that is nearest above the factor
    is run and its result shrunk. Where no single model reaches it, models run one after another:
    as few passes as can be, and among those the product nearest above (6 is 2 x 3, 5 is 2 x 3
    shrunk, 8 is 2 x 4). A restorer runs for x1 alone.

    Args:
        width: of the source, in pixels.
        height: of the source, in pixels.
        request: what was asked for.
        scales: factors of the models at hand, each 1 or more; 1 is a restorer's.
        default_scale: the factor where ``request`` says nothing.
        makes_any_size: the model enlarges to any size.
    Raises:
        ConfigurationError: a factor that none of the models can be asked for.
        ImageSizeError: the result would be smaller than the source, absurdly large, or as large
            without a restorer.
    """
    if request.scale is not None:
        require_factor_of(request.scale, scales, makes_any_size=makes_any_size)
    target_size = _target_size(width, height, request, default_scale)
    factor = request.scale or max(target_size[0] / width, target_size[1] / height)
    restores = 1 in scales and not makes_any_size
    is_restorer = restores and max(scales) == 1
    _require_target(
        (width, height), target_size, factor, restores=restores, is_restorer=is_restorer
    )
    if makes_any_size:
        return Enlargement(passes=(max(scales),), sizes=(target_size,), target_size=target_size)
    passes = _choose_passes(factor, scales)
    sizes = tuple((width * grown, height * grown) for grown in accumulate(passes, mul))
    return Enlargement(passes=passes, sizes=sizes, target_size=target_size)


def require_factor(scale: float) -> None:
    """Refuse a factor that no model can be asked for.

    Raises:
        ConfigurationError: not a number, NaN, below 1, or above ``MAX_FACTOR``.
    """
    is_number = isinstance(scale, (int, float)) and not isinstance(scale, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not is_number or not 1 <= scale <= MAX_FACTOR:
        raise ConfigurationError(
            f"The scale is {scale!r}; it must be above 1 and at most {MAX_FACTOR:g}, such as 4 "
            "or 2.7."
        )


def require_factor_of(scale: float, scales: Sequence[int], *, makes_any_size: bool = False) -> None:
    """Refuse a factor that the models at hand cannot make.

    Args:
        scale: within the range of ``require_factor``.
        scales: factors of the models.
        makes_any_size: the model enlarges to any size, so that no factor makes it a restorer.
    Raises:
        ConfigurationError: 1 without a restorer, or more with nothing else.
    """
    if scale == 1 and (makes_any_size or 1 not in scales):
        raise ConfigurationError(
            f"The scale is {scale!r}; it must be above 1 and at most {MAX_FACTOR:g}, such as 4 "
            "or 2.7. A factor of 1 enlarges nothing, unless the model is a restorer (x1)."
        )
    if scale > 1 and max(scales) == 1 and not makes_any_size:
        raise ConfigurationError(
            f"The scale is {scale:g}, but the model is a restorer (x1): its result is as large as "
            "the image. Leave the scale out, and enlarge the result with another model."
        )


def _target_size(width: int, height: int, request: SizeRequest, default: int) -> tuple[int, int]:
    if request.width is not None and request.height is not None:
        return request.width, request.height
    if request.longest is not None:
        return _keeping_shape(width, height, request.longest / max(width, height))
    if request.width is not None:
        return request.width, _keeping_shape(width, height, request.width / width)[1]
    if request.height is not None:
        return _keeping_shape(width, height, request.height / height)[0], request.height
    return _keeping_shape(width, height, request.scale or default)


def _keeping_shape(width: int, height: int, factor: float) -> tuple[int, int]:
    return math.floor(width * factor + 0.5), math.floor(height * factor + 0.5)


def _require_target(
    size: tuple[int, int],
    target_size: tuple[int, int],
    factor: float,
    *,
    restores: bool,
    is_restorer: bool,
) -> None:
    """Refuse what the models do not make; ``restores`` says that one of them is a restorer."""
    width, height = target_size
    sizes = f"The image is {size[0]}x{size[1]} and the result would be {width}x{height}"
    is_smaller = width < size[0] or height < size[1]
    if is_restorer and target_size != size:
        raise ImageSizeError(
            f"{sizes}, but the model is a restorer (x1): its result is as large as the image. "
            "Leave the size out, and resize the result, or enlarge it with another model."
        )
    if is_smaller or (factor <= 1 and not restores):
        is_done = width <= size[0] and height <= size[1]
        kind = NothingToEnlargeError if is_done else ImageSizeError
        raise kind(
            f"{sizes}: there is nothing to enlarge. Ask for a larger size, or use an image editor "
            "to shrink."
        )
    if factor > MAX_FACTOR:
        raise ImageSizeError(
            f"{sizes}, {factor:.4g} times larger; at most {MAX_FACTOR:g} times is allowed."
        )


def _choose_passes(factor: float, scales: Sequence[int]) -> tuple[int, ...]:
    if factor == 1:
        return (1,)
    scales = [scale for scale in scales if scale > 1]
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
