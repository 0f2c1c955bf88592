"""The bars of a run on a terminal: the current file, and all files."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
        self._job_pixels = 0
        self._file_bar = progress.add_task("", total=None, visible=False)
        self._run_bar = progress.add_task(
            "all files", total=self._total_pixels, visible=len(jobs) > 1
        )

    def begin(self, job: Job) -> None:
        """Start the bar of this file."""
        self._job_pixels = num_pixels(job.output_size)
        name = printable(job.file.path.name)
        self._progress.reset(self._file_bar, total=self._job_pixels, description=name, visible=True)

    def advance(self, fraction: float) -> None:
        """Move both bars."""
        pixels = fraction * self._job_pixels
        self._progress.update(self._file_bar, completed=pixels)
        self._progress.update(self._run_bar, completed=self._done_pixels + pixels)

    def end(self, result: FileResult) -> None:
        """Write the line; the pixels that a failed file left undone leave the run's bar."""
        super().end(result)
        if result.status == "done":
            self._done_pixels += self._job_pixels
        else:
            self._total_pixels -= self._job_pixels
        self._job_pixels = 0
        self._progress.update(self._file_bar, visible=False)
        self._progress.update(self._run_bar, completed=self._done_pixels, total=self._total_pixels)


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
