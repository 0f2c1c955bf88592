"""Do the jobs of a run in order, and show it: lines, bars, or JSON events."""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, cast, get_args

from escsr.cli.console import (
    ALL_DONE,
    SOME_FAILED,
    STANDARD_STREAM,
    interrupted_status,
    printable,
    write_line,
)
from escsr.cli.upscale_plan import (
    FileResult,
    Job,
    Size,
    Status,
    error_in_words,
    result_as_dict,
)
from escsr.errors import ConfigurationError, EscsrError, OutputExistsError
from escsr.machine import is_out_of_memory, out_of_memory_text
from escsr.upscaling.files import FileOutcome, FileWatch, UpscaleReport

if TYPE_CHECKING:
    from rich.progress import Progress


WORDS: dict[Status, str] = {
    "done": "done",
    "planned": "to do",
    "skipped": "skipped",
    "failed": "FAILED",
    "interrupted": "not done",
}


class RunView(Protocol):
    """What shows a run while it goes on."""

    def begin(self, job: Job) -> None:
        """A job begins."""
        ...

    def advance(self, fraction: float) -> None:
        """The current job is this far, from 0 to 1."""
        ...

    def end(self, result: FileResult) -> None:
        """An input is settled, with or without a job before."""
        ...


ProgressChoice = Literal["auto", "json", "none"]
"""``auto``: bars where stderr is a terminal; ``json``: an event a line."""


