"""From what the user typed to the list of image files: files, folders and globs."""

import glob
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One image file to upscale."""

    path: Path
    """Where it is, as the user would write it."""

    subfolder: Path = Path()
    """Its folder below the folder that was named; kept below the output folder."""

    is_named: bool = True
    """The user wrote this very file; otherwise it was found in a folder or by a glob."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingInput:
    """Something the user typed that leads to no image."""

    text: str
    """What was typed."""

    reason: str
    """Why nothing came of it, and what to do."""


def collect_inputs(
    texts: Sequence[str],
    *,
    suffixes: Collection[str],
    recursive: bool = False,
    excluded_folder: Path | None = None,
) -> tuple[list[InputFile], list[MissingInput]]:
    """Find the image files behind the arguments, in their order, each once.

    A file or folder that exists by the very name wins over the reading of that name as a glob.

    Args:
        texts: files, folders and globs as typed.
        suffixes: lower-case suffixes such as ``.jpg`` that folders and globs are searched for;
            a file that is named is taken whatever its suffix.
        recursive: search folders below folders too.
        excluded_folder: the output folder, left out when it lies inside an input folder.
    Returns:
        The files without duplicates, and the arguments behind which there are none.
    """
    files: list[InputFile] = []
    missing: list[MissingInput] = []
    for text in texts:
        found = list(_files_behind(text, suffixes, recursive, excluded_folder))
        files.extend(found)
        if not found:
            missing.append(MissingInput(text=text, reason=_why_missing(text, recursive)))
    return _without_duplicates(files), missing


def is_collection(texts: Sequence[str], files: Sequence[InputFile]) -> bool:
    """Whether the arguments mean more than one file, so that the output is a folder."""
    return len(texts) > 1 or len(files) > 1 or any(existing_path(t, folder=True) for t in texts)


def existing_path(text: str, *, folder: bool = False) -> Path | None:
    """The path of that very name (``~`` opened where the shell did not), if it exists.

    Args:
        text: what was typed.
        folder: accept folders only.
    """
    accepts = os.path.isdir if folder else os.path.exists  # pathlib's raise for very long names
    candidates = (Path(text), home_opened(text)) if text else ()
    return next((path for path in candidates if accepts(path)), None)


def path_identity(path: Path) -> str:
    """A key that is equal for two spellings of the same file, existing or not."""
    return os.path.normcase(os.path.realpath(path))


def _files_behind(
    text: str, suffixes: Collection[str], recursive: bool, excluded_folder: Path | None
) -> Iterator[InputFile]:
    path = existing_path(text)
    if path is None:
        yield from _glob_files(text, suffixes)
    elif path.is_dir():
        yield from _folder_files(path, suffixes, recursive, excluded_folder)
    else:
        yield InputFile(path=path)


def _glob_files(pattern: str, suffixes: Collection[str]) -> Iterator[InputFile]:
    matches = glob.glob(str(home_opened(pattern)), recursive=True)  # noqa: PTH207 - absolute too
    for path in map(Path, sorted(matches)):
        if path.is_file() and _is_image_name(path.name, suffixes):
            yield InputFile(path=path, is_named=False)


def _folder_files(
    folder: Path, suffixes: Collection[str], recursive: bool, excluded_folder: Path | None
) -> Iterator[InputFile]:
    excluded = None if excluded_folder is None else path_identity(excluded_folder)
    for parent, subfolders, names in os.walk(folder):
        kept = sorted(name for name in subfolders if not name.startswith("."))
        subfolders[:] = [
            s for s in kept if recursive and path_identity(Path(parent, s)) != excluded
        ]
        for name in sorted(names):
            path = Path(parent, name)
            if _is_image_name(name, suffixes):
                subfolder = path.parent.relative_to(folder)
                yield InputFile(path=path, subfolder=subfolder, is_named=False)


def _is_image_name(name: str, suffixes: Collection[str]) -> bool:
    # A leading dot marks files not meant for people: "._photo.jpg" of macOS is no image.
    return not name.startswith(".") and Path(name).suffix.lower() in suffixes


def home_opened(text: str) -> Path:
    """The path with a leading ``~`` opened, where the shell did not."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user: "~" is then a letter like any other
        return Path(text)


def _why_missing(text: str, recursive: bool) -> str:
    path = existing_path(text)
    if path is not None:
        if not os.access(path, os.R_OK):
            return "This folder may not be read; check its permissions."
        below = "" if recursive else "; folders below it are searched with --recursive"
        return f"There is no image in this folder{below}."
    if glob.has_magic(text):
        return "No image file matches this pattern."
    return "There is no such file or folder."


def _without_duplicates(files: Iterable[InputFile]) -> list[InputFile]:
    first: dict[str, InputFile] = {}
    for file in files:
        known = first.get(key := path_identity(file.path))
        if known is None or (file.is_named and not known.is_named):
            first[key] = file
    return list(first.values())
