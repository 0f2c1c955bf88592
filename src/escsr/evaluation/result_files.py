"""The error for results that cannot be stored, which says what to do."""

from pathlib import Path

from escsr.errors import ImageWriteError


def not_writable(folder: Path, error: OSError) -> ImageWriteError:
    """What to raise where results cannot be stored."""
    return ImageWriteError(
        f"The results cannot be written to {folder}: {error.strerror or error}. Free space, or "
        "choose another folder."
    )
