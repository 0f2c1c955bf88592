"""Resize with a Lanczos kernel, as libvips does it: streaming, antialiased, aware of alpha."""

import math

import numpy as np
import pyvips

from escsr.images.decoding import Pixels
from escsr.images.forked_process import require_threads_of_libvips
from escsr.images.metadata import VipsImage
from escsr.images.output_checks import check_kind, check_pixels

_KERNEL_REACH = 4
"""Of Lanczos and bicubic kernels, in pixels of the smaller image."""


def resize_pixels(
    pixels: Pixels, *, width: int, height: int, weighs_opacity: bool = True, wraps: bool = False
) -> Pixels:
    """Resize with a Lanczos kernel, antialiased.

    Args:
        pixels: (H, W, C) uint8 or uint16.
        width: of the result, in pixels.
        height: of the result, in pixels.
        weighs_opacity: whether colour is weighed by the alpha beside it, which leaves none where
            that is 0; else each channel is resized by itself.
        wraps: whether beyond a border lies the other end, as in a texture that repeats; else the
            border's own pixels.
    Returns:
        (height, width, C), same dtype.
    Raises:
        ImageValueError: another dtype or shape.
        ImageSizeError: a side is not positive.
        ImageError: in a process forked after libvips had worked.
    """
    check_pixels(pixels)
    check_kind(width, height, pixels.shape[2], 8 * pixels.dtype.itemsize)
    require_threads_of_libvips()
    rows, columns, channels = pixels.shape
    form = "uchar" if pixels.dtype == np.uint8 else "ushort"
    data = np.ascontiguousarray(pixels)
    image = pyvips.Image.new_from_memory(data.data, columns, rows, channels, form)
    left = top = 0
    if wraps:
        around, above = repeat_for_resizing(columns, width), repeat_for_resizing(rows, height)
        left, top = around * width // columns, above * height // rows
        # libvips computes only what is cropped out again.
        image = image.embed(around, above, columns + 2 * around, rows + 2 * above, extend="repeat")
    larger = resized(image, width + 2 * left, height + 2 * top, weighs_opacity=weighs_opacity)
    result = larger.crop(left, top, width, height).write_to_memory()
    return np.frombuffer(result, dtype=pixels.dtype).reshape(height, width, channels)


def repeat_for_resizing(length: int, target: int) -> int:
    """How many pixels of an axis's other end go before it to be resized with it.

    Enough for the kernel, and as many as become whole pixels.
    """
    unit = length // math.gcd(length, target)
    return math.ceil(_KERNEL_REACH * max(1, length / target) / unit) * unit


def resized(image: VipsImage, width: int, height: int, *, weighs_opacity: bool = True) -> VipsImage:
    """Resize with a Lanczos kernel, antialiased.

    Args:
        image: 8 or 16-bit, 1 to 4 channels, the even ones ending in straight alpha.
        width: of the result, in pixels.
        height: of the result, in pixels.
        weighs_opacity: whether colour is premultiplied by alpha meanwhile.
    """
    if (image.width, image.height) == (width, height):
        return image
    form, encoding = image.format, image.interpretation
    peak = 255.0 if form == "uchar" else 65535.0
    has_alpha = weighs_opacity and image.bands in (2, 4)
    if has_alpha:
        image = image.premultiply(max_alpha=peak)
    elif form == "ushort":
        # In integers of 16 bits libvips makes 65471 of an even 65535.
        image = image.cast("float")
    image = image.resize(width / image.width, vscale=height / image.height, kernel="lanczos3")
    if has_alpha:
        image = image.unpremultiply(max_alpha=peak)
    if image.format != form:
        image = image.rint().cast(form)
    # Rounding of the factor may leave a pixel more or less than asked for.
    if (image.width, image.height) != (width, height):
        image = image.embed(0, 0, width, height, extend="copy")
    return image.copy(interpretation=encoding)
