"""Patches from tar shards, for sets too large for one disk or memory: shards are read whole."""

import logging
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from uuid import uuid4

import numpy as np

from escsr.errors import ImageError, MissingExtraError, TrainingError
from escsr.images.colour import to_rgb_uint8
from escsr.images.files import read_image
from escsr.temporary_files import TemporaryFolder
from escsr.training.batches import PairBatch, PhotographBatch
from escsr.training.memory_cache import MemoryCache, mapped_on_all_cores
from escsr.training.patches import (
    Pixels,
    RandomStream,
    cut_patches,
    draw_place,
    make_pair,
    positions_of_rank,
    random_share,
    stack_patches,
)
from escsr.training.photographs import FileStamp, changed_since_the_start, file_stamp, is_image_name
from escsr.training.recipe import Recipe

_log = logging.getLogger("escsr")


class Shards:
    """Batches from tar shards; batch n depends on the seed, n and the shards alone.

    All images of all shards are gone through once per epoch: shards in random order, and the
    images of a shard in random order, one patch of each. Position p of this endless sequence is
    pair j of batch n, p = n * batch_size + j, so a run resumes at its shard without reading those
    before it. Few shards are in memory at a time, still encoded.

    An image that is broken or smaller than a patch is reported when it is met, and the next of
    its shard's random order takes its place.

    Args:
        paths: of the uncompressed tar files; their members are images.
        recipe: says how patches are made of which images.
        image_limit: use only the first so many images; of these, ``data.share``.
        cache_bytes: shards in memory take no more than this; two stay, however large, since a
            batch can need the end of one and the beginning of the next.
        on_loaded: called with (shards counted, shards in all).
    Raises:
        TrainingError: a shard is broken, or there is no image in any.
        MissingExtraError: webdataset is not installed.
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
        require_webdataset()
        self._recipe = recipe
        self._shards = _counted(paths, on_loaded)
        self._left_out: set[tuple[int, int]] = set()
        self._cache = MemoryCache[int, tuple[EncodedImage, ...]](
            self._read,
            size_bytes=lambda images: sum(len(image.data) for image in images),
            budget_bytes=cache_bytes,
            keep_at_least=2,
        )
        self._folder = TemporaryFolder()
        try:
            self._members = _chosen_members(self._shards, recipe, image_limit, self._is_usable)
        except BaseException:
            self.close()
            raise
        self._left_out.clear()  # what was found so far was not chosen
        self._counts = np.array([len(members) for members in self._members])
        _log.info("%d images in %d shards", self.image_count, len(paths))

    @property
    def image_count(self) -> int:
        """Images in use: without those found to be broken or too small so far."""
        return int(self._counts.sum()) - len(self._left_out)

    def batch(
        self, step: int, *, rank: int = 0, world_size: int = 1
    ) -> PairBatch | PhotographBatch:
        """The batch of a step, or one process's share of it, as ``BatchSource`` says.

        Raises:
            TrainingError: a shard is gone, has changed or holds no usable image, or the batch
                cannot be shared evenly.
        """
        batch_size = self._recipe.data.batch_size
        positions = positions_of_rank(batch_size, rank, world_size)
        return stack_patches(self._cut(step * batch_size + position) for position in positions)

    def close(self) -> None:
        """Let go of the shards in memory."""
        self._cache.clear()
        self._folder.cleanup()

    def _cut(self, position: int) -> tuple[Pixels | None, Pixels]:
        shard, candidates = self._candidates(position)
        generator = np.random.default_rng((self._recipe.seed, position, RandomStream.SHARD_PATCH))
        for member in candidates:
            hr_pixels = self._decode(shard, member)
            if hr_pixels is not None:
                height, width = hr_pixels.shape[:2]
                place = draw_place(generator, height, width, self._recipe)
                return cut_patches(make_pair(hr_pixels, self._recipe), place, self._recipe)
        raise TrainingError(
            f"No image in the shard {self._shards[shard].path} can be used; the log says why. "
            "Make it again, or leave it out and start a new run."
        )

    def _candidates(self, position: int) -> tuple[int, list[int]]:
        """The shard of a position, and its images beginning with the one of the position."""
        epoch, rest = divmod(position, int(self._counts.sum()))
        seed = self._recipe.seed
        order_generator = np.random.default_rng((seed, epoch, RandomStream.SHARD_ORDER))
        order = order_generator.permutation(len(self._shards))
        ends = self._counts[order].cumsum()
        turn = int(ends.searchsorted(rest, side="right"))
        shard = int(order[turn])
        first = rest - int(ends[turn] - self._counts[shard])
        generator = np.random.default_rng((seed, epoch, shard, RandomStream.IMAGE_ORDER))
        members = generator.permutation(self._members[shard])
        return shard, np.roll(members, -first).tolist()

    def _is_usable(self, shard: int, member: int) -> bool:
        return self._decode(shard, member) is not None

    def _read(self, shard: int) -> "tuple[EncodedImage, ...]":
        return read_shard(self._shards[shard])

    def _decode(self, shard: int, member: int) -> Pixels | None:
        if (shard, member) in self._left_out:
            return None
        image = self._cache.get(shard)[member]
        name = f"{self._shards[shard].path}/{image.name}"
        try:
            pixels = self._decode_bytes(image, name)
        except ImageError as error:
            return self._leave_out(shard, member, str(error))
        height, width = pixels.shape[:2]
        needed = self._recipe.smallest_side_pixels
        if min(height, width) < needed:
            reason = f"{name} is only {width}x{height} pixels; a patch needs {needed} per side"
            return self._leave_out(shard, member, reason)
        return pixels

    def _decode_bytes(self, image: "EncodedImage", name: str) -> Pixels:
        """Decode through a file, since images are read from files; errors give ``name``."""
        path = Path(self._folder.name, uuid4().hex)
        try:
            path.write_bytes(image.data)
            return to_rgb_uint8(read_image(path).pixels)
        except ImageError as error:
            raise type(error)(str(error).replace(str(path), name)) from error
        finally:
            path.unlink(missing_ok=True)

    def _leave_out(self, shard: int, member: int, reason: str) -> None:
        if (shard, member) not in self._left_out:
            self._left_out.add((shard, member))
            _log.warning("left out (%d so far): %s", len(self._left_out), reason)


def _counted(paths: Sequence[Path], on_loaded: Callable[[int, int], None]) -> "list[ShardFile]":
    counted: list[ShardFile] = []
    with mapped_on_all_cores(count_shard, paths) as shards:
        for shard in shards:
            counted.append(shard)
            on_loaded(len(counted), len(paths))
    return counted


def _chosen_members(
    shards: "Sequence[ShardFile]",
    recipe: Recipe,
    image_limit: int | None,
    is_usable: Callable[[int, int], bool],
) -> list[list[int]]:
    """Per shard, the numbers of the images in use.

    Args:
        shards: with their numbers of images.
        recipe: gives the share of images in use.
        image_limit: of images that can be used, which are then counted.
        is_usable: whether an image can be used, by the numbers of its shard and of itself.
    Raises:
        TrainingError: there are none.
    """
    of_all = [(shard, member) for shard, s in enumerate(shards) for member in range(s.image_count)]
    if not of_all:
        raise TrainingError(
            f"There is no image in the {len(shards)} shards ({shards[0].path}, …); their members "
            "must be image files, such as 00000001.png."
        )
    if image_limit is not None:
        of_all = list(islice((m for m in of_all if is_usable(*m)), image_limit))
    if not of_all:
        raise TrainingError(
            f"None of the images in the {len(shards)} shards ({shards[0].path}, …) can be used; "
            "the log says what is wrong with each. Give other images."
        )
    chosen: list[list[int]] = [[] for _ in shards]
    for index in random_share(len(of_all), recipe):
        shard, member = of_all[index]
        chosen[shard].append(member)
    return chosen


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A tar file of images, counted but not read."""

    path: Path
    image_count: int
    """Members with the suffix of an image."""
    stamp: FileStamp


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image file inside a shard."""

    name: str
    """Of the member."""
    data: bytes
    """What the file holds: JPEG, PNG, …"""


def count_shard(path: Path) -> ShardFile:
    """Count the images of a shard, from the headers of the tar file alone.

    Raises:
        TrainingError: missing, truncated or no tar file.
    """
    stamp = file_stamp(path)
    try:
        # "r:" takes uncompressed files only: those alone can be skipped through.
        with tarfile.open(path, "r:") as archive:
            number = sum(member.isreg() and is_image_name(member.name) for member in archive)
    except (OSError, tarfile.TarError) as error:
        raise TrainingError(
            f"The shard {path} cannot be read: {error}. It must be a whole, uncompressed tar "
            "file; get it again, or leave it out."
        ) from error
    return ShardFile(path, number, stamp or (0, 0))


def read_shard(shard: ShardFile) -> tuple[EncodedImage, ...]:
    """Read all images of a shard, from its beginning to its end.

    Raises:
        TrainingError: the file is gone or has changed since it was counted.
        MissingExtraError: webdataset is not installed.
    """
    require_webdataset()
    from webdataset.tariterators import tar_file_iterator

    if file_stamp(shard.path) != shard.stamp:
        raise changed_since_the_start(shard.path)
    try:
        with shard.path.open("rb") as stream:
            members = tar_file_iterator(stream, skip_meta=None, select_files=is_image_name)  # pyright: ignore[reportArgumentType]
            return tuple(EncodedImage(member["fname"], member["data"]) for member in members)
    except (OSError, tarfile.TarError) as error:
        raise TrainingError(
            f"The shard {shard.path} could be counted but not read: {error}. Check the disk, and "
            "go on with --resume."
        ) from error


def require_webdataset() -> None:
    """Check that webdataset is there.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import webdataset  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("Tar shards need webdataset: pip install 'escsr[train]'") from error
