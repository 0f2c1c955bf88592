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
)

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
    return (
        "the package was built without its kernels, and there is no C++ compiler here (c++, g++ or "
        "clang++; or set CXX)"
    )


def is_built() -> bool:
    """Whether the kernels are compiled for this machine already."""
    return _compiled_here().is_file() or _compiled_with_package() is not None


@functools.cache
def native_library() -> ctypes.CDLL:
    """The loaded kernels; compiled before, which takes some seconds, where they are not yet.

    Raises:
        ConfigurationError: there is no compiler, it fails, or its result cannot be kept or loaded.
    """
    with _ONE_AT_A_TIME:
        here, with_package = _compiled_here(), _compiled_with_package()
        try:
            if not here.is_file() and with_package is None:
                logger.info("Compiling the native kernels into %s, once.", here.parent)
                compile_kernels(here, flag_for_this_processor())
            return ctypes.CDLL(str(here if here.is_file() else with_package))
        except (CompilingError, OSError) as error:
            raise ConfigurationError(
                f'The back-end native cannot run here: {error}. Use backend="eager".'
            ) from error


def _compiled_with_package() -> Path | None:
    """What the package was built with for a processor like this one."""
    best = {"AVX512": "avx512", "AVX2": "avx2"}.get(torch.backends.cpu.get_cpu_capability(), "neon")
    levels = list(LEVELS.get(platform.machine(), {}))
    # A better processor does what a lesser one does.
    possible = levels[levels.index(best) :] if best in levels else []
    return next((path for level in possible if (path := kernels_for_level(level)).is_file()), None)


@functools.cache
def _compiled_here() -> Path:
    """Where kernels compiled on this machine are kept: for each source and processor elsewhere."""
    digest = digest_of_source(platform.machine(), flag_for_this_processor(), _processor())
    return _cache_folder() / f"kernels-{digest}.so"


def _processor() -> str:
    """What the processor can do, as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    kinds = ("flags", "Features", "model name")
    return "\n".join(sorted({line for line in lines if line.startswith(kinds)}))


def _cache_folder() -> Path:
    named = os.environ.get("ESCSR_CACHE")
    if named:
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "escsr"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "escsr"
