"""BT.601 luma, any pixels as 8-bit RGB, and colour beside opacity."""

from typing import Any

import numpy as np
import numpy.typing as npt

from escsr.errors import ImageValueError

_LUMA_WEIGHTS = (65.481, 128.553, 24.966)
"""Weights of R, G, B in [0, 1] that give Y of BT.601 in 16..235, before the offset of 16."""
_NEIGHBOURS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
_PIXELS_AT_ONCE = 1 << 20


def rgb_to_luma(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert RGB to the luma (Y) of BT.601 in studio range, without rounding it.

    Args:
        image: (B, 3, H, W) RGB in [0, 1], floating point.
    Returns:
        (B, 1, H, W) in [16/255, 235/255]; same dtype.
    Raises:
        ImageValueError: not floating point, or not three channels.
    Source: ITU-R BT.601, as MATLAB's ``rgb2ycbcr`` computes it.
    """
    if image.ndim != 4 or image.shape[1] != 3 or image.dtype.kind != "f":
        raise ImageValueError(
            f"Luma needs a floating-point array (B, 3, H, W); came {image.dtype} of shape "
            f"{image.shape}. Repeat a grey channel three times first."
        )
    red, green, blue = image[:, 0:1], image[:, 1:2], image[:, 2:3]
    of_red, of_green, of_blue = _LUMA_WEIGHTS
    return (of_red * red + of_green * green + of_blue * blue + 16.0) / 255.0


def to_rgb_uint8(
    pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16],
) -> npt.NDArray[np.uint8]:
    """Turn the pixels of any image file into 8-bit RGB, as networks and metrics are fed.

    Grey becomes three equal channels, alpha is dropped (the colour under it is kept), and 16 bits
    are rounded to the nearest of 8.

    Args:
        pixels: (H, W, C) of 8 or 16 bits; C is 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    Returns:
        (H, W, 3), contiguous and of its own memory.
    Raises:
        ImageValueError: another type or shape.
    """
    is_depth_known = pixels.dtype.name in ("uint8", "uint16")
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4 or not is_depth_known:
        raise ImageValueError(
            f"RGB needs uint8 or uint16 pixels of shape (H, W, C) with 1 to 4 channels; came "
            f"{pixels.dtype} of shape {pixels.shape}."
        )
    colour = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    if colour.dtype == np.uint16:
        colour = (colour.astype(np.uint32) * 255 + 32767) // 65535
    return np.array(colour, dtype=np.uint8, order="C")


def continue_colours(
    pixels: npt.NDArray[Any], *, reach_pixels: int = 12, wraps: bool = False
) -> npt.NDArray[Any]:
    """Continue visible colours into the surroundings that alpha hides altogether.

    So a filter that looks at colours alone sees no edge where opacity ends. Pixel by pixel
    outwards, a hidden colour becomes the mean of its known neighbours, which equals them where they
    are equal; colours further away, and those of pixels with any opacity, stay as they are.

    Args:
        pixels: (H, W, C) uint8, uint16 or float32, C = 2 or 4, ending in straight alpha.
        reach_pixels: how far.
        wraps: beyond each border lies the other end of the image, as in a texture that repeats.
    Returns:
        The same shape and dtype: ``pixels`` itself where there is nothing to do, else a copy.
    """
    known = pixels[..., -1] > 0
    if known.all() or not known.any():
        return pixels
    if wraps:
        inner = slice(reach_pixels, -reach_pixels)
        beyond = ((reach_pixels, reach_pixels), (reach_pixels, reach_pixels), (0, 0))
        padded = np.pad(pixels, beyond, mode="wrap")
        continued = continue_colours(padded, reach_pixels=reach_pixels)
        return np.ascontiguousarray(continued[inner, inner])
    result = pixels.copy()
    for _ in range(reach_pixels):
        around = np.pad(known, 1)
        height, width = known.shape
        near = np.zeros_like(known)
        for down, right in _NEIGHBOURS:
            near |= around[1 + down : 1 + down + height, 1 + right : 1 + right + width]
        near &= ~known
        if not near.any():
            break
        # Some rows at a time: where opacity is noise, a ring may hold half of all pixels.
        for top in range(0, height, max(1, _PIXELS_AT_ONCE // width)):
            rows = slice(top, top + max(1, _PIXELS_AT_ONCE // width))
            _fill_from_neighbours(result, around, near[rows], top)
        known |= near
    return result


def _fill_from_neighbours(
    pixels: npt.NDArray[Any], known: npt.NDArray[Any], chosen: npt.NDArray[Any], top: int
) -> None:
    """Set chosen colours, in rows from ``top`` on, to the mean of the known ones around them."""
    row, column = np.nonzero(chosen)
    row += top
    total = np.zeros((row.size, pixels.shape[2] - 1))
    count = np.zeros((row.size, 1))
    for down, right in _NEIGHBOURS:
        is_known = known[row + 1 + down, column + 1 + right][:, None]
        below = (row + down).clip(0, pixels.shape[0] - 1)
        beside = (column + right).clip(0, pixels.shape[1] - 1)
        total += pixels[below, beside, :-1] * is_known
        count += is_known
    # In float64 the mean of up to 8 equal numbers of 24 bits is that number.
    mean = total / count
    pixels[row, column, :-1] = mean if pixels.dtype.kind == "f" else np.rint(mean)
