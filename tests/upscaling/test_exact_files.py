"""Features between the layers: in files that vanish, and told of when they do not fit."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from escsr.errors import DiskSpaceError
from escsr.upscaling import Upscaler, exact
from escsr.upscaling.exact import enlarge_exactly, transfer_all
from escsr.upscaling.pixels import Pixels, planes_of
from tests.networks import engine_of, smallest
from tests.upscaling.exact_runs import plan_of, random_pixels


@pytest.fixture
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def open_files_in(folder: Path) -> list[str]:
    """Files of a folder that this process holds open, also those without a name."""
    links = Path("/proc/self/fd")
    targets = [os.readlink(link) for link in links.iterdir() if link.is_symlink()]  # noqa: PTH115
    return [target for target in targets if target.startswith(f"{folder}/")]


def bands_of(on_share_done: Callable[[float], None]) -> Iterator[Pixels]:
    """40x24 pixels twice as large, with features on disk."""
    return enlarge_exactly(
        planes_of(random_pixels(40, 24)),
        engine_of(smallest(2)),
        plan_of("disk", band_rows=8),
        output_size=(48, 80),
        on_share_done=on_share_done,
    )


class _StopError(Exception):
    """Stands for any failure of the program around."""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at a process as Linux shows it")
@pytest.mark.parametrize("end", ["finished", "error", "interrupted", "left alone"])
def test_temporary_files_vanish(end: str, temporary_files: Path) -> None:
    """However the work ends, also between two rows of the result."""
    seen: list[int] = []
    ends = {"error": _StopError, "interrupted": KeyboardInterrupt}

    def stop(share: float) -> None:
        seen.append(len(open_files_in(temporary_files)))
        if end in ends:
            raise ends[end]

    bands = bands_of(stop)
    if end in ends:
        with pytest.raises(ends[end]):
            list(bands)
    elif end == "left alone":
        next(bands)
        assert len(open_files_in(temporary_files)) == 1
        bands.close()  # type: ignore[attr-defined]
    else:
        list(bands)
    assert max(seen) == 1
    assert open_files_in(temporary_files) == []
    assert list(temporary_files.iterdir()) == []


def test_too_small_a_disk_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do; where exactness was not asked for, tiles serve."""
    monkeypatch.setattr(exact, "free_disk_bytes", lambda: 1000)
    pixels = random_pixels(700, 700)
    limit = 80 * 2**20
    with pytest.raises(DiskSpaceError, match=r"need \d+ MB on disk.*TMPDIR.*--no-exact"):
        Upscaler(smallest(2), device="cpu", memory_limit_bytes=limit, exact=True)(pixels)
    assert Upscaler(smallest(2), device="cpu", memory_limit_bytes=limit)(pixels).shape[0] == 1400


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
@pytest.mark.parametrize("is_reserved", [True, False])
def test_a_disk_that_is_full_is_told(
    is_reserved: bool, temporary_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When room is reserved, and where it cannot be, when it is written."""
    import resource

    if not is_reserved:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(DiskSpaceError, match="TMPDIR"):
            list(bands_of(lambda share: None))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(temporary_files.iterdir()) == []


def test_a_file_that_ends_too_early_is_told(temporary_files: Path) -> None:
    """What was written cannot be read back: an error of ours, not the system's."""
    with exact._FileStorage(1000) as storage:
        storage.write(100, memoryview(b"features"))
        kept = bytearray(8)
        storage.read(100, memoryview(kept))
        assert kept == b"features"
        storage._file.truncate(104)
        with pytest.raises(DiskSpaceError, match=r"read back from .*ended too early.*--no-exact"):
            storage.read(100, memoryview(bytearray(8)))


def test_a_file_that_takes_some_at_a_time_gets_all() -> None:
    """A system may write less than it is given; nothing at all is an error."""
    taken: list[bytes] = []

    def take(values: memoryview) -> int:
        taken.append(bytes(values[:3]))
        return len(taken[-1])

    transfer_all(memoryview(b"features"), take)
    assert b"".join(taken) == b"features"
    with pytest.raises(OSError, match="ended too early"):
        transfer_all(memoryview(b"more"), lambda values: 0)
