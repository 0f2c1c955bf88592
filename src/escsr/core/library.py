"""Find the compiled core, or compile it, and load it: the functions of ``escsr.h`` for ctypes.

Structures have the names and fields that they have there; see there for what they mean.
"""

import ctypes
import functools
import logging
import os
import sys
import threading
from collections.abc import Sequence
from ctypes import (
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_double,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_void_p,
    sizeof,
)
from pathlib import Path

from escsr.core.building import CompilingError, built_library, compile_core, library_name
from escsr.errors import ConfigurationError

logger = logging.getLogger("escsr")

INTERFACE_VERSION = 100
"""ESCSR_INTERFACE_VERSION that this file declares."""

OK = 0
INVALID_ARGUMENT = 1
INVALID_FILE = 2
INVALID_CONFIGURATION = 3
MISSING_WEIGHTS = 4
OUT_OF_MEMORY = 5
STOPPED = 6
CALLBACK = 7
UNSUPPORTED = 8
NOT_FINITE = 9

_ONE_AT_A_TIME = threading.Lock()

ProgressCallback = ctypes.CFUNCTYPE(c_int, c_void_p, c_double)
ReadRowsCallback = ctypes.CFUNCTYPE(c_int, c_void_p, c_int64, c_int64, c_void_p)
StorageCallback = ctypes.CFUNCTYPE(c_int, c_void_p, c_int64, c_int64, c_void_p)


class Error(Structure):
    """escsr_error."""

    _fields_: Sequence = (("status", c_int32), ("message", c_char * 508))

    @property
    def text(self) -> str:
        """The message."""
        return self.message.decode("utf-8", errors="replace")


class Array(Structure):
    """escsr_array."""

    _fields_: Sequence = (
        ("name", c_char_p),
        ("data", c_void_p),
        ("type", c_char_p),
        ("num_dimensions", c_int32),
        ("shape", POINTER(c_int64)),
    )


class _Sized(Structure):
    """A structure that may grow: it begins with its own size."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(sizeof(type(self)), *args, **kwargs)


class Description(_Sized):
    """escsr_description."""

    _fields_: Sequence = (
        ("size", c_size_t),
        ("scale", c_int32),
        ("any_size", c_int32),
        ("window_pixels", c_int32),
        ("num_parameters", c_int64),
        ("configuration", c_char_p),
        ("cpu", c_char_p),
    )


class Axis(Structure):
    """escsr_axis."""

    _fields_: Sequence = (
        ("length", c_int64),
        ("output_length", c_int64),
        ("start", c_int64),
        ("output_start", c_int64),
    )


class Options(_Sized):
    """escsr_options."""

    _fields_: Sequence = (
        ("size", c_size_t),
        ("num_threads", c_int32),
        ("progress", ProgressCallback),
        ("user", c_void_p),
        ("rows", POINTER(Axis)),
        ("columns", POINTER(Axis)),
    )


class Rows(_Sized):
    """escsr_rows."""

    _fields_: Sequence = (
        ("size", c_size_t),
        ("user", c_void_p),
        ("read", ReadRowsCallback),
    )


class Storage(_Sized):
    """escsr_storage."""

    _fields_: Sequence = (
        ("size", c_size_t),
        ("user", c_void_p),
        ("read", StorageCallback),
        ("write", StorageCallback),
    )


class Needs(_Sized):
    """escsr_needs."""

    _fields_: Sequence = (
        ("size", c_size_t),
        ("memory_bytes", c_int64),
        ("storage_bytes", c_int64),
        ("band_rows", c_int64),
    )


_SIZES = [c_int64, c_int64, c_int64, c_int64]
"""Of an image and of the result: height and width of each."""

_FUNCTIONS: dict[str, tuple[object, list[object]]] = {
    "escsr_interface_version": (c_int32, []),
    "escsr_open": (c_int, [c_void_p, c_size_t, POINTER(c_void_p), POINTER(Error)]),
    "escsr_open_arrays": (
        c_int,
        [c_char_p, POINTER(Array), c_size_t, POINTER(c_void_p), POINTER(Error)],
    ),
    "escsr_close": (None, [c_void_p]),
    "escsr_describe": (c_int, [c_void_p, POINTER(Description)]),
    "escsr_run": (
        c_int,
        [
            *[c_void_p, c_void_p, c_int64, c_int64, c_void_p, c_int64, c_int64],
            *[POINTER(Options), POINTER(Error)],
        ],
    ),
    "escsr_plan": (
        c_int,
        [c_void_p, *_SIZES, POINTER(Options), c_int64, c_int32, POINTER(Needs), POINTER(Error)],
    ),
    "escsr_begin": (
        c_int,
        [
            *[c_void_p, *_SIZES, POINTER(Rows), POINTER(Storage), c_int64, POINTER(Options)],
            *[POINTER(c_void_p), POINTER(Error)],
        ],
    ),
    "escsr_make_rows": (c_int, [c_void_p, c_int64, c_int64, c_void_p, POINTER(Error)]),
    "escsr_end": (None, [c_void_p]),
}
"""What each returns, and what it takes. Networks and jobs are c_void_p."""


@functools.cache
def core_library() -> ctypes.CDLL:
    """The loaded core; compiled before, which takes a minute, where it does not lie there yet.

    Its functions release Python's lock while they run.

    Raises:
        ConfigurationError: there is no compiler, it fails, or its result cannot be kept or loaded.
    """
    with _ONE_AT_A_TIME:
        try:
            return load_library(core_path())
        except (CompilingError, OSError) as error:
            raise ConfigurationError(f"escsr's core cannot be used here: {error}.") from error


def core_path() -> Path:
    """The core's file: built with the package, or compiled on this machine, now if need be.

    Raises:
        CompilingError: there is none, and none can be compiled.
    """
    with_package = built_library()
    if with_package.is_file():
        return with_package
    folder = _cache_folder()
    if folder is None:
        raise CompilingError("there is no home to keep it in; name a folder in ESCSR_CACHE")
    library = folder / library_name()
    if not library.is_file():
        logger.info("Compiling the core into %s, once.", folder)
        try:
            compile_core(library)
        except OSError as error:
            raise CompilingError(
                f"it cannot be kept in {folder} ({error}); name another folder in ESCSR_CACHE"
            ) from error
    return library


def load_library(path: Path) -> ctypes.CDLL:
    """Load a core, and declare its functions.

    Raises:
        OSError: it cannot be loaded, or has another interface than this file.
    """
    library = ctypes.CDLL(str(path))
    try:
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise OSError(f"{path} is no core of escsr's ({error})") from error
    version = library.escsr_interface_version()
    if version // 100 != INTERFACE_VERSION // 100 or version < INTERFACE_VERSION:
        raise OSError(f"{path} has the interface {version}; {INTERFACE_VERSION} is needed")
    return library


def _cache_folder() -> Path | None:
    """Absolute; None for a user without a home."""
    named = os.environ.get("ESCSR_CACHE")
    if named:
        return Path(named).absolute()
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "escsr"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home).absolute() / "escsr" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache").absolute() / "escsr"
