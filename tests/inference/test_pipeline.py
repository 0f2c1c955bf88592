"""Many files in one run: overlapping changes when things happen, and nothing else."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from escsr.errors import ImageReadError
from escsr.images.files import read_image
from escsr.images.writer import write_image
from escsr.inference.enlarger import Enlarger, WorkSettings
from escsr.inference.file_job import FileJob
from escsr.inference.geometry import Enlargement, SizeWish
from escsr.inference.models import ModelShelf
from escsr.inference.pipeline import FileOutcome, run_files
from tests.inference.networks import smallest

PATIENCE_S = 20.0


class Watch:
    """Notes what it is told, and may do something at the beginning of a file."""

    def __init__(self, on_begin: Callable[[int], None] | None = None) -> None:
        self.said: list[str] = []
        self.outcomes: list[FileOutcome] = []
        self.on_begin = on_begin

    def begin(self, index: int) -> None:
        """Note it, and do what was wished."""
        self.said.append(f"begin {index}")
        if self.on_begin is not None:
            self.on_begin(index)

    def advance(self, fraction: float) -> None:
        """A fraction it is, and no more."""
        assert 0 <= fraction <= 1

    def end(self, index: int, outcome: FileOutcome) -> None:
        """Note it."""
        self.said.append(f"end {index}")
        self.outcomes.append(outcome)


class WatchedEnlarger(Enlarger):
    """Notes which threads ask for sizes, which is the first step of reading a file."""

    def plan_size(self, width: int, height: int, wish: SizeWish) -> Enlargement:
        """Note the thread."""
        self.askers.append(threading.current_thread())
        return super().plan_size(width, height, wish)

    askers: list[threading.Thread]


def enlarger_of(network: nn.Module, memory_limit_bytes: int | None = None) -> WatchedEnlarger:
    """An x2 enlarger on the CPU."""
    settings = WorkSettings(
        precision="float32",
        tile="auto",
        overlap_pixels=None,
        memory_limit_bytes=memory_limit_bytes,
    )
    shelf = ModelShelf(network, device=torch.device("cpu"))
    enlarger = WatchedEnlarger(shelf, settings, default_scale=None)
    enlarger.askers = []
    return enlarger


@pytest.fixture
def jobs(tmp_path: Path) -> list[FileJob]:
    """Four photographs of different sizes."""
    made: list[FileJob] = []
    for index in range(4):
        source = tmp_path / f"in-{index}.png"
        shape = (20 + 9 * index, 40 - 5 * index, 3)
        write_image(source, np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8))
        output = tmp_path / "out" / f"{index}.png"
        made.append(FileJob(input=source, output=output, wish=SizeWish(), make_folder=True))
    return made


def names_in(folder: Path) -> list[str]:
    """All names in a folder, hidden ones too."""
    return sorted(entry.name for entry in folder.iterdir())


def test_overlapping_makes_the_same_files_in_the_same_order(jobs: list[FileJob]) -> None:
    """Pixels, reports and the order of what is told, as one after another."""
    enlarger = enlarger_of(smallest(2))
    pixels: list[list[bytes]] = []
    watches = [Watch(), Watch()]
    for overlap, watch in zip((False, True), watches, strict=True):
        run_files(enlarger, jobs, watch, overlap=overlap)
        pixels.append([read_image(job.output).pixels.tobytes() for job in jobs])
        for job in jobs:
            job.output.unlink()
    assert pixels[0] == pixels[1]
    assert watches[0].said == [f"{what} {i}" for i in range(4) for what in ("begin", "end")]
    for what in ("begin", "end"):
        told = [said for said in watches[1].said if said.startswith(what)]
        assert told == [f"{what} {i}" for i in range(4)]
    for one, other in zip(watches[0].outcomes, watches[1].outcomes, strict=True):
        assert one.report is not None
        assert other.report is not None
        assert one.report.output == other.report.output
        assert one.report.output_size == other.report.output_size
        assert other.seconds == other.report.seconds > 0


class WaitingNetwork(nn.Module):
    """Doubles every pixel; waits before each image until something has happened."""

    scale = 2

    def __init__(self, happened: Callable[[int], bool]) -> None:
        super().__init__()
        self._happened = happened
        self._calls = 0

    def __deepcopy__(self, memo: object) -> "WaitingNetwork":
        return self

    def forward(self, lr_image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, 2H, 2W)."""
        deadline = time.monotonic() + PATIENCE_S
        while not self._happened(self._calls):
            assert time.monotonic() < deadline, f"nothing happened beside image {self._calls}"
            time.sleep(0.005)
        self._calls += 1
        return nn.functional.interpolate(lr_image, scale_factor=2)


