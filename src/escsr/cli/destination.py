"""Where results go: the rule that ``--output`` and its friends make, and the name of each file."""

import os
from dataclasses import dataclass
from pathlib import Path

from escsr.cli.collection import InputFile, home_opened, special_kind
from escsr.cli.options import suffix_names
from escsr.errors import ConfigurationError
from escsr.images.formats import READABLE_SUFFIXES, WRITABLE_SUFFIXES, format_for_writing

FALLBACK_SUFFIX = ".png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where results go; with neither file nor folder they go beside their inputs."""

    file: Path | None = None
    """The one output file."""

    to_stdout: bool = False
    """The one result goes to standard output, by way of a file in ``folder``."""

    folder: Path | None = None
    """The output folder; it need not exist."""

    name_suffix: str | None = None
    """Put between stem and ``.png``; None means the size, or nothing in an output folder."""

    image_suffix: str | None = None
    """The format that was asked for, as ``.png``; None means the input's where it can be."""

    def path_for(
        self,
        file: InputFile,
        *,
        size_label: str,
        image_suffix: str,
        keeps_suffix: bool = False,
    ) -> Path:
        """The output of one input.

        Args:
            file: the input.
            size_label: names the size beside the input, as ``x4`` or ``1920x1080``.
            image_suffix: of the format that the result is written in, as ``.png``.
            keeps_suffix: put the input's own suffix before that: ``photo.jpg.png``.
        """
        if self.file is not None:
            return self.file
        default = f"_{size_label}" if self.folder is None else ""
        name_suffix = default if self.name_suffix is None else self.name_suffix
        parent = file.path.parent if self.folder is None else self.folder / file.subfolder
        stem = file.path.name if keeps_suffix else file.path.stem
        return parent / f"{stem}{name_suffix}{image_suffix}"

    def first_choice_suffix(self, file: InputFile) -> str:
        """The suffix, as ``.png``, of the format to try first for one input."""
        if self.file is not None:
            return self.file.suffix
        if self.image_suffix is not None:
            return self.image_suffix
        suffix = file.path.suffix
        return suffix if suffix.lower() in WRITABLE_SUFFIXES else FALLBACK_SUFFIX

    @property
    def format_is_free(self) -> bool:
        """Nobody asked for a format, so that another may be taken where the first cannot do."""
        return self.file is None and self.image_suffix is None


def destination_of(
    text: str | None,
    *,
    is_collection: bool,
    name_suffix: str | None,
    image_suffix: str | None,
) -> Destination:
    """Read ``--output`` together with ``--suffix`` and ``--format``.

    Args:
        text: what was given to ``--output``; None where it was not.
        is_collection: the inputs may be more than one file.
        name_suffix: what was given to ``--suffix``.
        image_suffix: the format that was asked for, as ``.png``.
    Raises:
        ConfigurationError: the output cannot be what it is asked to be.
    """
    if text is None:
        return Destination(name_suffix=name_suffix, image_suffix=image_suffix)
    path = home_opened(text)
    if is_output_folder(text) or is_collection:
        _check_folder_name(path, text)
        _check_folders(path, "folder")
        return Destination(folder=path, name_suffix=name_suffix, image_suffix=image_suffix)
    _check_folders(path.parent, "file")
    if kind := special_kind(path):
        raise ConfigurationError(
            f"The output {path} is {kind}, not a file, and cannot be replaced by a result. Name a "
            "file, or write to standard output with -o - and redirect that."
        )
    _check_file_suffix(path, image_suffix)
    return Destination(file=path)


def is_output_folder(text: str) -> bool:
    """Whether ``--output`` names a folder by itself: it is one, or ends in a slash."""
    ends_in_slash = text.endswith(("/", os.sep))
    # Path.is_dir raises for very long names and below closed folders.
    return ends_in_slash or os.path.isdir(home_opened(text))  # noqa: PTH112


def _check_folder_name(folder: Path, text: str) -> None:
    """Refuse to make a folder with the name of an image, unless a slash says so."""
    if is_output_folder(text) or folder.suffix.lower() not in READABLE_SUFFIXES:
        return
    raise ConfigurationError(
        f"The output {folder} has the name of an image file, and there can be several results. "
        "Name a folder, or end the name with a slash if it is one."
    )


def _check_folders(folder: Path, what: str) -> None:
    existing = next((p for p in (folder, *folder.parents) if os.path.lexists(p)), None)
    if existing is not None and not existing.is_dir():
        raise ConfigurationError(
            f"The output {what} cannot be made: {existing} is a file, not a folder. "
            "Give another --output."
        )


def _check_file_suffix(path: Path, image_suffix: str | None) -> None:
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        if image_suffix is not None:
            raise ConfigurationError(
                f"The output {path} is a file without the suffix of its format; name it "
                f"{path.name}{image_suffix}. For a folder, end the name with a slash."
            )
        raise ConfigurationError(
            f"The output {path} has no suffix of a known format; known are "
            f"{suffix_names(WRITABLE_SUFFIXES)}. For a folder, end the name with a slash."
        )
    if image_suffix is None or image_suffix in format_for_writing(path).suffixes:
        return
    raise ConfigurationError(
        f"The output {path} and --format {image_suffix.removeprefix('.')} contradict each other; "
        "leave out one of them."
    )
