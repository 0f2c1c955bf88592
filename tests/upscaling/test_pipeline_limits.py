"""Many files in one run: what an interruption leaves, and how much is held at a time."""

import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from escsr.images.writer import ImageWriter
from escsr.upscaling import files
from escsr.upscaling.files import FileJob, LoadedFile, run_files
from escsr.upscaling.passes import MultiPassUpscaler
from tests.networks import engine_of, smallest
from tests.upscaling.pipeline_runs import (
    PATIENCE_S,
    Watch,
    at_once,
    large_first,
    names_in,
    upscaler_of,
    waiting_network,
    write_jobs,
)


@pytest.fixture
def jobs(tmp_path: Path) -> list[FileJob]:
    """Four photographs of different sizes."""
    return write_jobs(tmp_path)


def test_an_interruption_while_a_file_is_encoded_leaves_no_half_files(jobs: list[FileJob]) -> None:
    """Whatever was told as finished is there, and nothing else."""

    def interrupt(index: int) -> None:
        if index == 1:
            raise KeyboardInterrupt

    watch = Watch(interrupt)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_files(upscaler_of(waiting_network(at_once)), large_first(jobs), watch)
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
        run_files(upscaler_of(waiting_network(interrupt)), jobs, watch)
    assert watch.said == ["begin 0", "begin 1", "end 0"]
    assert watch.outcomes[0].report is not None
    assert names_in(jobs[0].output.parent) == ["0.png"]


def test_an_interruption_just_before_a_file_is_left_to_its_encoder_removes_it(
    jobs: list[FileJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its rows are made, and nobody waits for it; those before it are removed as well."""
    submit = ThreadPoolExecutor.submit

    def interrupted(
        self: ThreadPoolExecutor, work: Callable[..., Any], *arguments: Any
    ) -> Future[Any]:
        left.extend(thing for thing in arguments if isinstance(thing, ImageWriter))
        if len(left) == 2:
            raise KeyboardInterrupt
        return submit(self, work, *arguments)

    left: list[ImageWriter] = []
    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    watch = Watch()
    with pytest.raises(KeyboardInterrupt):
        run_files(upscaler_of(waiting_network(at_once)), large_first(jobs), watch)
    assert watch.said == ["begin 0", "begin 1"]
    assert names_in(jobs[0].output.parent) == []


def test_few_files_are_open_however_small_they_are(
    jobs: list[FileJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two may wait for their encoders here, beside the one that the network works on."""
    finish = files._finish
    folder, open_files = jobs[0].output.parent, list[int]()

    def finish_late(writer: ImageWriter) -> object:
        time.sleep(0.2)
        return finish(writer)

    def count(index: int) -> bool:
        open_files.append(len(list(folder.glob(".escsr-*.partial"))))
        return True

    monkeypatch.setattr(files, "WRITE_BEHIND_FILES", 2)
    monkeypatch.setattr(files, "_finish", finish_late)
    run_files(upscaler_of(waiting_network(count)), jobs, Watch())
    assert max(open_files) == 3


def test_seconds_of_a_file_are_its_own(jobs: list[FileJob]) -> None:
    """The encoder of the first takes a second or two, for which the small ones do not wait."""
    watch = Watch()
    run_files(upscaler_of(waiting_network(at_once)), large_first(jobs), watch)
    first, *others = (outcome.seconds for outcome in watch.outcomes)
    assert sum(others) < first / 2


def test_a_large_source_goes_before_the_next_is_read(
    jobs: list[FileJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory holds one of those that are not read ahead; here all are such."""
    read, sources, held = FileJob.read, list[weakref.ref[Any]](), list[int]()

    def noted(self: FileJob, upscaler: MultiPassUpscaler) -> LoadedFile:
        held.append(sum(source() is not None for source in sources))
        loaded = read(self, upscaler)
        sources.append(weakref.ref(loaded.planes.pixels))
        return loaded

    monkeypatch.setattr(files, "READ_AHEAD_BYTES", 0)
    monkeypatch.setattr(FileJob, "read", noted)
    run_files(upscaler_of(engine_of(smallest(2))), jobs, Watch())
    assert held == [0] * 4
