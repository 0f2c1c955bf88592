"""The pool of pairs: so that the images of one batch have been degraded differently."""

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

from escsr.shapes import ImageBatch
from escsr.training.data.sample_settings import RandomStream

Places = list[int]


class PairPool:
    """Keeps pairs of several steps; each batch is drawn from it, and new pairs take their places.

    Resizes and the kind of noise are drawn once per batch, which a batch alone would show. Which
    places change at a step depends on the seed, the step and the rank alone; so what is in the
    pool can be made again from the steps that its pairs stem from, and needs no place in a
    checkpoint.

    Args:
        pairs: places in the pool at least; rounded up to whole batches, which fill it.
        batch_size: pairs per step of this process.
        seed: of every choice.
        rank: of this process.
    Source: Wang et al., "Real-ESRGAN", arXiv:2107.10833, section 4.1: 180 pairs.
    """

    def __init__(self, pairs: int, batch_size: int, *, seed: int, rank: int) -> None:
        self._pairs, self._batch_size = -(-pairs // batch_size) * batch_size, batch_size
        self._seed, self._rank = seed, rank
        self._kept: tuple[Tensor, ImageBatch] | None = None

    def exchange(
        self, step: int, lr_batch: ImageBatch, hr_batch: ImageBatch
    ) -> tuple[ImageBatch, ImageBatch]:
        """Put the pairs of a step in and take others out; while it is filled, the same ones.

        Args:
            step: every step since the first, or since ``put`` restored the pool.
            lr_batch: (B, 3, h, w), every value k/255, since the pool keeps 8 bit.
            hr_batch: (B, 3, H, W), likewise.
        Returns:
            As many pairs, likewise.
        """
        if not self._pairs:
            return lr_batch, hr_batch
        places = self.places_of(step)
        taken = None if self._is_filled_by(step) else self._take(places)
        self.put(places, lr_batch, hr_batch)
        return (lr_batch, hr_batch) if taken is None else taken

    def put(self, places: Places, lr_batch: ImageBatch, hr_batch: ImageBatch) -> None:
        """Put pairs into places of the pool."""
        new = (_to_bytes(lr_batch), _to_bytes(hr_batch))
        if self._kept is None:
            self._kept = (_empty_like(new[0], self._pairs), _empty_like(new[1], self._pairs))
        index = torch.tensor(places, device=lr_batch.device)
        for kept, images in zip(self._kept, new, strict=True):
            kept[index] = images

    def places_of(self, step: int) -> Places:
        """The places whose pairs are used at a step and replaced by those that it made."""
        if self._is_filled_by(step):
            return list(range(step * self._batch_size, (step + 1) * self._batch_size))
        generator = np.random.default_rng((self._seed, step, self._rank, 0, RandomStream.POOL))
        return generator.permutation(self._pairs)[: self._batch_size].tolist()

    def origins(self, step: int) -> dict[int, list[tuple[int, int]]]:
        """Where the pairs stem from that are in the pool before a step.

        Returns:
            By the step that made them: (which pair of its batch, place in the pool).
        """
        missing = set(range(min(self._pairs, step * self._batch_size)))
        found: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for earlier in reversed(range(step)):
            if not missing:
                break
            for position, place in enumerate(self.places_of(earlier)):
                if place in missing:
                    missing.remove(place)
                    found[earlier].append((position, place))
        return dict(found)

    def _is_filled_by(self, step: int) -> bool:
        return step * self._batch_size < self._pairs

    def _take(self, places: Places) -> tuple[ImageBatch, ImageBatch]:
        assert self._kept is not None
        lr_kept, hr_kept = self._kept
        index = torch.tensor(places, device=lr_kept.device)
        return lr_kept[index].float() / 255, hr_kept[index].float() / 255


def _to_bytes(images: ImageBatch) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def _empty_like(images: Tensor, count: int) -> Tensor:
    return images.new_zeros((count, *images.shape[1:]))