def test_the_next_is_read_and_the_last_is_written_while_the_network_works(
    jobs: list[FileJob],
) -> None:
    """The network itself waits for both, so the run could not end otherwise."""

    def happened(index: int) -> bool:
        next_is_read = len(enlarger.askers) >= min(index + 2, len(jobs))
        return next_is_read and (index == 0 or jobs[index - 1].output.exists())

    enlarger = enlarger_of(WaitingNetwork(happened))
    watch = Watch()
    run_files(enlarger, jobs, watch)
    assert [outcome.error for outcome in watch.outcomes] == [None] * 4
    assert threading.main_thread() not in enlarger.askers


def test_a_limit_on_memory_keeps_files_apart(jobs: list[FileJob]) -> None:
    """What the plan of one file counts is all that is held: nothing is read ahead."""
    enlarger = enlarger_of(smallest(2), memory_limit_bytes=2**30)
    run_files(enlarger, jobs, Watch())
    assert set(enlarger.askers) == {threading.main_thread()}


@pytest.mark.parametrize("bad", [0, 2, 3])
def test_an_error_stays_with_its_file(jobs: list[FileJob], bad: int) -> None:
    """The first, a middle and the last file may be damaged; the others are made."""
    jobs[bad].input.write_bytes(b"no picture")
    watch = Watch()
    run_files(enlarger_of(smallest(2)), jobs, watch)
    assert watch.said[-1] == "end 3"
    for index, outcome in enumerate(watch.outcomes):
        if index == bad:
            assert isinstance(outcome.error, ImageReadError)
        assert (outcome.report is None) == (index == bad)
        assert jobs[index].output.exists() == (index != bad)
    assert names_in(jobs[0].output.parent) == [f"{i}.png" for i in range(4) if i != bad]


def test_an_output_that_appears_meanwhile_stays(jobs: list[FileJob]) -> None:
    """Somebody else's file, made while ours is on its way, is not replaced."""

    def appear(index: int) -> None:
        if index == 1:
            jobs[1].output.write_text("mine")

    watch = Watch(appear)
    run_files(enlarger_of(smallest(2)), jobs, watch)
    assert [outcome.error is None for outcome in watch.outcomes] == [True, False, True, True]
    assert jobs[1].output.read_text() == "mine"
    assert names_in(jobs[0].output.parent) == [f"{i}.png" for i in range(4)]


def large_first(jobs: list[FileJob]) -> list[FileJob]:
    """The same jobs, but the first takes its encoder a second or two."""
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1500, 3), dtype=np.uint8)
    write_image(jobs[0].input, noise, overwrite=True)
    return jobs


def nearest(index: int) -> bool:
    """Wait for nothing."""
    return True


def test_an_interruption_while_a_file_is_encoded_leaves_no_half_files(jobs: list[FileJob]) -> None:
    """Whatever was told as finished is there, and nothing else."""

    def interrupt(index: int) -> None:
        if index == 1:
            raise KeyboardInterrupt

    watch = Watch(interrupt)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_files(enlarger_of(WaitingNetwork(nearest)), large_first(jobs), watch)
    assert watch.said == ["begin 0", "begin 1"]
    assert names_in(jobs[0].output.parent) == []
    assert time.monotonic() - started < PATIENCE_S


def test_an_interruption_keeps_what_is_finished_and_tells_of_it(jobs: list[FileJob]) -> None:
    """A file that was put in its place but not yet told of is told of before the run ends."""

    def interrupt(index: int) -> bool:
        if index == 1 and jobs[0].output.exists():
            raise KeyboardInterrupt
        return index == 0

    watch = Watch()
    with pytest.raises(KeyboardInterrupt):
        run_files(enlarger_of(WaitingNetwork(interrupt)), jobs, watch)
    assert watch.said == ["begin 0", "begin 1", "end 0"]
    assert watch.outcomes[0].report is not None
    assert names_in(jobs[0].output.parent) == ["0.png"]


@pytest.mark.parametrize("overlap", [False, True])
def test_an_error_of_who_is_told_is_no_file_s(jobs: list[FileJob], overlap: bool) -> None:
    """A terminal that went away ends the run, and leaves no half files."""

    class Deaf(Watch):
        def end(self, index: int, outcome: FileOutcome) -> None:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_files(enlarger_of(smallest(2)), jobs, Deaf(), overlap=overlap)
    assert all(name.endswith(".png") for name in names_in(jobs[0].output.parent))


def test_no_files_are_no_work() -> None:
    """An empty run ends at once."""
    watch = Watch()
    run_files(enlarger_of(smallest(2)), [], watch)
    assert watch.said == []
