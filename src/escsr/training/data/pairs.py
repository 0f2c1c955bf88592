"""Batches of LR and HR patches from a training set, whatever holds it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from escsr.training.data.data_files import find_data_files
from escsr.training.data.machine import default_cache_bytes
from escsr.training.data.patches import (
    Augmentation,
    Degradation,
    PatchSettings,
    pillow_image_module,
)
from escsr.training.data.photographs import Photographs
from escsr.training.data.sample_settings import SampleSettings
from escsr.training.data.shards import Shards


class PairSource(Protocol):
    """Makes the batch of any step, from the seed and the step alone; threads may share it.

    So a run that is stopped goes on as if it had not been, whatever is cached and however many
    threads or processes make the batches.
    """

    @property
    def image_count(self) -> int:
        """Images in use, as far as is known."""
        ...

    def batch(self, step: int, *, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor]:
        """The pairs of a step, or one process's share of them.

        Those of all ranks, one after the other, are the batch of ``world_size=1``.

        Args:
            step: counted from 0.
            rank: which of the processes this is.
            world_size: number of processes; must divide the batch size.
        Returns:
            LR (B / world_size, 3, h, h) and HR (B / world_size, 3, scale*h, scale*h), float32 in
            [0, 1], channels_last, on the CPU. Where LR is made later, LR is empty, and HR holds
            photographs to degrade.
        Raises:
            TrainingError: a file is gone or has changed, or the batch cannot be shared evenly.
        """
        ...

    def close(self) -> None:
        """Let go of what is in memory; there are no batches after this."""
        ...


def open_pairs(
    data: Path | str | Sequence[Path | str],
    *,
    scale: int,
    patch_pixels: int,
    batch_size: int,
    seed: int,
    degradation: Degradation = "matlab",
    augmentation: Augmentation = "flips-rotations",
    degraded_pixels: int = 400,
    share: float = 1.0,
    image_limit: int | None = None,
    cache_bytes: int | None = None,
    on_loaded: Callable[[int, int], None] = lambda _done, _total: None,
) -> PairSource:
    """Open a training set: image files, or tar shards where they are too many for that.

    Broken images and those smaller than a patch are named in the log, counted and left out
    ("second-order" takes small ones, too); grey, transparent and 16-bit ones become 8-bit RGB.

    Args:
        data: one or more folders of images (searched with sub-folders), folders of ``.tar``
            files, files, or patterns such as ``set-{000..015}.tar``.
        scale: HR pixels per LR pixel, per side.
        patch_pixels: side of an LR patch.
        batch_size: pairs per step, of all processes together.
        seed: of every random choice.
        degradation: how LR is made; see :data:`escsr.training.data.patches.Degradation`.
        augmentation: how patches are turned; see :data:`escsr.training.data.patches.Augmentation`.
        degraded_pixels: side of what degradation "second-order" cuts from photographs.
        share: use this share of the images, chosen at random from the seed.
        image_limit: use only the first so many images.
        cache_bytes: memory for decoded images, or for shards; half of what is free unless given.
        on_loaded: called with (done, total) while images are decoded, or shards counted, at the
            start.
    Raises:
        TrainingError: there is no usable image.
        MissingExtraError: tar shards without webdataset, or Pillow's degradation without Pillow.
    """
    if degradation in ("pillow-after-crop", "pillow-any-scale"):
        pillow_image_module()
    patches = PatchSettings(
        scale=scale,
        patch_pixels=patch_pixels,
        degradation=degradation,
        augmentation=augmentation,
        degraded_pixels=degraded_pixels,
    )
    samples = SampleSettings(batch_size=batch_size, seed=seed, share=share, image_limit=image_limit)
    budget = default_cache_bytes() if cache_bytes is None else cache_bytes
    files = find_data_files(data)
    if files.shards:
        return Shards(files.shards, patches, samples, cache_bytes=budget, on_loaded=on_loaded)
    return Photographs(files.photographs, patches, samples, cache_bytes=budget, on_loaded=on_loaded)
