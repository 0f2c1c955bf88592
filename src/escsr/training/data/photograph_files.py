"""Image files as training data: told by their headers which can be used, decoded as 8-bit RGB."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from escsr.errors import ImageError, TrainingError
from escsr.images.colour import to_rgb_uint8
from escsr.images.files import probe_image, read_image
from escsr.training.data.machine import mapped_on_all_cores
from escsr.training.data.patches import Pixels

_log = logging.getLogger("escsr")

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
