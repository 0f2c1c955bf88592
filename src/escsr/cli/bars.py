"""The bars of a run on a terminal: the current file, and all files."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from escsr.cli.exit_status import printable
from escsr.cli.plan import Job
from escsr.cli.progress import LineView, num_pixels
from escsr.cli.results import FileResult


class BarView(LineView):
    """The lines of :class:`LineView`, and bars below them as long as the pixels to make.

    Args:
        planned: the jobs, and the inputs that need none.
        progress: shows the bars.
        stdout_is_taken: stdout belongs to JSON.
    """

    def __init__(
        self, planned: Sequence[Job | FileResult], progress: Progress, *, stdout_is_taken: bool
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
        pixels = self._begun[job.file.path] = num_pixels(job.output_size)
        name = printable(job.file.path.name)
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


class RateColumn(ProgressColumn):
    """Megapixels of results per second."""

    def render(self, task: Task) -> Text:
        """The rate of one bar; empty until it is known."""
        return Text("" if task.speed is None else f"{task.speed / 1e6:.2f} MP/s")


@contextmanager
def bar_view(planned: Sequence[Job | FileResult], *, stdout_is_taken: bool) -> Iterator[BarView]:
    """Show bars on stderr until the block ends.

    Args:
        planned: the jobs, and the inputs that need none.
        stdout_is_taken: stdout belongs to JSON.
    """
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        # Otherwise lines meant for a redirected stdout would go to the terminal.
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:
        yield BarView(planned, progress, stdout_is_taken=stdout_is_taken)
