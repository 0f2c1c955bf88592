"""How a run shows itself: bars on a terminal, and one line per file everywhere."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from escsr.cli.exit_status import printable
from escsr.cli.plan import Job
from escsr.cli.results import FileResult, Size, Status
from escsr.cli.streams import write_line

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


class LineView:
    """One line per input: what failed on stderr, the rest on stdout.

    Args:
        num_inputs: how many there are.
        stdout_is_taken: stdout belongs to JSON; then all lines go to stderr.
    """

    def __init__(self, num_inputs: int, *, stdout_is_taken: bool) -> None:
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


@contextmanager
def shown_run(planned: Sequence[Job | FileResult], *, stdout_is_taken: bool) -> Iterator[RunView]:
    """Show a run: with bars where stderr is a terminal, with lines alone elsewhere."""
    if not sys.stderr.isatty():
        yield LineView(len(planned), stdout_is_taken=stdout_is_taken)
        return
    with bar_view(planned, stdout_is_taken=stdout_is_taken) as view:
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
