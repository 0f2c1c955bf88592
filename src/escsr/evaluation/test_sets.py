"""Test sets as the field lays them out in folders, found without configuration."""

import hashlib
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from escsr.errors import ImageReadError
from escsr.images.files import READABLE_SUFFIXES

logger = logging.getLogger("escsr")

HR_FOLDERS = ("HR", "HR_jpg", "GTmod12", "GT", "original")
"""Names of the folder of HR images within a test set, in any case; the first found is taken. So is
``NAME_HR``, as in DIV2K, and ``image_SRF_2``, where HR and LR images stand side by side."""


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

    notes: tuple[str, ...] = ()
    """What must be known of its LR images: matched by more than their names, made, not used."""

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

    What must be known of the LR images is logged as a warning: that they were matched by what
    remains of two names, that some are made though there are files, or files not used.

    Args:
        folder: holds images, or a folder of them named as ``HR_FOLDERS`` says, or is itself that
            folder. LR images stand beside it in ``LR_bicubic/X2``, ``LRbicx2``, ``LR/x2``, ``LR``
            or ``X2``, after the same ``NAME_`` where HR has one, in any case; or among the HR
            images, as ``bird_LR.png`` beside ``bird_HR.png``. The LR image of ``bird.png`` is
            ``birdx2.png`` or ``bird.png``, with any suffix that can be read; or else the one of
            the same name when endings such as ``_HR``, ``_LR``, ``_LRBI``, ``_x2`` and ``_SRF_2``
            are left out on both sides.
        scale: upscaling factor per side.
    Raises:
        ImageReadError: no image is there, or two LR files for one HR image or the reverse.
    """
    test_set = find_test_set(folder, scale=scale)
    for note in test_set.notes:
        logger.warning("%s: %s", test_set.name, note)
    return list(test_set.pairs)


def find_test_set(folder: Path, *, scale: int, name: str | None = None) -> TestSet:
    """Find one test set.

    Args:
        folder: as for ``find_test_pairs``.
        scale: upscaling factor per side.
        name: None means ``names_of_test_sets``' choice for it alone.
    Raises:
        ImageReadError: no image is there.
    """
    name = name or names_of_test_sets([folder])[0]
    hr_folder, root = _hr_folder(folder, scale)
    hr_paths, lr_paths, notes = _told_apart_in_one_folder(_images(hr_folder), scale)
    if not hr_paths:
        raise ImageReadError(_no_images(hr_folder))
    lr_folders = _lr_folders(root, hr_folder)
    lr_folder = hr_folder if lr_paths else _lr_folder(lr_folders, scale)
    if lr_folder is not None and not lr_paths:
        lr_paths = _images(lr_folder)
    lr_of = _matched(hr_paths, lr_paths, scale)
    notes = [
        *notes,
        *_notes_on_folders(root, hr_folder, lr_folders, lr_folder, scale),
        *_notes_on_lr(hr_paths, lr_paths, lr_of, lr_folder, scale),
    ]
    stems = Counter(path.stem for path in hr_paths)
    pairs = [
        TestPair(
            name=path.stem if stems[path.stem] == 1 else path.name,
            hr_path=path,
            lr_path=lr_of.get(path),
        )
        for path in hr_paths
    ]
    return TestSet(name=name, folder=folder, pairs=tuple(pairs), notes=tuple(notes))


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
        if not path.is_file():  # a pipe would keep us waiting, and a device never ends
            continue
        try:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError:
            continue
    return digest.hexdigest()


def _naming_parts(folder: Path) -> tuple[str, ...]:
    parts = folder.expanduser().resolve().parts
    # The name of the root itself is a separator.
    parts = tuple(part for part in parts if part.strip("/\\")) or ("root",)
    return parts[:-1] if len(parts) > 1 and _is_plain_hr_name(parts[-1]) else parts


# Folders.

_LR_FOLDER = re.compile(r"lr(?:[_-]?(?P<kind>[a-z]+?))??(?:[_-]?x?(?P<scale>\d{1,2})x?)?", re.I)
_SCALE_FOLDER = re.compile(r"x?(\d{1,2})x?", re.I)
_BICUBIC = ("", "bi", "bic", "bicubic")


def _is_plain_hr_name(name: str) -> bool:
    """Whether a folder's name says HR and nothing else, so that its parent names the set."""
    known = {hr_name.lower() for hr_name in HR_FOLDERS}
    return name.lower() in known or re.fullmatch(r"image_srf_\d+", name, re.I) is not None


