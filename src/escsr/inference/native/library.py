"""Find the compiled kernels, or compile them for this machine's processor, and load them."""

import ctypes
import functools
import logging
import os
import platform
import sys
import threading
from pathlib import Path

import torch

from escsr.errors import ConfigurationError
from escsr.inference.native.compiling import (
    LEVELS,
    CompilingError,
    compile_kernels,
    digest_of_source,
    find_compiler,
    flag_for_this_processor,
    kernels_for_level,
    lack_of_compiler,
)
from escsr.model.openmp import openmp_libraries

logger = logging.getLogger("escsr")

_ONE_AT_A_TIME = threading.Lock()


def native_obstacle(device_type: str) -> str | None:
    """Why the kernels cannot run on a kind of device; None where they can, compiled or not yet."""
    if device_type != "cpu":
        return f"its kernels are for a CPU, not for {device_type}"
    if sys.platform == "win32":
        return "its kernels are not built on Windows yet"
    if is_built() or find_compiler() is not None:
        return None
    return f"the package was built without its kernels, and {lack_of_compiler()}"


def is_built() -> bool:
    """Whether the kernels are compiled for this machine already."""
    return bool(_compiled_already())


@functools.cache
def native_library() -> ctypes.CDLL:
    """The loaded kernels; compiled before, which takes some seconds, where they are not yet.

    Raises:
        ConfigurationError: there is no compiler, it fails, or its result cannot be kept or loaded.
    """
    with _ONE_AT_A_TIME:
        try:
            library = _load(_compiled_already() or [_compile_here()])
        except (CompilingError, OSError) as error:
            raise ConfigurationError(
                f'The back-end native cannot run here: {error}. Use backend="eager".'
            ) from error
    _share_threads_of_torch(library)
    return library


def _load(candidates: list[Path]) -> ctypes.CDLL:
    """The first that loads.

    Raises:
        OSError: none does; why the first does not.
    """
    failures: list[OSError] = []
    for path in candidates:
        try:
            return ctypes.CDLL(str(path))
        except OSError as error:
            failures.append(error)
    raise failures[0]


def _share_threads_of_torch(library: ctypes.CDLL) -> None:
    """Let the kernels run in the threads of PyTorch's OpenMP, where that is to be found.

    Those wait actively for a while after each operation; threads of our own beside them would get
    half a core.
    """
    for path in openmp_libraries():
        start = getattr(ctypes.CDLL(path), "GOMP_parallel", None)
        if start is not None:
            library.escsr_use_team(start)
            return


def _compiled_already() -> list[Path]:
    """What this machine has, the best first: compiled here, then built with the package."""
    here = _library_here()
    compiled_here = here if here is not None and _is_file(here) else None
    return [path for path in (compiled_here, _compiled_with_package()) if path is not None]


def _compile_here() -> Path:
    library = _library_here()
    if library is None:
        raise CompilingError(
            "there is no home to keep its kernels in; name a folder in ESCSR_CACHE"
        )
    logger.info("Compiling the native kernels into %s, once.", library.parent)
    try:
        compile_kernels(library, flag_for_this_processor())
    except OSError as error:
        raise CompilingError(
            f"its kernels cannot be kept in {library.parent} ({error}); name another folder in "
            "ESCSR_CACHE"
        ) from error
    return library


def _compiled_with_package() -> Path | None:
    """What the package was built with for a processor like this one."""
    best = {"AVX512": "avx512", "AVX2": "avx2"}.get(torch.backends.cpu.get_cpu_capability(), "neon")
    levels = list(LEVELS.get(platform.machine(), {}))
    # A better processor does what a lesser one does.
    possible = levels[levels.index(best) :] if best in levels else []
    return next((path for level in possible if (path := kernels_for_level(level)).is_file()), None)


@functools.cache
def _library_here() -> Path | None:
    """Where kernels compiled on this machine are kept: for each source and processor elsewhere."""
    digest = digest_of_source(platform.machine(), flag_for_this_processor(), _processor())
    folder = _cache_folder()
    return None if folder is None else folder / f"kernels-{digest}.so"


def _processor() -> str:
    """What the processor can do, as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    kinds = ("flags", "Features", "model name")
    return "\n".join(sorted({line for line in lines if line.startswith(kinds)}))


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
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache").absolute() / "escsr"


def _is_file(path: Path) -> bool:
    """Whether there is a file; what may not be looked at is none."""
    try:
        return path.is_file()
    except OSError:
        return False
