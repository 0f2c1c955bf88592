"""Patches from image files, kept decoded in memory as far as a budget allows."""

import logging
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
from torch import Tensor

from escsr.errors import TrainingError
from escsr.training.data.machine import mapped_on_all_cores
from escsr.training.data.memory_cache import MemoryCache
from escsr.training.data.patches import (
    ImagePair,
    PatchPlace,
    PatchSettings,
    Pixels,
    cut_patches,
    draw_place,
    make_pair,
    positions_of_rank,
    stack_batch,
)
from escsr.training.data.photograph_files import PhotographFile, decode_photograph, usable_files
from escsr.training.data.sample_settings import SampleSettings, random_share

_log = logging.getLogger("escsr")


class Photographs:
    """Batches from image files; batch n depends on the seed, n and the files alone.

    An image is chosen with a probability in proportion to its area, so that all pixels are seen
    alike. Where all images fit into the budget they are decoded at once on all cores; otherwise
    each is decoded when it is needed.

    A file whose header is whole but whose pixels are broken is found when it is decoded. It is
    reported, and another image is drawn in its place by a rule of its own, so that batches do not
    depend on when it was found.

    Args:
        paths: of the image files.
        patches: size, degradation and augmentation.
        samples: batch size, seed and which images.
        cache_bytes: decoded images kept take no more than this.
        on_loaded: called with (images done, images in all) while all are decoded at the start.
    Raises:
        TrainingError: no usable image.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        patches: PatchSettings,
        samples: SampleSettings,
        *,
        cache_bytes: int,
        on_loaded: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        self._patches = patches
        self._samples = samples
        self._files = _chosen_files(paths, patches, samples)
        self._cumulative_chances = _cumulative_chances(self._files, patches.scale)
        self._broken: set[int] = set()
        self._cache = MemoryCache[int, ImagePair | None](
            self._load,
            size_bytes=lambda pair: 0 if pair is None else pair.size_bytes,
            budget_bytes=cache_bytes,
        )
        needed_bytes = sum(_decoded_bytes(file, patches) for file in self._files)
        if needed_bytes <= cache_bytes:
            self._load_all(on_loaded)
        else:
            _log.info(
                "%d images, decoded when they are needed: of %.1f GB, %.1f fit into memory",
                len(self._files),
                needed_bytes / 1e9,
                cache_bytes / 1e9,
            )

    @property
    def image_count(self) -> int:
        """Images in use: without those known to be broken."""
        return len(self._files) - len(self._broken)

    def batch(self, step: int, *, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor]:
        """The pairs of a step, or one process's share of them.

        Returns:
            LR (B / world_size, 3, h, h) and HR (B / world_size, 3, scale*h, scale*h), float32 in
            [0, 1], channels_last.
        Raises:
            TrainingError: a file is gone or has changed, or the batch cannot be shared evenly.
        """
        batch_size = self._samples.batch_size
        positions = positions_of_rank(batch_size, rank, world_size)
        generator = np.random.default_rng((self._samples.seed, step))
        chosen = self._choose(generator, batch_size)
        draws = [(index, self._draw_place(generator, index)) for index in chosen]
        return stack_batch(self._cut(step, position, *draws[position]) for position in positions)

    def close(self) -> None:
        """Let go of the decoded images."""
        self._cache.clear()

    def _choose(self, generator: np.random.Generator, number: int) -> list[int]:
        """What ``generator.choice(images, number, p=chances)`` gives, without its sum per call."""
        points = generator.random(number)
        return self._cumulative_chances.searchsorted(points, side="right").tolist()

    def _draw_place(self, generator: np.random.Generator, index: int) -> PatchPlace:
        file = self._files[index]
        return draw_place(generator, file.height, file.width, self._patches)

    def _cut(
        self, step: int, position: int, index: int, place: PatchPlace
    ) -> tuple[Pixels, Pixels]:
        attempts = count(1)
        while (pair := self._pair(index)) is None:
            self._require_images()
            # Later words are never 0: numpy takes (seed, step) and (seed, step, 0) for the same.
            words = (self._samples.seed, step, position + 1, next(attempts))
            generator = np.random.default_rng(words)
            index = self._choose(generator, 1)[0]
            place = self._draw_place(generator, index)
        return cut_patches(pair, place, self._patches)

    def _pair(self, index: int) -> ImagePair | None:
        return None if index in self._broken else self._cache.get(index)

    def _load(self, index: int) -> ImagePair | None:
        hr_pixels = decode_photograph(self._files[index])
        if hr_pixels is None:
            self._broken.add(index)
            return None
        return make_pair(hr_pixels, self._patches)

    def _load_all(self, on_loaded: Callable[[int, int], None]) -> None:
        total = len(self._files)
        with mapped_on_all_cores(self._cache.get, range(total)) as pairs:
            for done, _ in enumerate(pairs, start=1):
                on_loaded(done, total)
        self._require_images()
        if self._broken:
            _log.warning("%d of %d decoded images are broken, left out", len(self._broken), total)
        _log.info("%d images in memory, %.1f GB", self.image_count, self._cache.kept_bytes / 1e9)

    def _require_images(self) -> None:
        if not self.image_count:
            raise _nothing_usable(len(self._files), self._patches)


def _chosen_files(
    paths: Sequence[Path], patches: PatchSettings, samples: SampleSettings
) -> list[PhotographFile]:
    files = usable_files(
        paths, smallest_side_pixels=patches.smallest_side_pixels, limit=samples.image_limit
    )
    if not files:
        raise _nothing_usable(len(paths), patches)
    return [files[index] for index in random_share(len(files), samples)]


def _cumulative_chances(files: Sequence[PhotographFile], scale: int) -> np.ndarray:
    lr_sides = [(max(1, f.height // scale), max(1, f.width // scale)) for f in files]
    areas = np.array([height * width for height, width in lr_sides], dtype=np.float64)
    cumulative = (areas / areas.sum()).cumsum()
    return cumulative / cumulative[-1]


def _decoded_bytes(file: PhotographFile, patches: PatchSettings) -> int:
    hr_bytes = 3 * file.width * file.height
    return hr_bytes + (hr_bytes // patches.scale**2 if patches.shrinks_whole_images else 0)


def _nothing_usable(found: int, patches: PatchSettings) -> TrainingError:
    side = patches.smallest_side_pixels
    if side == 1:
        return TrainingError(
            f"None of the {found} images can be read. The log says what is wrong with each; give "
            "other images."
        )
    return TrainingError(
        f"None of the {found} images can be used; each must be readable and have at least {side} "
        f"pixels per side (patch_pixels {patches.patch_pixels} x scale {patches.scale}). The log "
        "says what is wrong with each. Give other images, or a smaller patch_pixels."
    )
