"""What every way of running a network takes, whether as a tensor or as an array."""

from collections.abc import Callable, Sequence
from typing import TypeGuard, cast

from escsr.errors import ConfigurationError, ImageValueError


def require_image_batch(
    shape: Sequence[int], *, dtype: object, is_floating_point: bool, kind: str
) -> None:
    """Refuse what is no batch of RGB images.

    Args:
        shape: of what came.
        dtype: of its values.
        is_floating_point: whether these are.
        kind: what it is, with its article: "a tensor", "an array".
    Raises:
        ImageValueError: not four dimensions, not three channels, no image, an empty side, or
            integers.
    """
    if len(shape) != 4 or shape[1] != 3:
        raise ImageValueError(
            f"The network was given {kind} of shape {tuple(shape)}; it takes a batch of RGB "
            "images, (B, 3, H, W). Add the batch dimension with image[None], and give a grey "
            "image as three equal channels."
        )
    if shape[0] == 0:
        raise ImageValueError("The batch holds no image; it needs at least 1.")
    if 0 in shape[2:]:
        raise ImageValueError(
            f"The image is {shape[3]}x{shape[2]} pixels; both sides need at least 1."
        )
    if not is_floating_point:
        raise ImageValueError(
            f"The image is {kind} of {dtype}; the network takes floating-point RGB in [0, 1]. "
            "Divide 8-bit values by 255, 16-bit values by 65535."
        )


def two_whole_numbers(
    output_size: object, is_whole: Callable[[object], TypeGuard[int]]
) -> tuple[int, int]:
    """The (height, width) that a result is to have.

    Args:
        output_size: as it came.
        is_whole: whether something is a whole number.
    Raises:
        ConfigurationError: no two whole numbers of at least 1.
    """
    sides = cast(Sequence[object], output_size if isinstance(output_size, tuple | list) else ())
    numbers = [side for side in sides if is_whole(side) and side >= 1]
    if len(sides) != 2 or len(numbers) != 2:
        raise ConfigurationError(
            f"output_size is {output_size!r}; it must be two whole numbers of at least 1, "
            "(height, width)."
        )
    return numbers[0], numbers[1]