def _is_hr_name(name: str) -> bool:
    return _is_plain_hr_name(name) or name.lower().endswith("_hr")


def _hr_folder(folder: Path, scale: int) -> tuple[Path, Path]:
    """The folder of HR images, and the one where folders of LR images are looked for."""
    below = _folders(folder)
    for name in (*HR_FOLDERS, f"image_SRF_{scale}"):
        # A name in its usual case comes before the same in another.
        same = sorted((p for p in below if p.name.lower() == name.lower()), reverse=True)
        if same:
            return next((p for p in same if p.name == name), same[0]), folder
    prefixed = [path for path in below if _is_hr_name(path.name)]
    if len(prefixed) > 1 and not _images(folder):
        raise ImageReadError(
            f"{folder} holds several folders of HR images ({_some(prefixed)}). Give one of them."
        )
    if len(prefixed) == 1:
        return prefixed[0], folder
    return folder, folder.parent if _is_hr_name(folder.name) else folder


@dataclass(frozen=True, slots=True)
class _LrFolder:
    """A folder whose name says LR."""

    path: Path
    kind: str
    """Such as ``bicubic``, in lower case; empty where the name says no more."""
    scale: int | None

    def may_hold(self, scale: int) -> bool:
        """Whether there are images of a scale in it, as far as names tell."""
        return self.scale in (scale, None) and bool(_images(self.path))


def _lr_folder(lr_folders: Sequence[_LrFolder], scale: int) -> Path | None:
    """The folder of bicubic LR images of a scale: one that says most comes first."""
    found = [one for one in lr_folders if one.kind in _BICUBIC and one.may_hold(scale)]
    found.sort(key=lambda one: (one.scale is None, not one.kind, str(one.path)))
    return found[0].path if found else None


def _lr_folders(root: Path, hr_folder: Path) -> list[_LrFolder]:
    """Folders of LR images beside one of HR images, and of LR images of any kind and scale."""
    prefix = hr_folder.name[:-2] if hr_folder.name.lower().endswith("_hr") else ""
    found: list[_LrFolder] = []
    for path in _folders(root):
        if path == hr_folder:
            continue
        has_prefix = path.name.lower().startswith(prefix.lower())
        name = path.name[len(prefix) :] if has_prefix else path.name
        by_scale = _SCALE_FOLDER.fullmatch(name)
        if by_scale and "x" in name.lower() and hr_folder != root:
            found.append(_LrFolder(path, "", int(by_scale[1])))
        match = _LR_FOLDER.fullmatch(name)
        if match is None:
            continue
        kind = (match["kind"] or "").lower()
        found.append(_LrFolder(path, kind, int(match["scale"]) if match["scale"] else None))
        for below in _folders(path):
            by_scale = _SCALE_FOLDER.fullmatch(below.name)
            if by_scale:
                found.append(_LrFolder(below, kind, int(by_scale[1])))
    return found or _lr_folders_of_collection(hr_folder)


def _lr_folders_of_collection(hr_folder: Path) -> list[_LrFolder]:
    """Of ``HR/Set5/x2``: ``LR/Set5/x2`` and ``LR/LRBI/Set5/x2``, as in RCAN's collection."""
    found: list[_LrFolder] = []
    by_scale = _SCALE_FOLDER.fullmatch(hr_folder.name)
    its_scale = int(by_scale[1]) if by_scale else None
    for ancestor in list(hr_folder.parents)[:2]:
        if not _is_plain_hr_name(ancestor.name):
            continue
        rest = hr_folder.relative_to(ancestor)
        for path in _folders(ancestor.parent):
            for above in (path, *_folders(path)) if _LR_FOLDER.fullmatch(path.name) else ():
                match = _LR_FOLDER.fullmatch(above.name)
                if match is not None and (above / rest).is_dir():
                    found.append(_LrFolder(above / rest, (match["kind"] or "").lower(), its_scale))
    return found


