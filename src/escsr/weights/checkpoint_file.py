"""Read a file of tensors, safetensors or PyTorch's, without ever running code from it."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from escsr.errors import CheckpointError

Container = Literal["safetensors", "pytorch"]

Read = TypeVar("Read")

_SECTIONS = ("params_ema", "params", "state_dict")
"""Where a checkpoint keeps a state dict, the best first: an average of the training steps beats the
last step."""

_WRAPPER_PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointFile:
    """The tensors of one file, and what stood beside them."""

    tensors: dict[str, Tensor]
    """As stored: names, dtypes. They may be mapped from the file: copy what is kept."""
    metadata: dict[str, str]
    """A safetensors file's header; empty for PyTorch's."""
    container: Container
    """Kind of file, told by its content and not by its suffix."""
    section: str
    """Which of a PyTorch checkpoint's state dicts was taken; empty where there was only one."""


def read_checkpoint(path: Path) -> CheckpointFile:
    """Read the tensors of a ``.safetensors``, ``.pth``, ``.pt`` or ``.ckpt`` file.

    Raises:
        CheckpointError: no such file, empty, truncated, not a checkpoint, or a pickle that would
            run code.
    """
    beginning = _beginning(path)
    if _is_safetensors(path, beginning):
        tensors, metadata = _read_safetensors(path)
        return CheckpointFile(
            tensors=tensors, metadata=metadata, container="safetensors", section=""
        )
    if not beginning.startswith((b"PK", b"\x80")):
        raise CheckpointError(
            f"{path} is neither a safetensors nor a PyTorch file (it begins with "
            f"{beginning[:8]!r}). Give a file of weights: .safetensors, .pth, .pt or .ckpt."
        )
    section, tensors = _choose_section(path, _load_pickle(path))
    return CheckpointFile(
        tensors=_without_wrapper(tensors), metadata={}, container="pytorch", section=section
    )


def read_metadata(path: Path) -> dict[str, str]:
    """Read the header of a safetensors file and none of its tensors; empty for other files.

    Raises:
        CheckpointError: no such file, empty, or a truncated safetensors file.
    """
    if not _is_safetensors(path, _beginning(path)):
        return {}
    return _from_safetensors(path, _metadata)


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            beginning = file.read(16)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} does not exist; give the path of a file of weights, or a model's name."
        ) from error
    except IsADirectoryError as error:
        raise CheckpointError(f"{path} is a folder; give one file of weights.") from error
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror or error}); check its permissions."
        ) from error
    if not beginning:
        raise CheckpointError(f"{path} is empty (0 bytes); download or copy it again.")
    return beginning


def _is_safetensors(path: Path, beginning: bytes) -> bool:
    return path.suffix.lower() == ".safetensors" or beginning[8:9] == b"{"


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    def read(file: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
        names = cast("list[str]", file.keys())
        return {name: file.get_tensor(name) for name in names}, _metadata(file)

    return _from_safetensors(path, read)


def _metadata(file: Any) -> dict[str, str]:
    return file.metadata() or {}


def _from_safetensors(path: Path, read: Callable[[Any], Read]) -> Read:
    try:
        with cast("Any", safe_open(str(path), "pt", device="cpu")) as file:
            return read(file)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}): truncated, changed, or of another "
            "kind. Download or copy it again."
        ) from error


def _load_pickle(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            # torch warns of pickle protocols other than its own; the result is checked anyway.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, str(error))) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else "unexpected end"
        raise CheckpointError(
            f"{path} is not a whole PyTorch checkpoint ({reason}): truncated, damaged, or of "
            "another kind. Download or copy it again."
        ) from error


def _refusal(path: Path, reason: str) -> str:
    asked_for = re.search(r"GLOBAL ([\w.]+)", reason)
    if asked_for is None:
        return (
            f"{path} is a pickle, but not one of tensors as torch.save writes it, and nothing else "
            "is loaded, because a pickle can run code. Save the state dict with torch.save or "
            "safetensors."
        )
    return (
        f"{path} was refused: it asks for {asked_for.group(1)!r} while it is read. A pickle that "
        "names more than tensors and plain containers can run any code on this machine, so only "
        "those are loaded. If you trust its source, save its state dict alone, with torch.save or "
        "safetensors, and give that file; else delete it."
    )


def _choose_section(path: Path, content: object) -> tuple[str, dict[str, Tensor]]:
    if isinstance(content, Mapping):
        mapping = cast("Mapping[object, object]", content)
        for section in _SECTIONS:
            if section in mapping:
                return section, _require_state(f"{section!r} of {path}", mapping[section])
        return "", _require_state(str(path), mapping)
    return "", _require_state(str(path), content)


def _require_state(where: str, content: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{where} holds a {type(content).__name__} instead of a state dict (names -> tensors)."
            " Save network.state_dict() and give that file."
        )
    mapping = cast("Mapping[object, object]", content)
    state = {
        name: value
        for name, value in mapping.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if len(state) != len(mapping) or not state:
        keys = ", ".join(map(repr, list(mapping)[:5])) or "nothing"
        raise CheckpointError(
            f"{where} is no state dict: not all of it is tensors by name. It holds {keys}; looked "
            f"for were {', '.join(_SECTIONS)} or a bare state dict."
        )
    return state


def _without_wrapper(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _WRAPPER_PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
