"""Test sets as the field lays them out in folders, found without configuration."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from escsr.errors import ImageReadError
from escsr.images.files import READABLE_SUFFIXES

HR_FOLDERS = ("HR", "HR_jpg", "GTmod12", "GT", "original")
"""Names of the folder of HR images within a test set, the first found is taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TestPair:
    """One picture to judge with: the truth, and the small version of it if there is a file."""

    __test__ = False  # the name is the field's; it is no test case of pytest

    name: str
    """File name of the HR image, without suffix unless two images differ in nothing else."""
    hr_path: Path
    lr_path: Path | None
    """None: the LR image is made by MATLAB's uint8 bicubic rule."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TestSet:
    """A named set of pictures to judge with."""

    __test__ = False  # as above

    name: str
    """Of the folder, with its parents' as far as another set has the same."""
    folder: Path
    pairs: tuple[TestPair, ...]
    """By name; at least one."""

    @property
    def num_lr_files(self) -> int:
        """How many LR images are files; the others are made."""
        return sum(pair.lr_path is not None for pair in self.pairs)

    @property
    def lr_source(self) -> str:
        """Where the LR images come from, in words."""
        made = len(self.pairs) - self.num_lr_files
        parts = [f"{self.num_lr_files} from files"] if self.num_lr_files else []
        return ", ".join([*parts, f"{made} made by MATLAB's bicubic rule"] if made else parts)


def find_test_pairs(folder: Path, *, scale: int) -> list[TestPair]:
    """Find the HR images of a test set and their LR versions, in the field's usual layouts.

    Args:
        folder: holds images, or a folder of them named ``HR``, ``HR_jpg``, ``GTmod12``, ``GT`` or
            ``original``, or is itself that folder. LR images stand beside it in
            ``LR_bicubic/X2`` or ``LRbicx2``, under the same names with ``x2`` behind or not, and
            with any suffix that can be read.
        scale: upscaling factor per side.
    Raises:
        ImageReadError: no image is there.
    """
    hr_folder = next((folder / name for name in HR_FOLDERS if (folder / name).is_dir()), folder)
    root = folder.parent if hr_folder is folder and folder.name in HR_FOLDERS else folder
    paths = _images(hr_folder)
    if not paths:
        raise ImageReadError(
            f"No images in {hr_folder}. A test set is a folder of HR images, or a folder with "
            "HR/ and LR_bicubic/X2, X3, X4 inside."
        )
    lr_folders = (root / "LR_bicubic" / f"X{scale}", root / f"LRbicx{scale}")
    lr_folder = next((path for path in lr_folders if path.is_dir()), None)
    lr_paths = {path.stem: path for path in _images(lr_folder)} if lr_folder else {}
    stems = Counter(path.stem for path in paths)
    return [
        TestPair(
            name=path.stem if stems[path.stem] == 1 else path.name,
            hr_path=path,
            lr_path=lr_paths.get(f"{path.stem}x{scale}", lr_paths.get(path.stem)),
        )
        for path in paths
    ]


def find_test_set(folder: Path, *, scale: int, name: str | None = None) -> TestSet:
    """Find one test set.

    Args:
        folder: as for ``find_test_pairs``.
        scale: upscaling factor per side.
        name: None means ``names_of_test_sets``' choice for it alone.
    Raises:
        ImageReadError: no image is there.
    """
    pairs = find_test_pairs(folder, scale=scale)
    return TestSet(name=name or names_of_test_sets([folder])[0], folder=folder, pairs=tuple(pairs))


def names_of_test_sets(folders: Sequence[Path]) -> list[str]:
    """Name test sets after their folders, with as many parents as tell them apart.

    Args:
        folders: each another one; ``Set5/HR`` is named ``Set5``.
    Returns:
        One name per folder, in their order: ``Set5``, or ``ours/Set5`` and ``theirs/Set5``.
    """
    parts = [_naming_parts(folder) for folder in folders]
    depths = [1] * len(parts)
    while True:
        names = ["/".join(p[-depth:]) for p, depth in zip(parts, depths, strict=True)]
        count = Counter(names)
        longer = [
            depth + 1 if count[name] > 1 and depth < len(p) else depth
            for name, p, depth in zip(names, parts, depths, strict=True)
        ]
        if longer == depths:
            return names
        depths = longer


def hash_files(paths: Iterable[Path]) -> str:
    """The sha256 over the names and bytes of some files, in their order.

    A file that cannot be read counts by its name alone; whoever reads its pixels will say so.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode("utf-8", "surrogateescape") + b"\0")
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError:
            continue
    return digest.hexdigest()


def _naming_parts(folder: Path) -> tuple[str, ...]:
    parts = folder.expanduser().resolve().parts
    # The name of the root itself is a separator.
    parts = tuple(part for part in parts if part.strip("/\\")) or ("root",)
    return parts[:-1] if len(parts) > 1 and parts[-1] in HR_FOLDERS else parts


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in READABLE_SUFFIXES
        and not path.name.startswith(".")
        and not path.is_dir()
    )
