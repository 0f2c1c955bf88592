"""Many files: the next is read, and those before are written, while the network works on one.

Reading, encoding and the network leave Python's lock, so they really run side by side. Files go
through the network one after another and in order, in the calling thread, which hears of
everything; so it is there that Ctrl-C ends the run.
"""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

from escsr.images.writer import ImageWriter
from escsr.inference.enlarger import Enlarger
from escsr.inference.file_job import CheckedFile, FileJob, LoadedFile, UpscaleReport
from escsr.machine import free_memory_bytes
from escsr.temporary_files import remove_abandoned

READ_AHEAD_BYTES = 2**26
"""Sources larger than this are read when their turn comes, so that memory holds only one."""
WRITE_BEHIND_BYTES = 2**26
"""Results that may wait for their encoders; one of any size may."""
WRITE_BEHIND_FILES = 16
"""As many files may wait for theirs: each holds an open file and a thread."""
LEAST_TO_OVERLAP_BYTES = 2**29
"""With less memory at hand, one file after another: no plan counts what others hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileOutcome:
    """What became of one file."""

    seconds: float
    """Time it took, without what it waited for other files."""
    report: UpscaleReport | None = None
    """What was done; None where it failed."""
    error: Exception | None = None
    """Why it failed."""


class FileWatch(Protocol):
    """Who is told of a run, always in the thread that runs it."""

    def begin(self, index: int) -> None:
        """The network turns to a file."""
        ...

    def advance(self, fraction: float) -> None:
        """The network has done this much of that file, from 0 to 1."""
        ...

    def end(self, index: int, outcome: FileOutcome) -> None:
        """A file is finished or has failed; told in order, while later files have begun."""
        ...


def run_files(
    enlarger: Enlarger, jobs: Sequence[FileJob], watch: FileWatch, *, overlap: bool = True
) -> None:
    """Enlarge files; what goes wrong with one is its own outcome and no other's.

    What killed runs left unfinished in the output folders is removed first.

    Args:
        enlarger: the networks. Where its memory is limited or little is free, nothing overlaps: the
            plan of one file does not count what is held for the others.
        jobs: the files; no output may be another's input.
        watch: told of each.
        overlap: whether to read and write while the network works.
    Raises:
        BaseException: whatever interrupts the run, such as KeyboardInterrupt, after unfinished
            outputs are removed and ``watch`` was told of those that are finished.
    """
    for folder in {job.output.parent for job in jobs}:
        remove_abandoned(folder)
    free_bytes = free_memory_bytes()
    is_tight = free_bytes is not None and free_bytes < LEAST_TO_OVERLAP_BYTES
    if overlap and not is_tight and enlarger.settings.memory_limit_bytes is None:
        _OverlappingRun(enlarger, jobs, watch).run()
        return
    for index, job in enumerate(jobs):
        watch.begin(index)
        started = time.monotonic()
        report, failure = None, None
        try:
            report = job.run(enlarger, watch.advance)
        except Exception as error:
            failure = error
        seconds = time.monotonic() - started
        watch.end(index, FileOutcome(seconds=seconds, report=report, error=failure))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """What the reading thread has of a file."""

    checked: CheckedFile
    loaded: LoadedFile | None
    """None of a large file, which waits for its turn."""
    seconds: float


@dataclass(kw_only=True, slots=True)
class _Unfinished:
    """A file whose rows are all made and that is still being written."""

    index: int
    writer: ImageWriter
    num_bytes: int
    """Of its rows."""
    report: UpscaleReport
    """For when it is written; its seconds end with the last row."""
    made_at: float
    """When that was."""
    ending: "Future[_Ending] | None" = None

    def outcome(self) -> FileOutcome:
        """What became of it; waits for that."""
        assert self.ending is not None
        ending = self.ending.result()
        seconds = self.report.seconds + ending.at - self.made_at
        if ending.error is not None:
            return FileOutcome(seconds=seconds, error=ending.error)
        return FileOutcome(seconds=seconds, report=replace(self.report, seconds=seconds))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ending:
    """How the writing of a file ended."""

    at: float
    error: Exception | None


class _OverlappingRun:
    def __init__(self, enlarger: Enlarger, jobs: Sequence[FileJob], watch: FileWatch) -> None:
        self._enlarger = enlarger
        self._jobs = jobs
        self._watch = watch
        self._unfinished: deque[_Unfinished] = deque()
        self._outcomes: dict[int, FileOutcome] = {}
        """Of files that end before an earlier one."""
        self._num_told = 0
        self._is_telling = False

    def run(self) -> None:
        self._reader = ThreadPoolExecutor(1, "escsr-reader")
        # A thread for each, and for the one that comes on top: none waits for another's encoder.
        self._finisher = ThreadPoolExecutor(WRITE_BEHIND_FILES + 1, "escsr-finisher")
        try:
            self._run_all()
        except BaseException as error:
            self._give_up()
            if isinstance(error, KeyboardInterrupt):
                self._tell()
            raise
        finally:
            for executor in (self._reader, self._finisher):
                executor.shutdown(cancel_futures=True)

    def _run_all(self) -> None:
        following: Future[_Read] | None = self._read_ahead(0)
        for index in range(len(self._jobs)):
            reading, following = following, None
            assert reading is not None
            self._watch.begin(index)
            started, reading_seconds = time.monotonic(), 0.0
            loaded: LoadedFile | None = None
            try:
                read = reading.result()
                del reading
                started, reading_seconds = time.monotonic(), read.seconds
                loaded = read.loaded or read.checked.read()
                del read
                following = self._read_ahead(index + 1)
                self._enlarge(index, loaded, started - reading_seconds)
            except Exception as error:
                if self._is_telling:
                    raise
                seconds = time.monotonic() - started + reading_seconds
                self._outcomes[index] = FileOutcome(seconds=seconds, error=error)
                self._tell()
            finally:
                # Or a large source would stay while the next is decoded.
                loaded = None
            following = following or self._read_ahead(index + 1)
        self._finish_until(0)

    def _read_ahead(self, index: int) -> Future[_Read] | None:
        if index >= len(self._jobs):
            return None
        return self._reader.submit(_read, self._jobs[index], self._enlarger)

    def _enlarge(self, index: int, loaded: LoadedFile, started: float) -> None:
        """Make all rows of a file, and leave it to its encoder.

        Args:
            index: of the file.
            loaded: the file.
            started: when it would have begun, had nothing overlapped.
        """
        plan = loaded.plan(self._enlarger)
        with ExitStack() as stack:
            writer = stack.enter_context(loaded.writer())
            for rows in loaded.rows(self._enlarger, plan, self._advance):
                writer.hand_over(rows)
            made_at = time.monotonic()
            report = loaded.report(self._enlarger, plan, seconds=made_at - started)
            unfinished = _Unfinished(
                index=index,
                writer=writer,
                num_bytes=loaded.result_bytes,
                report=report,
                made_at=made_at,
            )
            # First known, then let go: an interruption in between finds it.
            self._unfinished.append(unfinished)
            stack.pop_all()
        unfinished.ending = self._finisher.submit(_finish, writer)
        self._finish_until(WRITE_BEHIND_BYTES)

    def _advance(self, fraction: float) -> None:
        self._watch.advance(fraction)
        while self._unfinished and _is_finished(self._unfinished[0]):
            self._finish_first()

    def _finish_until(self, num_bytes: int) -> None:
        """Wait for encoders until what is unfinished is no more than this, or one file."""
        least = 1 if num_bytes else 0
        while len(self._unfinished) > least and self._are_too_many(num_bytes):
            self._finish_first()

    def _are_too_many(self, num_bytes: int) -> bool:
        unfinished_bytes = sum(entry.num_bytes for entry in self._unfinished)
        return unfinished_bytes > num_bytes or len(self._unfinished) > WRITE_BEHIND_FILES

    def _finish_first(self) -> None:
        entry = self._unfinished[0]
        # Kept before the entry goes: an interruption in between loses nothing.
        self._outcomes[entry.index] = entry.outcome()
        self._unfinished.popleft()
        self._tell()

    def _tell(self) -> None:
        while self._num_told in self._outcomes:
            self._is_telling = True
            index, self._num_told = self._num_told, self._num_told + 1
            self._watch.end(index, self._outcomes.pop(index))
            self._is_telling = False

    def _give_up(self) -> None:
        """Keep what is complete, and remove the rest."""
        for entry in self._unfinished:
            if not _is_finished(entry):
                entry.writer.abandon()
        for entry in self._unfinished:
            if entry.ending is None:
                entry.writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
            elif (outcome := entry.outcome()).report is not None:
                self._outcomes[entry.index] = outcome


def _read(job: FileJob, enlarger: Enlarger) -> _Read:
    started = time.monotonic()
    checked = job.check(enlarger)
    loaded = checked.read() if checked.num_bytes <= READ_AHEAD_BYTES else None
    return _Read(checked=checked, loaded=loaded, seconds=time.monotonic() - started)


def _finish(writer: ImageWriter) -> _Ending:
    """Wait for the encoder, and put the file in its place."""
    failure = None
    try:
        writer.__exit__(None, None, None)
    except Exception as error:
        failure = error
    return _Ending(at=time.monotonic(), error=failure)


def _is_finished(entry: _Unfinished) -> bool:
    return entry.ending is not None and entry.ending.done()
