"""The box: the trained weights that come with the package."""

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from escsr.errors import CheckpointError, UnknownModelError
from escsr.family.variants import VARIANTS, unknown_name_message
from escsr.weights.header import WeightsHeader, read_header

DEFAULT_SCALE = 4
"""Taken where nobody says a scale and the box has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BundledModel:
    """One trained network in the box."""

    name: str
    """Such as ``esc-tiny``; with ``-x4`` behind it, the name of one file."""
    scale: int
    """Upscaling factor per side."""
    path: Path
    size_bytes: int
    """Of the file."""
    header: WeightsHeader
    """Configuration, licence, provenance, measured quality."""


def bundled_models(folder: Path | None = None) -> list[BundledModel]:
    """List the trained networks that need no download, by name and scale; reads headers only.

    Args:
        folder: to look in instead of the package's own.
    Raises:
        CheckpointError: a file in it is damaged.
    """
    return [
        BundledModel(
            name=name,
            scale=scale,
            path=path,
            size_bytes=path.stat().st_size,
            header=read_header(path),
        )
        for (name, scale), path in sorted(_bundled_paths(folder).items())
    ]


def find_bundled(name: str, scale: int | None, folder: Path | None = None) -> Path:
    """The file of a name in the box.

    Args:
        name: such as ``esc-tiny``, in lower case.
        scale: upscaling factor; None means x4 where the box has it, else its largest.
        folder: to look in instead of the package's own.
    Raises:
        UnknownModelError: no network has that name.
        CheckpointError: the network is known, but its weights at that scale are not in the box.
    """
    paths = _bundled_paths(folder)
    names = {known for known, _ in paths}
    if name not in names and name not in VARIANTS:
        message = unknown_name_message(name, sorted(names | set(VARIANTS)))
        raise UnknownModelError(f"{message} For weights of your own, give the path of their file.")
    scales = sorted(known_scale for known, known_scale in paths if known == name)
    if not scales:
        in_box = ", ".join(sorted(names)) or "nothing yet"
        raise CheckpointError(
            f"{name} is a known network, but no trained weights of it come with this package (in "
            f"the box: {in_box}). Give the path of a file instead, such as a .pth of the "
            "reference's authors."
        )
    if scale is None:
        scale = DEFAULT_SCALE if DEFAULT_SCALE in scales else scales[-1]
    if scale not in scales:
        raise CheckpointError(
            f"There are no weights of {name} at x{scale}; in the box are "
            f"{', '.join(f'x{known}' for known in scales)}. Take one of these and resize its "
            "result, or give the path of a file."
        )
    return paths[name, scale]


def _bundled_paths(folder: Path | None) -> dict[tuple[str, int], Path]:
    """(name, scale) -> file; both stand in the file's name, ``esc-tiny-x4.safetensors``."""
    if folder is None:
        folder = Path(str(files("escsr.weights") / "bundled"))
    matches = (
        (re.fullmatch(r"(.+)-x(\d+)", path.stem), path) for path in folder.glob("*.safetensors")
    )
    return {(match[1], int(match[2])): path for match, path in matches if match is not None}
