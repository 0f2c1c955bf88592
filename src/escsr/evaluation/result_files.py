"""Files of results: complete or not there, and an error that says what to do."""

import contextlib
import secrets
from pathlib import Path

from escsr.errors import ImageWriteError


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole, by way of a temporary one beside it; an old one is replaced.

    Raises:
        OSError: the disk is full, or the folder is closed to us; an old file stays then.
    """
    temporary = path.parent / f".escsr-{secrets.token_hex(6)}.partial"
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def not_writable(folder: Path, error: OSError) -> ImageWriteError:
    """What to raise where results cannot be stored."""
    return ImageWriteError(
        f"The results cannot be written to {folder}: {error.strerror or error}. Free space, or "
        "choose another folder."
    )
