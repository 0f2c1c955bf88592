"""Which samples make a batch: what all sources of pairs are told."""

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from escsr.errors import TrainingError


class RandomStream(IntEnum):
    """Tells the random streams of one seed apart, as the last word of what a generator starts from.

    The words before it say where in the stream. The patches of image files have streams of other
    lengths: (seed, step), and four words where an image is drawn again. Runs depend on the numbers.
    """

    SHARE = 1
    """Which images are used."""
    SHARD_ORDER = 2
    IMAGE_ORDER = 3
    """Within a shard."""
    SHARD_PATCH = 4
    """Where a patch is cut from an image of a shard."""
    DEGRADATION = 5
    POOL = 6
    """Which pairs of the pool are used."""
    QUERY = 7
    """Scales, crops and pixels of training at any scale."""


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
    order = np.random.default_rng((samples.seed, 0, RandomStream.SHARE)).permutation(number)
    # 0.1 * 30 is a little above 3: a rounding error is no image.
    kept = math.ceil(round(number * samples.share, 9))
    return sorted(order[:kept].tolist())
