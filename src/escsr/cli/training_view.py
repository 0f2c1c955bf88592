"""What ``escsr train`` shows: a live bar on a terminal, a line per row of the log elsewhere."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from torch import nn

    from escsr.training.logs import Progress


class TrainingView:
    """Lines on stderr; the base of the live view.

    Args:
        is_shown: only the first of many processes shows anything.
    """

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._best_psnr_y_db: float | None = None

    def note(self, sentence: str) -> None:
        """Say in which precision the run computes, and why."""
        if self._is_shown:
            self._print(sentence)

    def loaded(self, done: int, total: int) -> None:
        """Images are being decoded."""

    def start(self, step: int, steps: int) -> None:
        """The first step is about to begin."""

    def step(self, step: int) -> None:
        """A step is done."""

    def best(self, _network: "nn.Module", psnr_y_db: float) -> None:
        """A validation was the best so far."""
        self._best_psnr_y_db = psnr_y_db

    def row(self, progress: "Progress") -> None:
        """A row of the log was written."""
        if self._is_shown:
            self._print(_line(progress, self._best_psnr_y_db))

    def _print(self, line: str) -> None:
        typer.echo(line, err=True)


class LiveTrainingView(TrainingView):
    """A bar with the latest figures; validations stay as lines above it."""

    def __init__(self, bars: Bars) -> None:
        super().__init__(is_shown=True)
        self._bars = bars
        self._task: TaskID = bars.add_task("starting", total=None)

    def _print(self, line: str) -> None:
        self._bars.console.print(line, highlight=False)

    def loaded(self, done: int, total: int) -> None:
        """Let the bar count images first."""
        self._bars.update(self._task, total=total, completed=done, description="reading images")

    def start(self, step: int, steps: int) -> None:
        """Begin the bar of the steps."""
        self._bars.reset(self._task, total=steps, completed=step, description="first steps")

    def step(self, step: int) -> None:
        """Move the bar."""
        self._bars.update(self._task, completed=step)

    def row(self, progress: "Progress") -> None:
        """Show the figures beside the bar."""
        self._bars.update(self._task, description=_figures(progress), completed=progress.step)
        if progress.psnr_y_db is not None:
            place = f"step {progress.step}/{progress.steps}"
            judged = _judged(progress, self._best_psnr_y_db)
            self._print(f"{place}{judged}")


def is_first_process() -> bool:
    """Whether this process is the one of torchrun's that speaks; alone it is."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


@contextmanager
def training_view() -> Iterator[TrainingView]:
    """The view that fits: live where stderr is a terminal, lines elsewhere."""
    is_first = is_first_process()
    if not (is_first and sys.stderr.isatty()):
        yield TrainingView(is_shown=is_first)
        return
    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(compact=True),
    )
    with Bars(*columns, console=Console(stderr=True), speed_estimate_period=120) as bars:
        yield LiveTrainingView(bars)


def _figures(progress: "Progress") -> str:
    terms = "".join(f"  {name} {value:.4f}" for name, value in progress.loss_terms.items())
    return (
        f"loss {progress.loss:.5f}  {progress.images_per_second:.1f} images/s  "
        f"{progress.waiting_share:.1%} waiting for data{terms}"
    )


def _line(progress: "Progress", best_psnr_y_db: float | None) -> str:
    remaining = (progress.steps - progress.step) / max(1e-9, progress.steps_per_second)
    hours, rest = divmod(int(remaining), 3600)
    left = f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}"
    place = f"step {progress.step}/{progress.steps}"
    return f"{place}  {_figures(progress)}  {left} left{_judged(progress, best_psnr_y_db)}"


def _judged(progress: "Progress", best_psnr_y_db: float | None) -> str:
    if progress.psnr_y_db is None:
        return ""
    is_best = best_psnr_y_db is None or progress.psnr_y_db >= best_psnr_y_db
    beside = "best" if is_best else f"best {best_psnr_y_db:.3f}"
    return f"  {progress.psnr_y_db:.3f} dB ({beside})"
