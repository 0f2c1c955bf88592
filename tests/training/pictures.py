"""Image files of every kind to train on: smooth waves with grain, each picture another."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from escsr.images.writer import write_image


def picture(
    number: int, *, height: int = 60, width: int = 80, channels: int = 3, bit_depth: int = 8
) -> npt.NDArray[np.unsignedinteger]:
    """Pixels (H, W, C) that no other number has."""
    generator = np.random.default_rng(number)
    rows, columns = np.mgrid[0:height, 0:width]
    wave = 120 + 60 * np.sin(rows / 7 + number) * np.cos(columns / 5)
    values = wave[..., None] + generator.normal(0, 12, (height, width, channels))
    if bit_depth == 16:
        return (values.clip(0, 255) * 257).astype(np.uint16)
    return values.clip(0, 255).astype(np.uint8)


def write_pictures(folder: Path, number: int = 6) -> Path:
    """Fill a folder with PNG files of mixed sizes, a-00.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        pixels = picture(index, height=60 + 3 * index, width=90 - 4 * index)
        write_image(folder / f"a-{index:02d}.png", pixels)
    return folder


def write_every_kind(folder: Path) -> Path:
    """Fill a folder with all that people have: kinds, depths, sub-folders."""
    (folder / "more").mkdir(parents=True)
    write_image(folder / "a.jpg", picture(0))
    write_image(folder / "b.webp", picture(1))
    write_image(folder / "c.tif", picture(2))
    write_image(folder / "d.avif", picture(3))
    write_image(folder / "more" / "deep.png", picture(4, bit_depth=16))
    write_image(folder / "more" / "grey.png", picture(5, channels=1))
    write_image(folder / "more" / "transparent.png", picture(6, channels=4))
    return folder


def spoil(folder: Path) -> None:
    """Add what cannot be used: text, an empty file, half a file, a tiny picture."""
    (folder / "text.png").write_text("this is no picture")
    (folder / "empty.jpg").write_bytes(b"")
    write_image(folder / "whole.png", picture(7))
    (folder / "half.png").write_bytes((folder / "whole.png").read_bytes()[:3000])
    (folder / "whole.png").unlink()
    write_image(folder / "tiny.png", picture(8, height=20, width=90))
