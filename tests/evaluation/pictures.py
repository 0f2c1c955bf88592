"""Small test sets for the tests: pictures with structure, written as files."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from escsr.images.writer import write_image


def waves(height: int, width: int, *, channels: int = 3, shift: int = 0) -> npt.NDArray[np.uint8]:
    """Waves of another length in each channel, finer towards the right."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [
        128 + 90 * np.sin(rows / (3 + k) + (columns + shift) ** 1.3 / 12) for k in range(channels)
    ]
    return np.stack(planes, axis=2).astype(np.uint8)


def write_waves(path: Path, height: int, width: int, *, channels: int = 3, shift: int = 0) -> Path:
    """Write such a picture, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, waves(height, width, channels=channels, shift=shift))
    return path
