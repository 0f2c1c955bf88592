"""The OpenMP library that PyTorch's threads work in, and forks."""

import ctypes
import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

_HARD_PAUSE = 2
"""OpenMP's ``omp_pause_hard``."""


def openmp_libraries() -> list[str]:
    """Paths of the OpenMP libraries in this process: PyTorch's own, else all there are.

    Empty where the system does not list what is loaded, as everywhere but on Linux.
    """
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return openmp_among({line.split(maxsplit=5)[-1] for line in maps.splitlines() if "/" in line})


def openmp_among(loaded: Iterable[str]) -> list[str]:
    """Of the paths of libraries, those of PyTorch's own OpenMP, else of all there are, sorted."""
    names = sorted(path for path in loaded if Path(path).name.startswith(("libgomp", "libiomp5")))
    torch_folder = str(Path(torch.__file__).resolve().parent)
    own = (f"{torch_folder}/", f"{torch_folder}.libs/")
    return [path for path in names if path.startswith(own)] or names


@functools.cache
def allow_forks() -> None:
    """Let forked processes use PyTorch on the CPU after this one has; once per process.

    A fork copies GNU's OpenMP library, but none of the threads that it believes to have, so the
    child's first parallel operation would wait for them for ever. Its threads are therefore ended
    before each fork; both processes start their own again, which takes microseconds. Intel's
    library does the like by itself.
    """
    pauses = [pause for path in openmp_libraries() if (pause := _pause_of(path)) is not None]
    if pauses:
        os.register_at_fork(before=lambda: [pause(_HARD_PAUSE) for pause in pauses])
    elif hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def _pause_of(path: str) -> Callable[[int], int] | None:
    """GNU's function that ends the calling thread's team; None in another or older library."""
    if not Path(path).name.startswith("libgomp"):
        return None
    try:
        return ctypes.CDLL(path).omp_pause_resource_all
    except (AttributeError, OSError):
        return None
