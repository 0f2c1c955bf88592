"""Features between the layers: in files that vanish, and told of when they do not fit."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from escsr.errors import DiskSpaceError
from escsr.upscaling import Upscaler, exact
from escsr.upscaling.exact import enlarge_exactly
from escsr.upscaling.pixels import planes_of
from tests.upscaling.exact_runs import plan_of, random_pixels
from tests.upscaling.networks import engine_of, smallest


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


class _StopError(Exception):
    """Stands for any failure of the program around."""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at a process as Linux shows it")
@pytest.mark.parametrize("end", ["finished", "error", "interrupted", "left alone"])
def test_temporary_files_vanish(end: str, temporary_files: Path) -> None:
    """However the work ends, also between two rows of the result."""
    engine = engine_of(smallest(2))
    seen: list[int] = []
    ends = {"error": _StopError, "interrupted": KeyboardInterrupt}

    def stop(share: float) -> None:
        seen.append(len(open_files_in(temporary_files)))
        if end in ends:
            raise ends[end]

    bands = enlarge_exactly(
        planes_of(random_pixels(40, 24)),
        engine,
        plan_of(8, "disk"),
        output_size=(48, 80),
        on_share_done=stop,
    )
    if end in ends:
        with pytest.raises(ends[end]):
            list(bands)
    elif end == "left alone":
        next(bands)
        assert len(open_files_in(temporary_files)) == 1
        bands.close()
    else:
        list(bands)
    assert max(seen) == 1
    assert open_files_in(temporary_files) == []
    assert list(temporary_files.iterdir()) == []


def test_too_small_a_disk_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do; where exactness was not asked for, tiles serve."""
    monkeypatch.setattr(exact, "free_disk_bytes", lambda: 1000)
    pixels = random_pixels(700, 700)
    limit = 112 * 2**20
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
    engine = engine_of(smallest(2))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(DiskSpaceError, match="TMPDIR"):
            list(
                enlarge_exactly(
                    planes_of(random_pixels(40, 24)),
                    engine,
                    plan_of(8, "disk"),
                    output_size=(48, 80),
                    on_share_done=lambda share: None,
                )
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(temporary_files.iterdir()) == []


def test_a_file_that_ends_too_early_is_told(temporary_files: Path) -> None:
    """What was written cannot be read back: an error of ours, not the system's."""
    with exact._FileStorage(1000) as storage:
        storage.write(0, memoryview(bytes(1000)))
        storage._file.truncate(100)
        with pytest.raises(DiskSpaceError, match=r"read back from .*ended too early.*--no-exact"):
            storage.read(0, memoryview(bytearray(1000)))
