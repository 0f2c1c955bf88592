"""Draw before-after.png: a part of the sample, enlarged x4 by bicubic and by esc-tiny."""

from pathlib import Path

import numpy as np

from escsr import Upscaler
from escsr.evaluation.protocol import to_batch, to_pixels
from escsr.images.files import read_image
from escsr.images.resize import resize_bicubic
from escsr.images.writer import write_image

FOLDER = Path(__file__).parent
LEFT, TOP, WIDTH, HEIGHT = 130, 70, 110, 90
GAP = 8


def main() -> None:
    """Put bicubic on the left and esc-tiny on the right."""
    pixels = read_image(FOLDER / "cat.png").pixels
    halves = (
        to_pixels(resize_bicubic(to_batch(pixels), scale=4).clip(0, 1)),
        Upscaler("esc-tiny", scale=4)(pixels),
    )
    window = (slice(TOP * 4, (TOP + HEIGHT) * 4), slice(LEFT * 4, (LEFT + WIDTH) * 4))
    gap = np.full((HEIGHT * 4, GAP, 3), 255, dtype=np.uint8)
    picture = np.concatenate((halves[0][window], gap, halves[1][window]), axis=1)
    write_image(FOLDER / "before-after.png", picture, overwrite=True)


if __name__ == "__main__":
    main()
