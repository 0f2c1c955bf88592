"""Real pictures for the tests of images: gradients plus noise, of every kind."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

Picture = Callable[..., npt.NDArray[np.unsignedinteger]]


@pytest.fixture(scope="session")
def picture() -> Picture:
    """Make (H, W, C) pixels: smooth gradients that differ per channel, and a little noise."""

    def make(
        height: int = 40, width: int = 56, channels: int = 3, *, bit_depth: int = 8, noise: int = 4
    ) -> npt.NDArray[np.unsignedinteger]:
        y, x = np.mgrid[:height, :width] / max(height, width, 2)
        planes = [0.2 + 0.6 * (x * (k + 1) + y * (3 - k)) / 4 for k in range(channels)]
        grain = np.random.default_rng(7).integers(0, noise + 1, (height, width, channels))
        values = np.stack(planes, axis=-1) * 240 + grain
        if bit_depth == 16:
            return (values * 257 + 3 * grain).astype(np.uint16)
        return values.astype(np.uint8)

    return make
