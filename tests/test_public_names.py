"""What ``import escsr`` promises."""

import subprocess
import sys
from typing import get_type_hints

import pytest

import escsr
import escsr.errors

PUBLIC_NAMES = [
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


def test_the_public_names_are_frozen() -> None:
    """A change of this list is a change of what users rely on: say so in the changelog."""
    assert escsr.__all__ == PUBLIC_NAMES
    assert dir(escsr) == sorted(PUBLIC_NAMES)


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_every_public_name_is_there(name: str) -> None:
    """Also those that are imported when first used."""
    if name == "ESC":
        pytest.importorskip("torch")
    assert getattr(escsr, name) is not None


def test_every_error_is_public() -> None:
    """A user can catch what the package raises without looking for it."""
    errors = {name for name in vars(escsr.errors) if name.endswith("Error")}
    assert errors <= set(PUBLIC_NAMES)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="no attribute 'upscaller'"):
        _ = escsr.upscaller  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_heavy() -> None:
    """No torch, no numpy, no image library, until a name that needs them is used."""
    program = (
        "import sys, escsr; heavy = {'torch', 'numpy', 'pyvips', 'safetensors', 'rich', 'typer'};"
        "print(*heavy & set(sys.modules)); print(escsr.__version__)"
    )
    lines = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert lines == ["", escsr.__version__]


def test_load_model_is_typed_as_promised() -> None:
    """It returns the network's class, whose .config and .scale are typed."""
    pytest.importorskip("torch")
    names = {"ESC": escsr.ESC, "AttentionBackend": str}  # imported where they are used
    assert get_type_hints(escsr.load_model, localns=names)["return"] is escsr.ESC
