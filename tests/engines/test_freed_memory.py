"""Freed memory goes back to the system, so that images of many sizes do not add up."""

import os
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from escsr.engines.devices import FreedMemory, release_cached_memory
from escsr.images.writer import write_image
from escsr.upscaling import Upscaler
from tests.networks import smallest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed blocks and can be asked"
)

_MIB = 2**20

Use = Callable[[Upscaler, Path], object]


def resident_bytes() -> int:
    """What the process holds, as Linux tells it."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def blocks_with_holes() -> list[np.ndarray]:
    """4 MiB of kept blocks with 60 MiB of freed ones between them.

    Blocks of 64 KiB: from 128 KiB on, glibc may ask the system for each, and returns it when freed.
    """
    blocks = [np.ones(2**14, np.float32) for _ in range(1024)]
    return [*blocks[::16], blocks[-1]]


def enlarge_array(upscaler: Upscaler, folder: Path) -> object:
    """Of numpy's."""
    return upscaler(np.zeros((12, 10, 3), np.uint8))


def enlarge_tensor(upscaler: Upscaler, folder: Path) -> object:
    """A batch of torch's."""
    return upscaler(pytest.importorskip("torch").zeros(1, 3, 12, 10))


def enlarge_file(upscaler: Upscaler, folder: Path) -> object:
    """From file to file."""
    write_image(folder / "small.png", np.zeros((12, 10, 3), np.uint8))
    return upscaler.upscale_file(folder / "small.png", folder / "large.png")


def test_freed_blocks_between_kept_ones_return_to_the_system() -> None:
    """Half of the holes at the least: neighbours share pages, and other tests leave some too."""
    kept = blocks_with_holes()
    before = resident_bytes()
    release_cached_memory("cpu")
    assert before - resident_bytes() > 30 * _MIB
    assert all(bool((block == 1).all()) for block in kept)


def test_freed_memory_is_not_returned_after_every_image() -> None:
    """It takes milliseconds for such holes, so at once after that nothing is done."""
    freed_memory = FreedMemory("cpu")
    falls: list[int] = []
    for _ in range(2):
        kept = blocks_with_holes()
        before = resident_bytes()
        freed_memory.release()
        falls.append(before - resident_bytes())
        del kept
    assert falls[0] > 30 * _MIB
    # 1 MiB: another thread may have freed something.
    assert abs(falls[1]) < _MIB


@pytest.mark.parametrize("use", [enlarge_array, enlarge_tensor, enlarge_file])
def test_an_enlarged_image_leaves_no_holes(use: Use, tmp_path: Path) -> None:
    """By every way in; not even those that were there before."""
    upscaler = Upscaler(smallest(2), device="cpu")
    kept = blocks_with_holes()
    before = resident_bytes()
    use(upscaler, tmp_path)
    assert before - resident_bytes() > 30 * _MIB
    assert len(kept) == 65
