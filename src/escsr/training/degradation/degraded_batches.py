"""Batches of real-world training: from photographs to LR images, targets and real ones."""

from collections.abc import Callable

import numpy as np
import torch
from lightning_fabric import Fabric

from escsr.shapes import ImageBatch
from escsr.training.batch import TrainingBatch
from escsr.training.data.pairs import PairSource
from escsr.training.data.sample_settings import RandomStream
from escsr.training.degradation.pool import PairPool
from escsr.training.degradation.second_order import degrade
from escsr.training.degradation.sharpening import sharpen
from escsr.training.recipe import Recipe


def open_degraded_batches(
    recipe: Recipe, source: PairSource, fabric: Fabric
) -> "DegradedBatches | None":
    """The batches of a process whose recipe degrades on the device; None where LR comes made.

    On a Mac they are made on its CPU: MPS has neither Poisson's noise nor resizing by area.
    """
    if recipe.data.degradation != "second-order":
        return None
    rank, world_size = fabric.global_rank, fabric.world_size
    device = torch.device("cpu") if fabric.device.type == "mps" else fabric.device

    def photographs_of(step: int) -> ImageBatch:
        return source.batch(step, rank=rank, world_size=world_size)[1]

    return DegradedBatches(
        recipe,
        photographs_of,
        batch_size=recipe.data.batch_size // world_size,
        device=device,
        rank=rank,
    )


class DegradedBatches:
    """Degrades the photographs of each step, on the device where they are.

    A batch is a function of the seed, the step, the rank and the photographs: whoever asks for
    another step than the next gets the pool that a run would have had there.

    Args:
        recipe: its ``[degradation]``, seed, scale and patch.
        photographs_of: makes the photographs of any step, (B, 3, S, S) in [0, 1] with S
            ``degradation.degraded_pixels``, to fill the pool of a run that goes on.
        batch_size: B, of this process.
        device: where to degrade.
        rank: of this process.
    """

    def __init__(
        self,
        recipe: Recipe,
        photographs_of: Callable[[int], ImageBatch],
        *,
        batch_size: int,
        device: torch.device,
        rank: int = 0,
    ) -> None:
        self._recipe, self._settings = recipe, recipe.degradation
        self._photographs_of, self._device, self._rank = photographs_of, device, rank
        self._batch_size = batch_size
        self._pool = self._empty_pool()
        self._next_step = 0

    def batch(self, step: int, photographs: ImageBatch) -> TrainingBatch:
        """The batch of a step, on the device, channels_last.

        Args:
            step: counted from 0.
            photographs: those of this step.
        """
        if step != self._next_step:
            self._restore_pool(step)
        self._next_step = step + 1
        lr_image, real = self._pool.exchange(step, *self._make(step, photographs))
        lr_image, target, real = (
            images.contiguous(memory_format=torch.channels_last)
            for images in (lr_image, self._sharpened(real), real)
        )
        return TrainingBatch(lr_image, target, real)

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
            lr_images, hr_images = self._make(earlier, self._photographs_of(earlier))
            self._pool.put(places, lr_images[positions], hr_images[positions])

    def _empty_pool(self) -> PairPool:
        return PairPool(
            self._settings.pool_pairs, self._batch_size, seed=self._recipe.seed, rank=self._rank
        )


def _cut(images: ImageBatch, top: int, left: int, side: int) -> ImageBatch:
    return images[..., top : top + side, left : left + side]
