"""Resize with a Lanczos kernel, as libvips does it: streaming, antialiased, aware of alpha."""

import numpy as np
import pyvips

from escsr.images.decoding import Pixels
from escsr.images.forked_process import require_threads_of_libvips
from escsr.images.metadata import VipsImage
from escsr.images.output_checks import check_kind, check_pixels


def resize_pixels(pixels: Pixels, *, width: int, height: int) -> Pixels:
    """Resize with a Lanczos kernel, antialiased; colour is weighed by its opacity.

    Args:
        pixels: (H, W, C) uint8 or uint16.
        width: of the result, in pixels.
        height: of the result, in pixels.
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
    result = resized(image, width, height).write_to_memory()
    return np.frombuffer(result, dtype=pixels.dtype).reshape(height, width, channels)


def resized(image: VipsImage, width: int, height: int) -> VipsImage:
    """Resize with a Lanczos kernel, antialiased, alpha premultiplied meanwhile.

    Args:
        image: 8 or 16-bit, 1 to 4 channels, the even ones ending in straight alpha.
        width: of the result, in pixels.
        height: of the result, in pixels.
    """
    if (image.width, image.height) == (width, height):
        return image
    form, encoding = image.format, image.interpretation
    peak = 255.0 if form == "uchar" else 65535.0
    has_alpha = image.bands in (2, 4)
    if has_alpha:
        image = image.premultiply(max_alpha=peak)
    image = image.resize(width / image.width, vscale=height / image.height, kernel="lanczos3")
    if has_alpha:
        image = image.unpremultiply(max_alpha=peak).rint().cast(form)
    # Rounding of the factor may leave a pixel more or less than asked for.
    if (image.width, image.height) != (width, height):
        image = image.embed(0, 0, width, height, extend="copy")
    return image.copy(interpretation=encoding)
