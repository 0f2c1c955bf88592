"""Find the images that the arguments of a command name."""

import fnmatch
import glob
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from escsr.cli.console import is_stream
from escsr.images.formats import UNREAD_SUFFIXES


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One image file to upscale."""

    path: Path
    """Where it is, as the user would write it."""

    subfolder: Path = Path()
    """Its folder below the folder, or the fixed part of the pattern, that was given; kept below
    the output folder."""

    is_named: bool = True
    """The user wrote this very file; otherwise it was found in a folder or by a pattern."""

    stream: str | None = None
    """What was typed for a pipe, of which ``path`` is a copy once it is read; None for a file."""

    @property
    def shown(self) -> Path:
        """What the user knows it by."""
        return self.path if self.stream is None else Path(self.stream)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Something that was found in a folder or by a pattern, and is not read."""

    path: Path
    """Where it is."""

    reason: str
    """Why, and what to do."""

    is_failure: bool = False
    """Images may be missing for it; otherwise it is none that could be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingInput:
    """Something the user typed that leads to no image."""

    text: str
    """What was typed."""

    reason: str
    """Why nothing came of it, and what to do."""


@dataclass(slots=True, kw_only=True)
class FoundInputs:
    """What lies behind the arguments."""

    files: list[InputFile] = field(default_factory=list)
    """The image files, each once."""

    left_out: list[LeftOut] = field(default_factory=list)
    """What is not read and deserves a word, each once."""

    missing: list[MissingInput] = field(default_factory=list)
    """Arguments without an image."""

    num_other_files: int = 0
    """Files that are no images by their names, such as text; not those with a leading dot."""


def collect_inputs(
    texts: Sequence[str],
    *,
    suffixes: Collection[str],
    recursive: bool = False,
    excluded_folder: Path | None = None,
) -> FoundInputs:
    """Find the image files behind the arguments, in their order, each name once.

    A file or folder that exists by the very name wins over the reading of that name as a pattern.
    Two names of one file (links) are two inputs; two spellings of one name are one.

    Args:
        texts: files, folders, patterns and pipes as typed.
        suffixes: lower-case suffixes such as ``.jpg`` that folders and patterns are searched for;
            a file that is named is taken whatever its suffix.
        recursive: search folders below folders too.
        excluded_folder: the output folder, left out when it lies below an input folder or the
            fixed part of a pattern.
    """
    found = FoundInputs()
    for text in texts:
        search = _Search(suffixes, recursive, excluded_folder)
        search.look_behind(text)
        found.files.extend(search.files)
        found.left_out.extend(search.left_out)
        found.num_other_files += search.num_other_files
        if not search.files:
            found.missing.append(MissingInput(text=text, reason=search.why_missing(text)))
        else:
            found.left_out.extend(search.unread)
    found.files = _without_duplicates(found.files)
    found.left_out = list({name_identity(entry.path): entry for entry in found.left_out}.values())
    return found


def is_collection(texts: Sequence[str], files: Sequence[InputFile]) -> bool:
    """Whether the arguments can mean more than one file, so that the output is a folder.

    That does not depend on how many files a folder holds, or a pattern matches, today.
    """
    if len(texts) > 1 or len(files) > 1:
        return True
    return any(existing_path(text, folder=True) or _is_pattern(text) for text in texts)


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
    """A key that is equal for two paths to the same file, through links or not, existing or not."""
    return os.path.normcase(os.path.realpath(path))


def name_identity(path: Path) -> str:
    """A key that is equal for two spellings of one name in one folder, whatever it leads to."""
    return os.path.normcase(os.path.join(os.path.realpath(path.parent), path.name))  # noqa: PTH118


class _Search:
    """What lies behind one argument."""

    def __init__(
        self, suffixes: Collection[str], recursive: bool, excluded_folder: Path | None
    ) -> None:
        self.files: list[InputFile] = []
        self.left_out: list[LeftOut] = []
        self.unread: list[LeftOut] = []
        """Images of kinds that are not read."""
        self.num_other_files = 0
        self._kinds: Counter[str] = Counter()
        self._suffixes = suffixes
        self._recursive = recursive
        self._excluded = None if excluded_folder is None else path_identity(excluded_folder)
        self._error: OSError | None = None

    def look_behind(self, text: str) -> None:
        """Fill the lists."""
        path = existing_path(text)
        if is_stream(text if path is None else str(path)):
            self.files.append(InputFile(path=Path(text), stream=text))
        elif path is None:
            self._match(text)
        elif path.is_dir():
            self._walk(path)
        else:
            self.files.append(InputFile(path=path))

    def why_missing(self, text: str) -> str:
        """Why there is no file, and what to do."""
        path = existing_path(text)
        if self._error is not None:
            reason = self._error.strerror or self._error
            return f"This folder cannot be read: {reason}. Check its permissions."
        if self._kinds:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self._kinds.items()))
            return f"There are only images that escsr does not read ({kinds}); convert them."
        if path is not None:
            below = "" if self._recursive else "; folders below it are searched with --recursive"
            return f"There is no image in this folder{below}."
        if glob.has_magic(text):
            return "No image file matches this pattern."
        return "There is no such file or folder."

    def _match(self, pattern: str) -> None:
        if not _is_pattern(pattern):
            return
        root, parts = _fixed_part(home_opened(pattern))
        for path in sorted(set(self._below(root, parts))):
            if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises below closed folders
                continue
            if not self._is_result(path, root):
                self._take(path, path.parent.relative_to(root))

    def _below(self, folder: Path, parts: Sequence[str]) -> Iterator[Path]:
        """What matches the parts of a pattern, as ``glob.glob`` has it, but for links below ``**``.

        They are not followed, as two of them that lead upwards would never come to an end.
        """
        part, rest = parts[0], parts[1:]
        if part == "**":
            for parent, subfolders, _ in os.walk(folder, onerror=self._note_closed):
                kept = sorted(name for name in subfolders if not name.startswith("."))
                subfolders[:] = [name for name in kept if not self._is_link(Path(parent, name))]
                yield from self._below(Path(parent), rest or ("*",))
            return
        for name in _matching_names(folder, part):
            if not rest:
                yield folder / name
            elif os.path.isdir(folder / name):  # noqa: PTH112
                yield from self._below(folder / name, rest)

    def _is_result(self, path: Path, root: Path) -> bool:
        """Whether it lies in the output folder, and that below what is searched."""
        if self._excluded is None or _is_within(path_identity(root), self._excluded):
            return False
        return _is_within(path_identity(path.parent), self._excluded)

    def _note_closed(self, error: OSError) -> None:
        reason = f"this folder cannot be read: {error.strerror}; check its permissions"
        path = Path(error.filename)
        self.left_out.append(LeftOut(path=path, reason=reason, is_failure=True))

    def _walk(self, folder: Path) -> None:
        def refused(error: OSError) -> None:
            if error.filename == str(folder):
                self._error = error
            else:
                self._note_closed(error)

        for parent, subfolders, names in os.walk(folder, onerror=refused):
            kept = sorted(name for name in subfolders if not name.startswith("."))
            subfolders[:] = [name for name in kept if self._descends(Path(parent, name))]
            for name in sorted(names):
                path = Path(parent, name)
                self._take(path, path.parent.relative_to(folder))

    def _descends(self, folder: Path) -> bool:
        if not self._recursive or path_identity(folder) == self._excluded:
            return False
        return not self._is_link(folder)

    def _is_link(self, folder: Path) -> bool:
        """Whether it is a link; then it has a word."""
        if not folder.is_symlink():
            return False
        if path_identity(folder) != self._excluded:
            reason = "a link to a folder, which is not followed; name it as an input"
            self.left_out.append(LeftOut(path=folder, reason=reason))
        return True

    def _take(self, path: Path, subfolder: Path) -> None:
        suffix = path.suffix.lower()
        # A leading dot marks files not meant for people: "._photo.jpg" of macOS is no image.
        if path.name.startswith("."):
            return
        if suffix in self._suffixes:
            if kind := special_kind(path):
                reason = f"{kind}, not a file; name it as an input if an image comes from it"
                self.left_out.append(LeftOut(path=path, reason=reason))
                return
            self.files.append(InputFile(path=path, subfolder=subfolder, is_named=False))
        elif kind := UNREAD_SUFFIXES.get(suffix):
            self._kinds[kind] += 1
            reason = f"{kind} is not read; convert it to PNG"
            self.unread.append(LeftOut(path=path, reason=reason))
        else:
            self.num_other_files += 1


def special_kind(path: Path) -> str | None:
    """What a name leads to that is neither a file nor a folder; None for a file, or nothing."""
    try:
        mode = path.stat().st_mode
    except (OSError, RuntimeError):  # reading it will say why
        return None
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    devices = {stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return (kinds | devices).get(stat.S_IFMT(mode))


def _is_within(identity: str, folder: str) -> bool:
    return identity == folder or identity.startswith(folder.rstrip(os.sep) + os.sep)


def _is_pattern(text: str) -> bool:
    return glob.has_magic(text) and existing_path(text) is None and not is_stream(text)


def _fixed_part(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder that a pattern is searched in, and the parts from the first with a sign on."""
    parts = pattern.parts
    for number, part in enumerate(parts):
        folder = Path(*parts[:number])
        if glob.has_magic(part) and not os.path.lexists(folder / part):
            rest = [part, *parts[number + 1 :]]
            doubled = zip(rest, [None, *rest], strict=False)
            return folder, tuple(p for p, before in doubled if p != "**" or before != "**")
    return pattern.parent, (pattern.name,)


def _matching_names(folder: Path, part: str) -> list[str]:
    """Names in a folder that a part of a pattern means; one of that very name wins."""
    if not glob.has_magic(part) or os.path.lexists(folder / part):
        return [part] if os.path.lexists(folder / part) else []
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names, not paths
    except OSError:
        return []
    shown = names if part.startswith(".") else [n for n in names if not n.startswith(".")]
    return fnmatch.filter(shown, part)


def home_opened(text: str) -> Path:
    """The path with a leading ``~`` opened, where the shell did not."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user: "~" is then a letter like any other
        return Path(text)


def _identity(file: InputFile) -> str:
    return name_identity(file.path) if file.stream is None else file.stream


def _without_duplicates(files: Iterable[InputFile]) -> list[InputFile]:
    first: dict[str, InputFile] = {}
    for file in files:
        known = first.get(key := _identity(file))
        if known is None or (file.is_named and not known.is_named):
            first[key] = file
    return list(first.values())
