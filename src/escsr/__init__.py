"""Efficient image super-resolution with ESC: public names only.

Names are imported when they are first used, so that ``import escsr`` and ``escsr --help`` answer at
once, and what needs no torch does not import it.
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
    import_torch,
)
from escsr.version import __version__

if TYPE_CHECKING:
    from escsr.family import ESCConfig
    from escsr.model import ESC
    from escsr.upscaling import Upscaler, upscale
    from escsr.weights import bundled_models, inspect_checkpoint, load_model, open_network

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
    "open_network",
    "upscale",
]


def __getattr__(name: str) -> Any:
    if name in ("Upscaler", "upscale"):
        from escsr import upscaling

        return upscaling.Upscaler if name == "Upscaler" else upscaling.upscale
    if name == "ESCConfig":
        from escsr.family import ESCConfig

        return ESCConfig
    if name == "ESC":
        import_torch("escsr.ESC, a torch.nn.Module,")
        from escsr.model import ESC

        return ESC
    if name in ("load_model", "open_network"):
        from escsr.weights import loading

        return loading.load_model if name == "load_model" else loading.open_network
    if name == "bundled_models":
        from escsr.weights import bundled_models

        return bundled_models
    if name == "inspect_checkpoint":
        from escsr.weights import inspect_checkpoint

        return inspect_checkpoint
    raise AttributeError(f"module 'escsr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