def _notes_on_folders(
    root: Path,
    hr_folder: Path,
    lr_folders: Sequence[_LrFolder],
    lr_folder: Path | None,
    scale: int,
) -> list[str]:
    """Folders of images that are left out, and nothing else says so."""
    notes: list[str] = []
    known = {one.path for one in lr_folders}
    nested = [p for p in _folders(hr_folder) if p not in known and _holds_images(p)]
    if nested:
        notes.append(
            f"images in folders within {hr_folder.name} ({_some(nested)}) are not judged; give "
            "them as test sets of their own."
        )
    others = [one for one in lr_folders if one.path != lr_folder and one.may_hold(scale)]
    same_kind = [one.path for one in others if one.kind in _BICUBIC]
    if same_kind:
        notes.append(
            f"LR files are taken from {lr_folder}, and those in {_some(same_kind, whole=True)} "
            "are not used."
        )
    if lr_folder is not None:
        return notes
    beside = [
        path
        for path in (_folders(root) if root != hr_folder else ())
        if path not in (hr_folder, *known) and not _is_hr_name(path.name) and _holds_images(path)
    ]
    unused = [*(one.path for one in others), *beside]
    if unused:
        notes.append(
            f"the images in {_some(unused, whole=True)} are not used, since the name of no such "
            "folder says that it holds bicubic LR images; LR images are made by MATLAB's bicubic "
            "rule."
        )
    return notes


def _no_images(folder: Path) -> str:
    nested = [path for path in _folders(folder) if _holds_images(path)]
    advice = (
        f"There are images in folders within it ({_some(nested)}); give each as a test set."
        if nested
        else "A test set is a folder of HR images, or a folder with HR/ and LR_bicubic/X2, X3, X4 "
        "inside."
    )
    return f"No images in {folder}. {advice}"


# Names of files.

_Role = Literal["hr", "lr", "bicubic"]
_LR_WORD = "lr(?:[_-]?bi(?:c(?:ubic)?)?)?"
_WORD = rf"(?P<word>hr|gt(?:mod\d+)?|original|{_LR_WORD}|bi(?:c(?:ubic)?)?)"
_ENDING = re.compile(rf"(?P<rest>.+?)[_\-. ]{_WORD}", re.I)
_START = re.compile(rf"(?P<word>hr|gt|{_LR_WORD})[_\-. ](?P<rest>.+)", re.I)
_SCALE = re.compile(
    r"(?P<rest>.+?)(?:[_\-. ]?x(?P<a>\d{1,2})|[_\-. ](?P<b>\d{1,2})x|[_\-. ]srf_?(?P<c>\d{1,2}))",
    re.I,
)


@dataclass(frozen=True, slots=True)
class _NameParts:
    """What a file's name says beside which picture it is."""

    core: str
    """The rest, in lower case."""
    role: _Role | None
    scale: int | None

    @classmethod
    def of(cls, path: Path) -> "_NameParts":
        rest, role, scale = path.stem, None, None
        while True:
            if scale is None and (match := _SCALE.fullmatch(rest)):
                rest, scale = match["rest"], int(match["a"] or match["b"] or match["c"])
            elif role is None and (match := _ENDING.fullmatch(rest) or _START.fullmatch(rest)):
                rest, role = match["rest"], _role_of(match["word"])
            else:
                return cls(rest.lower(), role, scale)


def _role_of(word: str) -> _Role:
    first = word[:2].lower()
    return "lr" if first == "lr" else "bicubic" if first == "bi" else "hr"


