"""Patches from image files, cached decoded in memory within a budget."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from escsr.errors import ImageError, TrainingError
from escsr.images.colour import to_rgb_uint8
from escsr.images.files import READABLE_SUFFIXES, probe_image, read_image
from escsr.training.batches import PairBatch, PhotographBatch
from escsr.training.memory_cache import MemoryCache, mapped_on_all_cores
from escsr.training.patches import (
    ImagePair,
    PatchPlace,
    Pixels,
    cut_patches,
    draw_place,
    make_pair,
    positions_of_rank,
    random_share,
    stack_patches,
)
from escsr.training.recipe import Recipe

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
        recipe: says how patches are made of which images.
        image_limit: use only the first so many images; of these, ``data.share``.
        cache_bytes: decoded images kept take no more than this.
        on_loaded: called with (images done, images in all) while all are decoded at the start.
    Raises:
        TrainingError: no usable image.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        recipe: Recipe,
        *,
        image_limit: int | None = None,
        cache_bytes: int,
        on_loaded: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        self._recipe = recipe
        self._files = _chosen_files(paths, recipe, image_limit)
        self._cumulative_chances = _cumulative_chances(self._files, recipe.scale)
        self._broken: set[int] = set()
        self._cache = MemoryCache[int, ImagePair | None](
            self._load,
            size_bytes=lambda pair: 0 if pair is None else pair.size_bytes,
            budget_bytes=cache_bytes,
        )
        needed_bytes = sum(_decoded_bytes(file, recipe) for file in self._files)
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

    def batch(
        self, step: int, *, rank: int = 0, world_size: int = 1
    ) -> PairBatch | PhotographBatch:
        """The batch of a step, or one process's share of it, as ``BatchSource`` says."""
        batch_size = self._recipe.data.batch_size
        positions = positions_of_rank(batch_size, rank, world_size)
        generator = np.random.default_rng((self._recipe.seed, step))
        chosen = self._choose(generator, batch_size)
        draws = [(index, self._draw_place(generator, index)) for index in chosen]
        return stack_patches(self._cut(step, position, *draws[position]) for position in positions)

    def close(self) -> None:
        """Let go of the decoded images."""
        self._cache.clear()

    def _choose(self, generator: np.random.Generator, number: int) -> list[int]:
        """What ``generator.choice(images, number, p=chances)`` gives, without its sum per call."""
        points = generator.random(number)
        return self._cumulative_chances.searchsorted(points, side="right").tolist()

    def _draw_place(self, generator: np.random.Generator, index: int) -> PatchPlace:
        file = self._files[index]
        return draw_place(generator, file.height, file.width, self._recipe)

    def _cut(
        self, step: int, position: int, index: int, place: PatchPlace
    ) -> tuple[Pixels | None, Pixels]:
        attempts = count(1)
        while (pair := self._pair(index)) is None:
            self._require_images()
            # Later words are never 0: numpy takes (seed, step) and (seed, step, 0) for the same.
            words = (self._recipe.seed, step, position + 1, next(attempts))
            generator = np.random.default_rng(words)
            index = self._choose(generator, 1)[0]
            place = self._draw_place(generator, index)
        return cut_patches(pair, place, self._recipe)

    def _pair(self, index: int) -> ImagePair | None:
        return None if index in self._broken else self._cache.get(index)

    def _load(self, index: int) -> ImagePair | None:
        hr_pixels = decode_photograph(self._files[index])
        if hr_pixels is None:
            self._broken.add(index)
            return None
        return make_pair(hr_pixels, self._recipe)

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
            raise _nothing_usable(len(self._files), self._recipe)


def _chosen_files(
    paths: Sequence[Path], recipe: Recipe, image_limit: int | None
) -> "list[PhotographFile]":
    files = usable_files(paths, smallest_side_pixels=recipe.smallest_side_pixels, limit=image_limit)
    if not files:
        raise _nothing_usable(len(paths), recipe)
    return [files[index] for index in random_share(len(files), recipe)]


