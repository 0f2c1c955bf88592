"""Features between the layers: in files that vanish, and told of when they do not fit."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from escsr.engines.eager import Engine
from escsr.errors import DiskSpaceError
from escsr.upscaling import Upscaler
from escsr.upscaling.exact import (
    FeatureMapStore,
    Patch,
    Rectangle,
    cut_into_cores,
    enlarge_exactly,
    feature_store,
)
from escsr.upscaling.pixels import planes_of
from tests.upscaling.exact_runs import plan_of, random_pixels
from tests.upscaling.networks import smallest


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
    engine = Engine(smallest(2), scale=2, device=torch.device("cpu"))
    seen: list[int] = []
    ends = {"error": _StopError, "interrupted": KeyboardInterrupt}

    def stop(share: float) -> None:
        seen.append(len(open_files_in(temporary_files)))
        if end in ends:
            raise ends[end]

    bands = enlarge_exactly(
        planes_of(random_pixels(40, 24)),
        engine,
        plan_of((8, 8), (8, 24), "disk"),
        output_size=(48, 80),
        dtype=torch.float32,
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
    monkeypatch.setattr(feature_store, "free_disk_bytes", lambda: 1000)
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
    engine = Engine(smallest(2), scale=2, device=torch.device("cpu"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(DiskSpaceError, match="TMPDIR"):
            list(
                enlarge_exactly(
                    planes_of(random_pixels(40, 24)),
                    engine,
                    plan_of((8, 8), (8, 24), "disk"),
                    output_size=(48, 80),
                    dtype=torch.float32,
                    on_share_done=lambda share: None,
                )
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(temporary_files.iterdir()) == []


def test_a_file_that_ends_too_early_is_told(temporary_files: Path) -> None:
    """What was written cannot be read back: an error of ours, not the system's."""
    everything = Rectangle(top=0, bottom=8, left=0, right=8)
    with feature_store.FeatureStore("disk", torch.float32) as store:
        broken = store.new_map((8, 8), 2)
        assert isinstance(broken, feature_store._MapOnDisk)
        broken._file.truncate(100)
        with pytest.raises(DiskSpaceError, match=r"read back from .*ended too early.*--no-exact"):
            broken.read(everything, torch.device("cpu"))


def test_a_map_replaces_itself() -> None:
    """Forth and back, while readers look around; in memory and on disk alike."""
    size, slack = (23, 17), 3
    for place in ("memory", "disk"):
        with feature_store.FeatureStore(place, torch.float32) as store:
            replaced = store.new_map(size, 2, slack=slack)
            _check_replacing(replaced, size, slack)


def _check_replacing(replaced: FeatureMapStore, size: tuple[int, int], slack: int) -> None:
    """Each successor is the maximum around each pixel."""
    device = torch.device("cpu")
    expected = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0))
    cores = cut_into_cores(size, core_size=(8, 4), window_size=4)
    everything = Rectangle(top=0, bottom=size[0], left=0, right=size[1])
    replaced.write(Patch(features=expected, place=everything, size=size))

    def spread(features: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.max_pool2d(features, 2 * slack + 1, 1, slack) * 0.9

    for _ in range(3):
        for core in reversed(cores) if replaced.is_replaced_in_reverse else cores:
            patch = replaced.read(core.grown(slack, size), device)
            replaced.write_successor(patch.apply(spread, radius=slack).crop(core))
        replaced.replace()
        expected = spread(expected)
        assert torch.equal(replaced.read(everything, device).features, expected)
