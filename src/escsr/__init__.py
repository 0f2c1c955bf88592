"""Efficient image super-resolution with ESC: public names only.

The names that need torch are imported when they are first used, so that ``import escsr`` and
``escsr --help`` answer at once.
"""

from typing import TYPE_CHECKING, Any

from escsr.errors import (
    CheckpointError,
    ConfigurationError,
    DeviceMemoryError,
    DiskSpaceError,
    EscsrError,
    ImageError,
    ImageFormatError,
    ImageReadError,
    ImageSizeError,
    ImageValueError,
    ImageWriteError,
    MissingExtraError,
    NothingToEnlargeError,
    OutputExistsError,
    RecipeError,
    TrainingError,
    UnknownModelError,
)
from escsr.version import __version__

if TYPE_CHECKING:
    from escsr.family import ESCConfig
    from escsr.inference.one_call import upscale
    from escsr.inference.upscaler import Upscaler
    from escsr.model import ESC
    from escsr.weights import bundled_models, inspect_checkpoint, load_model

__all__ = [
    "ESC",
    "CheckpointError",
    "ConfigurationError",
    "DeviceMemoryError",
    "DiskSpaceError",
    "ESCConfig",
    "EscsrError",
    "ImageError",
    "ImageFormatError",
    "ImageReadError",
    "ImageSizeError",
    "ImageValueError",
    "ImageWriteError",
    "MissingExtraError",
    "NothingToEnlargeError",
    "OutputExistsError",
    "RecipeError",
    "TrainingError",
    "UnknownModelError",
    "Upscaler",
    "__version__",
    "bundled_models",
    "inspect_checkpoint",
    "load_model",
    "upscale",
]


def __getattr__(name: str) -> Any:
    if name in ("Upscaler", "upscale"):
        from escsr import inference

        return inference.Upscaler if name == "Upscaler" else inference.upscale
    if name == "ESCConfig":
        from escsr.family import ESCConfig

        return ESCConfig
    if name == "ESC":
        from escsr.model import ESC

        return ESC
    if name in ("bundled_models", "inspect_checkpoint", "load_model"):
        from escsr import weights

        return {
            "bundled_models": weights.bundled_models,
            "inspect_checkpoint": weights.inspect_checkpoint,
            "load_model": weights.load_model,
        }[name]
    raise AttributeError(f"module 'escsr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
