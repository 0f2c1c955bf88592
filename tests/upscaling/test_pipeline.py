"""Many files in one run: overlapping changes when things happen, and nothing else."""

import threading
from pathlib import Path

import pytest

from escsr.errors import ImageReadError
from escsr.images.files import read_image
from escsr.upscaling.files import FileJob, FileOutcome, run_files
from tests.networks import engine_of, smallest
from tests.upscaling.pipeline_runs import (
    Watch,
    names_in,
    upscaler_of,
    waiting_network,
    write_jobs,
)


@pytest.fixture
def jobs(tmp_path: Path) -> list[FileJob]:
    """Four photographs of different sizes."""
    return write_jobs(tmp_path)


def test_overlapping_makes_the_same_files_in_the_same_order(jobs: list[FileJob]) -> None:
    """Pixels, reports and the order of what is told, as one after another."""
    upscaler = upscaler_of(engine_of(smallest(2)))
    pixels: list[list[bytes]] = []
    watches = [Watch(), Watch()]
    for overlap, watch in zip((False, True), watches, strict=True):
        run_files(upscaler, jobs, watch, overlap=overlap)
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


def test_the_next_is_read_and_the_last_is_written_while_the_network_works(
    jobs: list[FileJob],
) -> None:
    """The network itself waits for both, so the run could not end otherwise."""

    def happened(index: int) -> bool:
        next_is_read = len(upscaler.askers) >= min(index + 2, len(jobs))
        return next_is_read and (index == 0 or jobs[index - 1].output.exists())

    upscaler = upscaler_of(waiting_network(happened))
    watch = Watch()
    run_files(upscaler, jobs, watch)
    assert [outcome.error for outcome in watch.outcomes] == [None] * 4
    assert threading.main_thread() not in upscaler.askers


def test_a_limit_on_memory_keeps_files_apart(jobs: list[FileJob]) -> None:
    """What the plan of one file counts is all that is held: nothing is read ahead."""
    upscaler = upscaler_of(engine_of(smallest(2)), memory_limit_bytes=2**30)
    run_files(upscaler, jobs, Watch())
    assert set(upscaler.askers) == {threading.main_thread()}


@pytest.mark.parametrize("bad", [0, 2, 3])
def test_an_error_stays_with_its_file(jobs: list[FileJob], bad: int) -> None:
    """The first, a middle and the last file may be damaged; the others are made."""
    jobs[bad].input.write_bytes(b"no picture")
    watch = Watch()
    run_files(upscaler_of(engine_of(smallest(2))), jobs, watch)
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
    run_files(upscaler_of(engine_of(smallest(2))), jobs, watch)
    assert [outcome.error is None for outcome in watch.outcomes] == [True, False, True, True]
    assert jobs[1].output.read_text() == "mine"
    assert names_in(jobs[0].output.parent) == [f"{i}.png" for i in range(4)]


@pytest.mark.parametrize("overlap", [False, True])
def test_an_error_of_who_is_told_is_no_file_s(jobs: list[FileJob], overlap: bool) -> None:
    """A terminal that went away ends the run, and leaves no half files."""

    class Deaf(Watch):
        def end(self, index: int, outcome: FileOutcome) -> None:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_files(upscaler_of(engine_of(smallest(2))), jobs, Deaf(), overlap=overlap)
    assert all(name.endswith(".png") for name in names_in(jobs[0].output.parent))


def test_no_files_are_no_work() -> None:
    """An empty run ends at once."""
    watch = Watch()
    run_files(upscaler_of(engine_of(smallest(2))), [], watch)
    assert watch.said == []
