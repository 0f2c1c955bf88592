"""Draw restored.jpg: parts of the sample, spoilt in six ways, and what enlarging makes of them.

    python docs/real-world/make_restored.py

Each is shown as it came (pixels repeated), then by bicubic, esc-tiny and esc-tiny-real. What spoils
them is that of training, with strengths chosen here; it needs the extra ``escsr[train]``.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from escsr import Upscaler
from escsr.evaluation.protocol import to_batch, to_pixels
from escsr.images.files import read_image
from escsr.images.lettering import render_text
from escsr.images.resize import resize_bicubic
from escsr.images.writer import write_image
from escsr.shapes import ImageBatch
from escsr.training.degradation import (
    add_gaussian_noise,
    blur,
    gaussian_kernels,
    jpeg_round_trip,
    resize,
)

FOLDER = Path(__file__).parent
SAMPLE = FOLDER.parent / "sample" / "cat.png"
SCALE = 4
WIDTH, HEIGHT = 64, 44
"""Of a part, in pixels of what is enlarged."""
COLUMNS, GAP, LINE_PIXELS = 4, 6, 26
QUALITY = 82

Pixels = npt.NDArray[np.uint8]


def main() -> None:
    """Shrink the sample by 2, so that it is sharp, spoil it, enlarge it, and set it out."""
    pixels = np.ascontiguousarray(read_image(SAMPLE).pixels[:, :450, :3])
    sharp = torch.from_numpy(resize_bicubic(to_batch(pixels), scale=1 / 2)).clamp(0, 1)
    networks = {name: Upscaler(name, scale=SCALE) for name in ("esc-tiny", "esc-tiny-real")}
    bands = [_band(("the picture", "bicubic", *networks))]
    for title, (spoil, (left, top)) in WAYS.items():
        spoilt = (spoil(sharp).clamp(0, 1) * 255).round() / 255
        results = {
            "input": spoilt.repeat_interleave(SCALE, dim=-2).repeat_interleave(SCALE, dim=-1),
            "bicubic": torch.from_numpy(resize_bicubic(spoilt.numpy(), scale=SCALE)),
            **{name: network(spoilt) for name, network in networks.items()},
        }
        rows = slice(top * SCALE, (top + HEIGHT) * SCALE)
        columns = slice(left * SCALE, (left + WIDTH) * SCALE)
        panels = [to_pixels(image.clamp(0, 1).numpy())[rows, columns] for image in results.values()]
        bands += [_band((title,)), _beside(panels)]
    write_image(FOLDER / "restored.jpg", np.concatenate(bands), quality=QUALITY, overwrite=True)


def _compress(images: ImageBatch, quality: float) -> ImageBatch:
    return jpeg_round_trip(images, np.array([quality]))


def _add_noise(images: ImageBatch, sigma: float) -> ImageBatch:
    generator = torch.Generator().manual_seed(0)
    return add_gaussian_noise(images, np.array([sigma]), np.array([False]), generator)


def _blur(images: ImageBatch, sigma: float) -> ImageBatch:
    sigmas, angles, betas = torch.full((1, 2), sigma), torch.zeros(1), torch.ones(1)
    sides = torch.tensor([13])
    return blur(images, gaussian_kernels(sigmas, angles, betas, sides, side_pixels=13))


def _pass_on(images: ImageBatch) -> ImageBatch:
    """As a picture that is sent from one application to the next."""
    height, width = images.shape[-2:]
    smaller = resize(_compress(images, 60), (height * 7 // 10, width * 7 // 10), "bilinear")
    return _compress(resize(smaller, (height, width), "bicubic"), 50)


WAYS: dict[str, tuple[Callable[[ImageBatch], ImageBatch], tuple[int, int]]] = {
    "JPEG of quality 30": (lambda images: _compress(images, 30), (57, 33)),
    "noise of 12 levels": (lambda images: _add_noise(images, 12), (130, 48)),
    "noise of 8 levels, then JPEG of quality 50": (
        lambda images: _compress(_add_noise(images, 8), 50),
        (102, 98),
    ),
    "JPEG of quality 60, shrunk to 0.7 and back, JPEG of quality 50": (_pass_on, (57, 33)),
    "Gaussian blur of sigma 1.5 pixels": (lambda images: _blur(images, 1.5), (130, 48)),
    "nothing: a clean picture": (lambda images: images, (102, 98)),
}
"""What is done to the picture, and where the part lies that is shown (left, top)."""


def _beside(panels: list[Pixels]) -> Pixels:
    gap = np.full((len(panels[0]), GAP, 3), 255, dtype=np.uint8)
    return np.concatenate([part for panel in panels for part in (gap, panel)] + [gap], axis=1)


def _band(titles: tuple[str, ...]) -> Pixels:
    """(GAP + LINE_PIXELS, W, 3): a word in the middle over each column, or one over all of them."""
    whole = COLUMNS * (WIDTH * SCALE + GAP) + GAP
    line = np.full((GAP + LINE_PIXELS, whole, 3), 255, dtype=np.uint8)
    for number, title in enumerate(titles):
        width = whole // len(titles)
        ink = render_text(title, height_pixels=LINE_PIXELS, max_width_pixels=width)
        left = number * width + (width - ink.shape[1]) // 2
        line[GAP:, left : left + ink.shape[1]] -= ink[..., None]
    return line


if __name__ == "__main__":
    main()
