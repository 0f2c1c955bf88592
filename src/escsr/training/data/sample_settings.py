"""Which samples make a batch: what all sources of pairs are told."""

import math
from dataclasses import dataclass

import numpy as np

from escsr.errors import TrainingError

SHARE_STREAM = 1
"""Tells the random stream that chooses images from the others of the same seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleSettings:
    """How many pairs, from which images, in which random order."""

    batch_size: int
    """Pairs per step, of all processes together."""
    seed: int
    """Of every choice."""
    share: float = 1.0
    """Use this share of the images, chosen at random; a smaller share is part of a larger one."""
    image_limit: int | None = None
    """Use only the first so many images; of these, ``share``."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise TrainingError(f"The share of images is {self.share}; allowed is above 0 up to 1.")
        if self.image_limit is not None and self.image_limit < 1:
            raise TrainingError(f"The limit is {self.image_limit} images; at least 1 is needed.")


def random_share(number: int, samples: SampleSettings) -> list[int]:
    """Choose ``samples.share`` of ``range(number)``, rounded up, in ascending order.

    With the same seed a smaller share is part of a larger one, as experiments on the amount of
    data want it.
    """
    if samples.share == 1:
        return list(range(number))
    order = np.random.default_rng((samples.seed, 0, SHARE_STREAM)).permutation(number)
    # 0.1 * 30 is a little above 3: a rounding error is no image.
    kept = math.ceil(round(number * samples.share, 9))
    return sorted(order[:kept].tolist())