def _cumulative_chances(files: "Sequence[PhotographFile]", scale: int) -> np.ndarray:
    lr_sides = [(max(1, f.height // scale), max(1, f.width // scale)) for f in files]
    areas = np.array([height * width for height, width in lr_sides], dtype=np.float64)
    cumulative = (areas / areas.sum()).cumsum()
    return cumulative / cumulative[-1]


def _decoded_bytes(file: "PhotographFile", recipe: Recipe) -> int:
    hr_bytes = 3 * file.width * file.height
    return hr_bytes + (hr_bytes // recipe.scale**2 if recipe.data.shrinks_whole_images else 0)


def _nothing_usable(found: int, recipe: Recipe) -> TrainingError:
    side = recipe.smallest_side_pixels
    if side == 1:
        return TrainingError(
            f"None of the {found} images can be read. The log says what is wrong with each; give "
            "other images."
        )
    return TrainingError(
        f"None of the {found} images can be used; each must be readable and have at least {side} "
        f"pixels per side (patch_pixels {recipe.data.patch_pixels} x scale {recipe.scale}). The "
        "log says what is wrong with each. Give other images, or a smaller patch_pixels."
    )


FileStamp = tuple[int, int]
"""Size in bytes and time of the last change in ns: another stamp, another content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotographFile:
    """An image file that is large enough, as far as its header tells."""

    path: Path
    width: int
    """In pixels, upright."""
    height: int
    """In pixels, upright."""
    stamp: FileStamp


def usable_files(
    paths: Sequence[Path], *, smallest_side_pixels: int, limit: int | None
) -> list[PhotographFile]:
    """Read the headers of image files; the log names those that cannot be used, and why.

    Args:
        paths: of the files.
        smallest_side_pixels: both sides need at least this many.
        limit: stop after so many usable files, which are decoded to be sure of each.
    Returns:
        The usable ones, in the order of ``paths``.
    """
    usable: list[PhotographFile] = []
    seen = 0
    probe = partial(_probed, smallest_side_pixels=smallest_side_pixels)
    with mapped_on_all_cores(probe, paths) as files:
        for file in files:
            seen += 1
            if file is not None and (limit is None or decode_photograph(file) is not None):
                usable.append(file)
            if len(usable) == limit:
                break
    if seen > len(usable):
        _log.warning("%d of %d images are left out", seen - len(usable), seen)
    return usable


def decode_photograph(file: PhotographFile) -> Pixels | None:
    """Decode a photograph.

    Returns:
        (H, W, 3) uint8, or None if the file is broken, which the log then tells.
    Raises:
        TrainingError: the file is gone, or has changed since its header was read.
    """
    if file_stamp(file.path) != file.stamp:
        raise changed_since_the_start(file.path)
    try:
        return to_rgb_uint8(read_image(file.path).pixels)
    except ImageError as error:
        if file_stamp(file.path) != file.stamp:
            raise changed_since_the_start(file.path) from error
        _log.warning("left out: %s", error)
        return None


def is_image_name(name: str) -> bool:
    """Whether a file is worth a look: by its suffix, and not hidden (``._a.jpg`` of macOS)."""
    path = Path(name)
    return path.suffix.lower() in READABLE_SUFFIXES and not path.name.startswith(".")


def file_stamp(path: Path) -> FileStamp | None:
    """The stamp of a file; None if it cannot be reached."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns


def changed_since_the_start(path: Path) -> TrainingError:
    """The error for data that no longer are what they were when training began."""
    what = "has changed" if path.exists() else "is gone"
    return TrainingError(
        f"{path} {what} since training began. Put the file back as it was and go on with "
        "--resume: the run then continues exactly. Without it, start a new run."
    )


def _probed(path: Path, smallest_side_pixels: int) -> PhotographFile | None:
    stamp = file_stamp(path)
    try:
        header = probe_image(path)
    except ImageError as error:
        _log.warning("left out: %s", error)
        return None
    width, height = header.width, header.height
    if min(width, height) < smallest_side_pixels:
        _log.warning(
            "left out: %s is only %dx%d pixels; a patch needs %d per side",
            path,
            width,
            height,
            smallest_side_pixels,
        )
        return None
    # Without a stamp the file vanished after its header was read; decoding it will say so.
    return PhotographFile(path=path, width=width, height=height, stamp=stamp or (0, 0))
