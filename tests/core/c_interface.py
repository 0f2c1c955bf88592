"""The core's C interface as C sees it, for tests of what callers can do wrong."""

import ctypes
import json
from collections.abc import Mapping
from ctypes import byref, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np

from escsr.core.library import OK, Array, Description, Error, core_library


@dataclass(frozen=True, slots=True)
class Answer:
    """What a function returned."""

    status: int
    message: str


def call(name: str, *arguments: Any) -> Answer:
    """Call a function whose last argument is an ``escsr_error``."""
    error = Error()
    status = getattr(core_library(), name)(*arguments, byref(error))
    message = error.message.decode()
    assert error.status == status
    assert bool(message) == (status != OK), (status, message)
    assert message.isprintable()
    return Answer(status, message)


class OpenedNetwork:
    """A network that is closed at the end of ``with``; ``answer`` says why there is none."""

    def __init__(self, function: str, *arguments: Any) -> None:
        self.handle = c_void_p(1)
        self.answer = call(function, *arguments, byref(self.handle))
        assert bool(self.handle.value) == (self.answer.status == OK)

    def __enter__(self) -> "OpenedNetwork":
        return self

    def __exit__(self, *_: object) -> None:
        core_library().escsr_close(self.handle)

    def describe(self) -> Description:
        """What the library says about it; its text lives as long as the network."""
        description = Description()
        assert core_library().escsr_describe(self.handle, byref(description)) == OK
        return description

    def run(self, image: np.ndarray) -> tuple[Answer, np.ndarray]:
        """Enlarge (3, H, W) by the network's scale."""
        scale = self.describe().scale
        height, width = image.shape[1:]
        result = np.full((3, scale * height, scale * width), np.nan, np.float32)
        sizes = (height, width, result.ctypes.data, *result.shape[1:])
        return call("escsr_run", self.handle, image.ctypes.data, *sizes, None), result


def open_bytes(content: bytes) -> OpenedNetwork:
    """Open a file's bytes, copied so that sanitizers see what is read beyond their end."""
    copy = ctypes.create_string_buffer(content, max(len(content), 1))
    return OpenedNetwork("escsr_open", copy, len(content))


def open_arrays(configuration: str | Mapping[str, Any], arrays: Mapping[str, Any]) -> OpenedNetwork:
    """Open float32 arrays by name."""
    text = configuration if isinstance(configuration, str) else json.dumps(dict(configuration))
    kept = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    given = (Array * len(kept))(
        *(
            Array(name.encode(), array.ctypes.data, b"F32", array.ndim, shape_of(array))
            for name, array in kept.items()
        )
    )
    return OpenedNetwork("escsr_open_arrays", text.encode(), given, len(kept))


def shape_of(array: np.ndarray) -> Any:
    """As C has it."""
    return (c_int64 * array.ndim)(*array.shape)
