"""Every error that escsr raises on purpose.

Each message says what came, what is allowed, and what to do::

    EscsrError
    ├── ConfigurationError (ValueError)   a network, a scale or an option that cannot be
    │   └── UnknownModelError             no model of that name; the nearest names are listed
    ├── CheckpointError                   a file of weights that cannot be used
    ├── ImageError                        an image that cannot be used
    │   ├── ImageReadError                missing, unreadable, truncated, not an image
    │   ├── ImageWriteError               the result cannot be stored: folder, permission, disk full
    │   ├── ImageFormatError              the output format cannot hold the result
    │   ├── ImageSizeError (ValueError)   too small, too large, not a multiple
    │   │   └── NothingToEnlargeError     the image has the size that was asked for, or more
    │   └── ImageValueError (ValueError)  an array or tensor of the wrong dtype, shape or range
    ├── OutputExistsError                 would overwrite a file without being asked to
    ├── DeviceMemoryError                 the smallest tile does not fit; how much is needed
    ├── DiskSpaceError                    no room for the temporary files of an exact result
    ├── RecipeError (ValueError)          a training recipe with a wrong key or value
    ├── TrainingError                     training cannot go on: NaN loss, no images, wrong state
    └── MissingExtraError (ImportError)   an optional package is needed; names the extra
"""

from importlib import import_module
from typing import Any


class EscsrError(Exception):
    """Base of all errors of this package; catch it to catch them all."""


class ConfigurationError(EscsrError, ValueError):
    """A network, a scale or an option that cannot be."""


class UnknownModelError(ConfigurationError):
    """No model has that name; the message lists the nearest names."""


class CheckpointError(EscsrError):
    """A file of weights that cannot be used."""


class ImageError(EscsrError):
    """An image that cannot be used."""


class ImageReadError(ImageError):
    """An image file is missing, unreadable, truncated, or no image at all."""


class ImageWriteError(ImageError):
    """A result could not be stored; no partial file is left behind."""


class ImageFormatError(ImageError):
    """The chosen file format cannot hold the result."""


class ImageSizeError(ImageError, ValueError):
    """An image is too small, too large, or not the multiple that is needed."""


class NothingToEnlargeError(ImageSizeError):
    """An image is as large already as the size that was asked for, or larger."""


class ImageValueError(ImageError, ValueError):
    """An array or tensor has the wrong dtype, shape or range, or holds NaN."""


class OutputExistsError(EscsrError):
    """Writing would replace a file, and nobody asked for that."""


class DeviceMemoryError(EscsrError):
    """Even the smallest tile does not fit into the memory at hand."""

    def __init__(self, message: str, *, needed_bytes: int | None = None) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
        """Memory that would do, beside the program itself; None where the work had begun."""


class DiskSpaceError(EscsrError):
    """The temporary files of an exact result do not fit on their disk, or cannot be read back."""


class RecipeError(EscsrError, ValueError):
    """A training recipe holds an unknown key or a value that is not allowed."""


class TrainingError(EscsrError):
    """Training cannot go on; the message says why and how to continue."""


class MissingExtraError(EscsrError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""


def import_torch(purpose: str) -> Any:
    """Torch, where something needs it.

    Args:
        purpose: what needs it, to begin a sentence.
    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module("torch")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError(
            f"{purpose} needs torch, which is not installed: pip install 'escsr[torch]'"
        ) from error
