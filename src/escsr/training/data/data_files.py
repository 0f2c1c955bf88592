"""From what names the training data to the files that hold it."""

import glob
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from escsr.errors import TrainingError
from escsr.images.files import READABLE_SUFFIXES

_log = logging.getLogger("escsr")

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True, slots=True)
class DataFiles:
    """The files of a training set; one of the two lists is empty."""

    photographs: list[Path]
    shards: list[Path]


def find_data_files(data: Path | str | Sequence[Path | str]) -> DataFiles:
    """Find image files or tar shards.

    Args:
        data: one or more of: a folder of images, searched with its sub-folders; a folder of
            ``.tar`` files; a file; a pattern such as ``set-*.tar`` or ``set-{000..015}.tar``.
    Raises:
        TrainingError: nothing is there, or both images and shards are.
    """
    items = [data] if isinstance(data, (Path, str)) else list(data)
    if not items:
        raise TrainingError("No training data is named; give a folder of images or tar shards.")
    found = [_behind(item) for item in items]
    photographs = list(dict.fromkeys(path for files in found for path in files.photographs))
    shards = list(dict.fromkeys(path for files in found for path in files.shards))
    if photographs and shards:
        raise TrainingError(
            f"The training data mixes image files ({photographs[0]}, …) and tar shards "
            f"({shards[0]}, …); give one kind."
        )
    return DataFiles(photographs, shards)


def is_image_name(name: str) -> bool:
    """Whether a file is worth a look: by its suffix, and not hidden (``._a.jpg`` of macOS)."""
    path = Path(name)
    return path.suffix.lower() in READABLE_SUFFIXES and not path.name.startswith(".")


def _behind(item: Path | str) -> DataFiles:
    path = Path(item)
    if path.is_dir():
        return _in_folder(path)
    paths = [path] if path.exists() else list(_matching(str(item)))
    shards = [path for path in paths if path.suffix.lower() == ".tar"]
    photographs = [path for path in paths if is_image_name(path.name)]
    if not shards and not photographs:
        raise TrainingError(
            f"There is no training data at {item}. Give a folder of images, a folder of .tar "
            "files, or a pattern such as 'set-{000..015}.tar'."
        )
    return DataFiles(photographs, shards)


def _in_folder(folder: Path) -> DataFiles:
    photographs = sorted(path for path in folder.rglob("*") if is_image_name(path.name))
    shards = sorted(folder.glob("*.tar"))
    if photographs and shards:
        _log.warning(
            "%s holds %d images, which are used, and %d .tar files, which are not; to train on "
            "those, give the pattern %s",
            folder,
            len(photographs),
            len(shards),
            folder / "*.tar",
        )
        shards = []
    if not photographs and not shards:
        raise TrainingError(
            f"There is no image and no .tar file in {folder} or below it. Readable images are "
            f"{', '.join(sorted(READABLE_SUFFIXES))}."
        )
    return DataFiles(photographs, shards)


def _matching(pattern: str) -> Iterator[Path]:
    """Files behind a glob, a list in braces, or both; those of a list must all exist."""
    for name in _braces_opened(pattern):
        if glob.has_magic(name):
            yield from map(Path, sorted(glob.glob(name)))  # noqa: PTH207 - absolute ones too
        elif Path(name).is_file():
            yield Path(name)
        elif name != pattern:
            raise TrainingError(f"{name} does not exist, but {pattern} names it.")


def _braces_opened(pattern: str) -> Iterator[str]:
    """``a-{08..10}`` -> a-08, a-09, a-10; ``{a,b}`` -> a, b."""
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    numbers = _RANGE.fullmatch(braces[1])
    if numbers is None:
        parts = braces[1].split(",")
    else:
        first, last = int(numbers[1]), int(numbers[2])
        parts = [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]
    for part in parts:
        yield from _braces_opened(pattern[: braces.start()] + part + pattern[braces.end() :])
