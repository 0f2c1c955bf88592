"""Load foreign networks: any file that spandrel reads, and a user's ``module:callable``.

spandrel is imported here and in ``published``, and only when a file or name asks for it.
"""

import hashlib
import importlib
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from escsr.errors import CheckpointError, ConfigurationError, MissingExtraError
from escsr.rivals.size_padding import SizePadded
from escsr.weights.loading import is_module_callable

_PROBE_SIZE = (48, 64)
"""Height and width of the image that tells a factor: not square, and multiples of 16."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rival:
    """A network of others, ready to stand beside ours."""

    name: str
    """The file's stem, or ``module:callable``."""
    network: nn.Module
    """(B, 3, H, W) in [0, 1] -> (B, 3, scale*H, scale*W) for any H, W >= 1; eval mode, float32,
    CPU. Where it needs a certain size, the image is extended by reflection and the result cropped.
    """
    scale: int
    """Upscaling factor per side."""
    architecture: str
    """As spandrel calls it, or the class of a user's module."""
    parameters: int
    sha256: str | None
    """Of the file's bytes; None where there is no file."""
    size_multiple: int = 1
    """Sides of LR images are extended to multiples of this many pixels, which the network needs."""
    licence: str | None = None
    """Of the weights, where it is known; files of spandrel's kinds do not state one."""


def load_rival(name: str | os.PathLike[str]) -> Rival:
    """Load a foreign network.

    Args:
        name: a file of weights of an architecture that spandrel knows (``.pth``, ``.pt``,
            ``.ckpt``, ``.safetensors``), or ``module:callable``, where the callable takes no
            arguments and returns a ``torch.nn.Module``. The module is looked for in the current
            folder too.
    Raises:
        MissingExtraError: the file needs spandrel or torchvision, which is not installed.
        CheckpointError: the file is missing, damaged, refused, or of an unknown architecture.
        ConfigurationError: no such module or callable, or what it returns is no such network.
    """
    if isinstance(name, str) and is_module_callable(name):
        return _from_callable(name)
    return _from_file(Path(name).expanduser())


def _from_file(path: Path) -> Rival:
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror or error}); give a file of weights, a model's "
            "name, or module:callable."
        ) from error
    descriptor = _described(path)
    if descriptor.purpose == "Inpainting" or descriptor.input_channels != 3:
        raise CheckpointError(
            f"{path} is {descriptor.architecture.name}, for {descriptor.purpose} of images with "
            f"{descriptor.input_channels} channels; only networks from RGB to RGB are compared."
        )
    needs = descriptor.size_requirements
    network = SizePadded(
        descriptor.model.eval().requires_grad_(False).float(),
        scale=descriptor.scale,
        multiple=needs.multiple_of,
        minimum=needs.minimum,
        square=needs.square,
    )
    return Rival(
        name=path.stem,
        network=network.eval(),
        scale=descriptor.scale,
        architecture=descriptor.architecture.name,
        parameters=_count(network),
        sha256=sha256,
        size_multiple=needs.multiple_of,
    )


def _described(path: Path) -> Any:
    """What spandrel says about a file; its loader takes tensors alone, and runs no code."""
    try:
        import spandrel  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{path} is no ESC, and other networks need {error.name}: pip install 'escsr[rivals]'"
        ) from error
    library: Any = spandrel  # its types are unknown where it is not installed
    try:
        return library.ModelLoader(device="cpu").load_from_file(path)
    except library.UnsupportedModelError as error:
        raise CheckpointError(
            f"{path} is of no architecture that spandrel {library.__version__} knows. Write a "
            "function that builds the network, and give module:callable."
        ) from error
    except Exception as error:  # spandrel builds the network, which can fail in any way
        raise CheckpointError(
            f"{path} cannot be loaded by spandrel ({type(error).__name__}: {_first_line(error)}). "
            "It is damaged, or no file of weights; download or copy it again."
        ) from error


def _from_callable(name: str) -> Rival:
    module_name, attribute = name.split(":")
    factory = _attribute(_imported(module_name, name), attribute, name)
    try:
        network = factory if isinstance(factory, nn.Module) else factory()
    except Exception as error:  # a user's function can fail in any way
        raise ConfigurationError(
            f"{name}() failed with {type(error).__name__}: {_first_line(error)}. It is called "
            "without arguments and must return a torch.nn.Module."
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigurationError(
            f"{name}() returned a {type(network).__name__}; it must return a torch.nn.Module from "
            "(B, 3, H, W) in [0, 1] to (B, 3, scale*H, scale*W)."
        )
    network = network.eval().requires_grad_(False)
    return Rival(
        name=name,
        network=network,
        scale=_factor_of(network, name),
        architecture=type(network).__name__,
        parameters=_count(network),
        sha256=None,
    )


def _imported(module_name: str, name: str) -> Any:
    with _current_folder_on_path():
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
                raise ConfigurationError(
                    f"{name}: there is no module {error.name!r}, neither installed nor in "
                    f"{Path.cwd()}. Give module:callable, as in a Python import."
                ) from error
            raise ConfigurationError(
                f"{name}: importing {module_name} needs {error.name}, which is not installed."
            ) from error
        except Exception as error:  # a user's module can fail in any way
            raise ConfigurationError(
                f"{name}: importing {module_name} failed with {type(error).__name__}: "
                f"{_first_line(error)}."
            ) from error


@contextmanager
def _current_folder_on_path() -> Generator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # By value: the imported module may have changed the path as well.
        if folder in sys.path:
            sys.path.remove(folder)


def _attribute(module: Any, attribute: str, name: str) -> Any:
    thing = module
    for part in attribute.split("."):
        if not hasattr(thing, part):
            public = sorted(known for known in dir(module) if not known.startswith("_"))
            raise ConfigurationError(
                f"{name}: {module.__name__} has no {attribute!r}; it has "
                f"{', '.join(public[:20]) or 'nothing'}."
            )
        thing = getattr(thing, part)
    if not callable(thing):
        raise ConfigurationError(
            f"{name}: {attribute} is a {type(thing).__name__}; it must be a function or class that "
            "makes a torch.nn.Module."
        )
    return thing


def _factor_of(network: nn.Module, name: str) -> int:
    """The attribute ``scale``, or what a small image tells."""
    stated = getattr(network, "scale", None)
    if isinstance(stated, int) and not isinstance(stated, bool) and stated >= 1:
        return stated
    height, width = _PROBE_SIZE
    with torch.inference_mode():
        try:
            result = network(torch.full((1, 3, height, width), 0.5))
            size = tuple(result.shape)
        except Exception as error:  # a user's network can fail in any way
            raise ConfigurationError(
                f"{name}: its factor is unknown, since it has no whole number `scale`, and "
                f"an image of {width}x{height} pixels made it fail with {type(error).__name__}: "
                f"{_first_line(error)}."
            ) from error
    factor = size[-1] // width
    if factor < 1 or size != (1, 3, factor * height, factor * width):
        raise ConfigurationError(
            f"{name}: an image (1, 3, {height}, {width}) became {size}; it must become "
            f"(1, 3, scale*{height}, scale*{width})."
        )
    return factor


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300].rstrip(".") if lines else "no message"