def parse_progress(text: str) -> ProgressChoice:
    """Read ``--progress``.

    Raises:
        ConfigurationError: another word.
    """
    if text not in get_args(ProgressChoice):
        allowed = ", ".join(get_args(ProgressChoice))
        raise ConfigurationError(f"--progress is {text!r}; it must be one of {allowed}.")
    return cast(ProgressChoice, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownAs:
    """How a run shows itself."""

    as_json: bool = False
    """The results are printed as JSON in the end, so that stdout belongs to them."""
    progress: ProgressChoice = "auto"
    """What is shown meanwhile."""
    quiet: bool = False
    """Only what failed is told."""


class LineView:
    """One line per input: what failed on stderr, the rest on stdout.

    Args:
        num_inputs: how many there are.
        stdout_is_taken: stdout belongs to JSON; then all lines go to stderr.
        quiet: only what failed has a line.
    """

    def __init__(self, num_inputs: int, *, stdout_is_taken: bool, quiet: bool = False) -> None:
        self._quiet = quiet
        self._num_inputs = num_inputs
        self._num_ended = 0
        self._stdout_is_taken = stdout_is_taken

    def begin(self, job: Job) -> None:
        """Lines tell of what is settled; nothing yet."""

    def advance(self, fraction: float) -> None:
        """Lines tell of what is settled; nothing yet."""

    def end(self, result: FileResult) -> None:
        """Write the line of one input."""
        self._num_ended += 1
        if self._quiet and result.status != "failed":
            return
        count = f"[{self._num_ended}/{self._num_inputs}] " if self._num_inputs > 1 else ""
        to_stderr = self._stdout_is_taken or result.status == "failed"
        write_line(count + result_line(result), to_stderr=to_stderr)


class BarView(LineView):
    """The lines of :class:`LineView`, and bars below them as long as the pixels to make.

    Args:
        planned: the jobs, and the inputs that need none.
        progress: shows the bars.
        stdout_is_taken: stdout belongs to JSON.
    """

    def __init__(
        self, planned: Sequence[Job | FileResult], progress: "Progress", *, stdout_is_taken: bool
    ) -> None:
        super().__init__(len(planned), stdout_is_taken=stdout_is_taken)
        jobs = [entry for entry in planned if isinstance(entry, Job)]
        self._progress = progress
        self._total_pixels = sum(num_pixels(job.output_size) for job in jobs)
        self._done_pixels = 0
        self._begun: dict[Path, int] = {}
        """Pixels of the files that have begun and are not settled; the last is the current one."""
        self._current_done = 0.0
        self._file_bar = progress.add_task("", total=None, visible=False)
        self._run_bar = progress.add_task(
            "all files", total=self._total_pixels, visible=len(jobs) > 1
        )

    def begin(self, job: Job) -> None:
        """Start the bar of this file; those before it are only being written."""
        pixels = self._begun[job.file.shown] = num_pixels(job.output_size)
        name = printable(job.file.shown.name)
        self._current_done = 0.0
        self._progress.reset(self._file_bar, total=pixels, description=name, visible=True)

    def advance(self, fraction: float) -> None:
        """Move both bars."""
        self._current_done = fraction * list(self._begun.values())[-1]
        self._progress.update(self._file_bar, completed=self._current_done)
        self._show_run()

    def end(self, result: FileResult) -> None:
        """Write the line; the pixels that a failed file left undone leave the run's bar."""
        super().end(result)
        is_current = result.input in list(self._begun)[-1:]
        pixels = self._begun.pop(result.input, 0)
        if result.status == "done":
            self._done_pixels += pixels
        else:
            self._total_pixels -= pixels
        if is_current:
            self._current_done = 0.0
            self._progress.update(self._file_bar, visible=False)
        self._show_run()

    def _show_run(self) -> None:
        written = sum(list(self._begun.values())[:-1])
        completed = self._done_pixels + written + self._current_done
        self._progress.update(self._run_bar, completed=completed, total=self._total_pixels)


class EventView:
    """A JSON object a line: what begins, how far it is, and what became of it.

    Events, by their key ``event``: ``start`` (``inputs``, ``pixels`` to make), ``file`` (``input``,
    ``output``, ``output_width``, ``output_height``), ``progress`` (``input``, ``fraction`` of it,
    at most ten a second), ``result`` (the keys of ``--json``) and ``end`` (how many ended how).

    Args:
        planned: the jobs, and the inputs that need none.
        to_stderr: stdout belongs to the image or to JSON.
    """

    def __init__(self, planned: Sequence[Job | FileResult], *, to_stderr: bool) -> None:
        self._to_stderr = to_stderr
        self._current: str | None = None
        self._told_at = 0.0
        self._count: Counter[Status] = Counter()
        pixels = sum(num_pixels(entry.output_size) for entry in planned if isinstance(entry, Job))
        self._write("start", {"inputs": len(planned), "pixels": pixels})

    def begin(self, job: Job) -> None:
        """A job begins."""
        self._current, self._told_at = str(job.file.shown), 0.0
        width, height = job.output_size
        output = STANDARD_STREAM if job.to_stdout else str(job.output)
        size = {"output_width": width, "output_height": height}
        self._write("file", {"input": self._current, "output": output, **size})

    def advance(self, fraction: float) -> None:
        """The current job is this far, from 0 to 1."""
        now = time.monotonic()
        if fraction < 1 and now - self._told_at < _SECONDS_BETWEEN_EVENTS:
            return
        self._told_at = now
        self._write("progress", {"input": self._current, "fraction": round(fraction, 4)})

    def end(self, result: FileResult) -> None:
        """An input is settled."""
        self._count[result.status] += 1
        self._write("result", result_as_dict(result))

    def close(self) -> None:
        """The run is over."""
        self._write("end", {status: self._count[status] for status in WORDS})

    def _write(self, event: str, content: Mapping[str, object]) -> None:
        write_line(json.dumps({"event": event, **content}), to_stderr=self._to_stderr)


_SECONDS_BETWEEN_EVENTS = 0.1


@contextmanager
def shown_run(
    planned: Sequence[Job | FileResult], shown: ShownAs, *, to_stdout: bool = False
) -> Iterator[RunView]:
    """Show a run: with bars where stderr is a terminal, with lines alone elsewhere, or events.

    Args:
        planned: the jobs, and the inputs that need none.
        shown: as asked for.
        to_stdout: stdout belongs to an image.
    """
    taken = shown.as_json or to_stdout
    if shown.progress == "json":
        events = EventView(planned, to_stderr=taken)
        yield events
        events.close()
    elif shown.quiet or shown.progress == "none" or not sys.stderr.isatty():
        yield LineView(len(planned), stdout_is_taken=taken, quiet=shown.quiet)
    else:
        with bar_view(planned, stdout_is_taken=taken) as view:
            yield view


@contextmanager
def bar_view(planned: Sequence[Job | FileResult], *, stdout_is_taken: bool) -> Iterator[BarView]:
    """Show bars on stderr until the block ends.

    Args:
        planned: the jobs, and the inputs that need none.
        stdout_is_taken: stdout belongs to JSON.
    """
    # rich takes a while to import
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.text import Text

    class RateColumn(rich_progress.ProgressColumn):
        """Megapixels of results per second; empty until it is known."""

        def render(self, task: rich_progress.Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed / 1e6:.2f} MP/s")

    with rich_progress.Progress(
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        RateColumn(),
        rich_progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        # Otherwise lines meant for a redirected stdout would go to the terminal.
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:
        yield BarView(planned, progress, stdout_is_taken=stdout_is_taken)


def result_line(result: FileResult) -> str:
    """What became of one input, in one line."""
    name = printable(result.input)
    if result.status == "failed":
        return f"{name}: FAILED: {printable(result.error)}"
    parts = [WORDS[result.status]]
    if result.input_size and result.output_size:
        parts.append(f"{_by(result.input_size)} -> {_by(result.output_size)}")
    if result.seconds is not None and result.output_size:
        megapixels = num_pixels(result.output_size) / 1e6
        rate = megapixels / max(result.seconds, 1e-9)
        parts.append(f"{result.seconds:.1f} s, {rate:.2f} MP/s")
    if result.note:
        parts.append(printable(result.note))
    target = "" if result.output is None else f" -> {printable(result.output)}"
    return f"{name}{target}: {', '.join(parts)}"


def summary_line(results: Sequence[FileResult]) -> str:
    """How many inputs ended how."""
    count = Counter(result.status for result in results)
    return ", ".join(f"{count[status]} {WORDS[status]}" for status in WORDS if count[status]) + "."


def num_pixels(size: Size) -> int:
    """Pixels of an image of this size."""
    return size[0] * size[1]


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


logger = logging.getLogger(__name__)

Work: TypeAlias = Callable[[list[Job], FileWatch], None]
"""Does jobs, and tells of each; whatever goes wrong with one is its outcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a run."""

    results: list[FileResult]
    """One per input, in order."""

    interruption: KeyboardInterrupt | None = None
    """Who ended it before its end, if anybody did."""

    @property
    def exit_status(self) -> int:
        """0 all done, 1 some failed, 128 and the signal's number when interrupted."""
        if self.interruption is not None:
            return interrupted_status(self.interruption)
        failed = any(result.status == "failed" for result in self.results)
        return SOME_FAILED if failed else ALL_DONE


def run_jobs(
    planned: Sequence[Job | FileResult],
    work: Work,
    view: RunView,
    on_report: Callable[[UpscaleReport], None],
    *,
    leaves_existing: bool = False,
) -> Outcome:
    """Do the jobs, and tell the view about each input.

    Args:
        planned: jobs to do, and results of inputs that need no work.
        work: does the jobs.
        view: shows the run.
        on_report: told how each job was done.
        leaves_existing: a result that another run made meanwhile is no failure.
    Returns:
        The results; after an interruption, the rest are marked as interrupted.
    """
    jobs = [entry for entry in planned if isinstance(entry, Job)]
    told = _ToldInOrder(planned, jobs, view, on_report, leaves_existing=leaves_existing)
    interruption = None
    try:
        told.tell_settled()
        if jobs:
            work(jobs, told)
    except KeyboardInterrupt as error:
        interruption = error
        rest = planned[len(told.results) :]
        told.results.extend(e.result("interrupted") if isinstance(e, Job) else e for e in rest)
    return Outcome(results=told.results, interruption=interruption)


class _ToldInOrder:
    """Turns what becomes of jobs into results of all inputs, in order, and shows them."""

    def __init__(
        self,
        planned: Sequence[Job | FileResult],
        jobs: list[Job],
        view: RunView,
        on_report: Callable[[UpscaleReport], None],
        *,
        leaves_existing: bool,
    ) -> None:
        self.results: list[FileResult] = []
        self._planned = planned
        self._jobs = jobs
        self._view = view
        self._on_report = on_report
        self._leaves_existing = leaves_existing

    def begin(self, index: int) -> None:
        """The network turns to a job."""
        self._view.begin(self._jobs[index])

    def advance(self, fraction: float) -> None:
        """It is this far."""
        self._view.advance(fraction)

    def end(self, index: int, outcome: FileOutcome) -> None:
        """A job is settled, and with it the inputs behind it that need none."""
        job = self._jobs[index]
        if self._leaves_existing and isinstance(outcome.error, OutputExistsError):
            self._tell(replace(job, note="another run made it meanwhile").result("skipped"))
        else:
            self._tell(_result(job, outcome))
        if outcome.report is not None:
            self._on_report(outcome.report)
        self.tell_settled()

    def tell_settled(self) -> None:
        """Tell of inputs that need no work, up to the next job."""
        for entry in self._planned[len(self.results) :]:
            if isinstance(entry, Job):
                return
            self._tell(entry)

    def _tell(self, result: FileResult) -> None:
        self.results.append(result)
        self._view.end(result)


def _result(job: Job, outcome: FileOutcome) -> FileResult:
    error = outcome.error
    if error is None:
        report = outcome.report
        notes = [*filter(None, [job.note]), *(report.notes if report is not None else ())]
        told = replace(job, note=printable("; ".join(notes)) if notes else None)
        return told.result("done", seconds=outcome.seconds, report=report)
    if isinstance(error, EscsrError):
        text = error_in_words(error, job.file)
        return job.result("failed", error=text, seconds=outcome.seconds)
    if is_out_of_memory(error):
        text = printable(out_of_memory_text(error))
        return job.result("failed", error=text, seconds=outcome.seconds)
    # A defect of ours or of a library: this file's failure, but not the collection's.
    logger.debug("Unexpected error", exc_info=error)
    words = error_in_words(error, job.file)
    text = f"unexpected {type(error).__name__}: {words} (--verbose shows where)"
    return job.result("failed", error=text, seconds=outcome.seconds)
