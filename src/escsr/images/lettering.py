"""Words as pixels, for labels in pictures."""

import html

import numpy as np
import numpy.typing as npt
import pyvips

from escsr.images.files import require_threads_of_libvips


def render_text(text: str, *, height_pixels: int, max_width_pixels: int) -> npt.NDArray[np.uint8]:
    """Draw one line of words in the system's sans-serif font.

    Where a system has no fonts at all, boxes stand for the letters.

    Args:
        text: one line; nothing in it is taken for markup.
        height_pixels: of the result; letters fill about three quarters of it.
        max_width_pixels: longer text is made smaller until it fits.
    Returns:
        (height_pixels, W) opacity of the ink, 0 to 255, with W <= max_width_pixels.
    """
    if not text.strip():
        return np.zeros((height_pixels, 0), dtype=np.uint8)
    # At 72 dots per inch a point is a pixel.
    points = max(1, round(0.6 * height_pixels))
    ink = _drawn(text, points)
    if ink.shape[1] > max_width_pixels or ink.shape[0] > height_pixels:
        share = min(max_width_pixels / ink.shape[1], height_pixels / ink.shape[0])
        ink = _drawn(text, max(1, int(points * share)))[:height_pixels, :max_width_pixels]
    line = np.zeros((height_pixels, ink.shape[1]), dtype=np.uint8)
    top = (height_pixels - ink.shape[0]) // 2
    line[top : top + ink.shape[0]] = ink
    return line


def _drawn(text: str, points: int) -> npt.NDArray[np.uint8]:
    require_threads_of_libvips()
    image = pyvips.Image.text(html.escape(text, quote=False), font=f"sans {points}", dpi=72)
    return image.numpy().reshape(image.height, image.width)
