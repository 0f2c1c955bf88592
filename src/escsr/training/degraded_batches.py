"""Batches of real-world training: photographs degraded on the device, pairs mixed in a pool."""

from collections import defaultdict

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from escsr.shapes import ImageBatch
from escsr.training.batches import BatchSource, PairBatch, PhotographBatch
from escsr.training.degradation import degrade, sharpen
from escsr.training.patches import RandomStream
from escsr.training.recipe import Recipe


def open_degraded_batches(
    recipe: Recipe, source: BatchSource, fabric: Fabric
) -> "DegradedBatches | None":
    """The batches of a process whose recipe degrades on the device; None where LR comes made.

    On a Mac they are made on its CPU: MPS has neither Poisson's noise nor resizing by area.
    """
    if recipe.data.kind != "photographs":
        return None
    device = torch.device("cpu") if fabric.device.type == "mps" else fabric.device
    rank, world_size = fabric.global_rank, fabric.world_size
    return DegradedBatches(recipe, source, device=device, rank=rank, world_size=world_size)


class DegradedBatches:
    """Degrades the photographs of each step, on the device where they are.

    A batch is a function of the seed, the step, the rank and the photographs: for another
    step than the next, the pool is made again as a run would have had it there.

    Args:
        recipe: its ``[degradation]``, seed, scale and patch.
        source: of photographs, (B, 3, S, S) with S ``degradation.degraded_pixels``, to fill the
            pool of a run that goes on.
        device: where to degrade.
        rank: of this process.
        world_size: number of processes that share a batch.
    """

    def __init__(
        self,
        recipe: Recipe,
        source: BatchSource,
        *,
        device: torch.device,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._recipe, self._settings = recipe, recipe.degradation
        self._source, self._device = source, device
        self._rank, self._world_size = rank, world_size
        self._pool = self._empty_pool()
        self._next_step = 0

    def batch(self, step: int, photographs: PhotographBatch) -> PairBatch:
        """The batch of a step, on the device, channels_last.

        Args:
            step: counted from 0.
            photographs: those of this step.
        """
        if step != self._next_step:
            self._restore_pool(step)
        self._next_step = step + 1
        pairs = self._make(step, photographs.photographs)
        lr_image, real = self._pool.exchange(step, *pairs)
        lr_image, target, real = (
            images.contiguous(memory_format=torch.channels_last)
            for images in (lr_image, self._sharpened(real), real)
        )
        return PairBatch(lr_image, target, real)

    def _make(self, step: int, photographs: ImageBatch) -> tuple[ImageBatch, ImageBatch]:
        """Degrade, then cut the same patches out of all photographs of the step."""
        recipe = self._recipe
        scale, side = recipe.scale, recipe.data.patch_pixels
        photographs = photographs.to(self._device, non_blocking=True).contiguous()
        words = (recipe.seed, step, self._rank, 0, RandomStream.DEGRADATION)
        random = np.random.default_rng(words)
        sharp = self._sharpened(photographs)
        lr_images = degrade(sharp, random, self._settings, scale=scale)
        top, left = random.integers(lr_images.shape[-1] - side + 1, size=2).tolist()
        return _cut(lr_images, top, left, side), _cut(
            photographs, top * scale, left * scale, side * scale
        )

    def _sharpened(self, images: ImageBatch) -> ImageBatch:
        settings = self._settings
        return sharpen(images, weight=settings.usm_weight, threshold=settings.usm_threshold)

    def _restore_pool(self, step: int) -> None:
        self._pool = self._empty_pool()
        for earlier, origins in self._pool.origins(step).items():
            positions, places = (list(column) for column in zip(*origins, strict=True))
            batch = self._source.batch(earlier, rank=self._rank, world_size=self._world_size)
            assert isinstance(batch, PhotographBatch)
            lr_images, hr_images = self._make(earlier, batch.photographs)
            self._pool.put(places, lr_images[positions], hr_images[positions])

    def _empty_pool(self) -> "PairPool":
        batch_size = self._recipe.data.batch_size // self._world_size
        return PairPool(
            self._settings.pool_pairs, batch_size, seed=self._recipe.seed, rank=self._rank
        )


def _cut(images: ImageBatch, top: int, left: int, side: int) -> ImageBatch:
    return images[..., top : top + side, left : left + side]


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