def _told_apart_in_one_folder(
    paths: Sequence[Path], scale: int
) -> tuple[list[Path], list[Path], list[str]]:
    """HR images, and LR images of a scale that stand among them as ``bird_LR.png``; and notes.

    A name that says LR alone makes no LR image: the same picture must be there without.
    """
    parts = {path: _NameParts.of(path) for path in paths}
    cores_hr = {one.core for one in parts.values() if one.role == "hr"}
    cores_other = {one.core for one in parts.values() if one.role is None}
    small = [p for p in paths if parts[p].role == "lr" and parts[p].core in cores_hr | cores_other]
    labelled = {parts[path].core for path in small} & cores_hr
    large = [p for p in paths if p not in small and (not labelled or parts[p].role == "hr")]
    left_out = [path for path in paths if path not in small and path not in large]
    notes: list[str] = []
    if left_out:
        notes.append(
            f"{len(left_out)} images named neither HR nor LR among others that are "
            f"({_some(left_out)}) are not judged."
        )
    return large, [path for path in small if parts[path].scale in (scale, None)], notes


def _matched(hr_paths: Sequence[Path], lr_paths: Sequence[Path], scale: int) -> dict[Path, Path]:
    """The LR file of each HR image that has one.

    Raises:
        ImageReadError: two files could be the one, or one belongs to two pictures.
    """
    by_stem: defaultdict[str, list[Path]] = defaultdict(list)
    by_core: defaultdict[str, list[Path]] = defaultdict(list)
    for path in lr_paths:
        parts = _NameParts.of(path)
        by_stem[path.stem].append(path)
        if parts.role != "hr" and parts.scale in (scale, None):
            by_core[parts.core].append(path)
    matched: dict[Path, Path] = {}
    for path in hr_paths:
        core = _NameParts.of(path).core
        found = by_stem.get(f"{path.stem}x{scale}") or by_stem.get(path.stem) or by_core.get(core)
        if found is not None and len(found) > 1:
            raise ImageReadError(
                f"{path.name} has {len(found)} LR files for x{scale} in {found[0].parent}: "
                f"{_some(found)}. Leave one of them there."
            )
        if found:
            matched[path] = found[0]
    _require_one_picture_each(matched)
    return matched


def _require_one_picture_each(matched: Mapping[Path, Path]) -> None:
    users: defaultdict[Path, dict[str, Path]] = defaultdict(dict)
    for hr_path, lr_path in matched.items():
        # The same picture in two formats may share its LR image.
        users[lr_path][hr_path.stem] = hr_path
    for lr_path, pictures in users.items():
        if len(pictures) > 1:
            raise ImageReadError(
                f"{lr_path} could be the LR image of {_some(list(pictures.values()))}. Name LR "
                "files as their HR images."
            )


def _notes_on_lr(
    hr_paths: Sequence[Path],
    lr_paths: Sequence[Path],
    lr_of: Mapping[Path, Path],
    lr_folder: Path | None,
    scale: int,
) -> list[str]:
    if lr_folder is None:
        return []
    notes: list[str] = []
    plain = {f"{path.stem}{end}" for path in hr_paths for end in ("", f"x{scale}")}
    others = [(hr, lr) for hr, lr in lr_of.items() if lr.stem not in plain]
    if others:
        hr_path, lr_path = others[0]
        more = f", and {len(others) - 1} more" if len(others) > 1 else ""
        notes.append(
            f"LR files are not named as their HR images, and were matched by what the names have "
            f"in common: {hr_path.name} with {lr_path.name}{more}."
        )
    made = [path for path in hr_paths if path not in lr_of]
    if made:
        notes.append(
            f"{len(made)} of {len(hr_paths)} HR images have no LR file in {lr_folder} "
            f"({_some(made)}); their LR images are made by MATLAB's bicubic rule."
        )
    used = set(lr_of.values())
    left = [p for p in lr_paths if p not in used and _NameParts.of(p).scale in (scale, None)]
    if left:
        notes.append(
            f"{len(left)} LR files in {lr_folder} are not used, since no HR image has their name "
            f"({_some(left)})."
        )
    return notes


def _some(paths: Sequence[Path], *, whole: bool = False) -> str:
    names = [str(path) if whole else path.name for path in paths[:3]]
    return ", ".join(names) + (", …" if len(paths) > 3 else "")


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        found = [Path(entry) for entry in entries if entry.is_dir()]
    return sorted(path for path in found if not path.name.startswith("."))


def _holds_images(folder: Path) -> bool:
    """Whether there are any; a folder that may not be looked into holds none for us."""
    try:
        return bool(_images(folder))
    except OSError:
        return False


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
