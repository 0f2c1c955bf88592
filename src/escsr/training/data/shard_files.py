"""Tar shards in the layout of webdataset: count, read, write."""

import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from escsr.errors import MissingExtraError, OutputExistsError, TrainingError
from escsr.training.data.data_files import is_image_name
from escsr.training.data.photograph_files import FileStamp, changed_since_the_start, file_stamp


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


def write_shards(images: Iterable[Path], folder: Path, *, images_per_shard: int = 1000) -> None:
    """Pack image files, as they are, into ``folder/shard-000000.tar`` and so on.

    Sources read a shard whole and decode an image per patch: pack cut-outs of 500 to 1000 pixels
    rather than whole photographs, and some hundreds of MB per shard.

    Args:
        images: files to pack, in this order; mix them before, since a batch comes from one shard.
        folder: made if absent.
        images_per_shard: the last shard may hold fewer.
    Raises:
        OutputExistsError: the folder holds shards already.
        MissingExtraError: webdataset is not installed.
    """
    webdataset = require_webdataset()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("shard-*.tar")):
        raise OutputExistsError(f"{folder} already holds shards; choose another folder.")
    pattern = str(folder / "shard-%06d.tar")
    with webdataset.ShardWriter(
        pattern, maxcount=images_per_shard, maxsize=float("inf"), verbose=0
    ) as writer:
        for number, path in enumerate(images):
            writer.write({"__key__": f"{number:08d}", path.suffix[1:].lower(): path.read_bytes()})


def require_webdataset() -> ModuleType:
    """Import webdataset.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import webdataset
    except ModuleNotFoundError as error:
        raise MissingExtraError("Tar shards need webdataset: pip install 'escsr[train]'") from error
    return webdataset
