"""Training logs: CSV and TensorBoard."""

import csv
import io
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from escsr.errors import TrainingError
from escsr.temporary_files import replace_file
from escsr.training.recipe import Recipe
from escsr.training.state import TrainingState

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

_log = logging.getLogger("escsr")

LOG_FILE = "log.csv"
BOARD_FOLDER = "tensorboard"
LOG_COLUMNS = (
    "step",
    "loss",
    "learning_rate",
    "psnr_y_db",
    "seconds",
    "images_per_second",
    "precision",
)
"""Of every run; behind them a column ``loss_NAME`` for each term of a loss of several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """One row of the log."""

    step: int
    """Steps done."""
    steps: int
    """Steps in all."""
    loss: float
    """Mean since the row before, over all processes."""
    loss_terms: Mapping[str, float]
    """What it is the sum of, by name, and the losses of the discriminator; empty where the loss has
    one term."""
    learning_rate: float
    """Of the last step."""
    psnr_y_db: float | None
    """Of the averaged weights, where they were judged."""
    seconds: float
    """Time spent on the run so far, over all sessions."""
    steps_per_second: float
    """Since the row before, without validation."""
    images_per_second: float
    """Likewise, over all processes."""
    waiting_share: float
    """Share of that time in which the network waited for data."""


class RunLog:
    """Writes ``log.csv`` and ``tensorboard/``; on resume, rows after the state's step are dropped.

    Args:
        out: folder of the run.
        state: as it is at the start of this session.
        precision: of the forward and backward pass in this session; another may follow.
        is_written: whether this process writes.
        loss_names: of the terms of the loss.
    Raises:
        TrainingError: the file cannot be written.
    """

    def __init__(
        self,
        out: Path,
        state: TrainingState,
        *,
        precision: str,
        is_written: bool,
        loss_names: Sequence[str] = (),
    ) -> None:
        self._path = out / LOG_FILE
        self._columns = [*LOG_COLUMNS, *map(_term_column, loss_names)]
        self._precision = precision
        self._is_written = is_written
        self._started = time.monotonic() - state.seconds
        self._lap_at, self._lap_step, self._lap_waited = time.monotonic(), state.step, 0.0
        self._steps_per_second, self._waiting_share = 0.0, 0.0
        self._board: SummaryWriter | None = None
        if is_written:
            self._start_file(state.step)
            self._board = _tensorboard(out / BOARD_FOLDER, state.step)
            self._show(lambda board: board.add_text("precision", precision, state.step))

    def lap(self, step: int, waited_seconds: float) -> None:
        """Measure the speed since the last row; call it before a validation takes its time."""
        elapsed = max(1e-9, time.monotonic() - self._lap_at)
        self._steps_per_second = (step - self._lap_step) / elapsed
        self._waiting_share = min(1.0, (waited_seconds - self._lap_waited) / elapsed)
        self._lap_step, self._lap_waited = step, waited_seconds

    def count_time(self, state: TrainingState) -> None:
        """Set the state's clock."""
        state.seconds = time.monotonic() - self._started

    def write(
        self,
        state: TrainingState,
        *,
        loss: float,
        loss_terms: Mapping[str, float],
        learning_rate: float,
        recipe: Recipe,
        psnr_y_db: float | None,
    ) -> Progress:
        """Add a row; a new lap starts."""
        self.count_time(state)
        self._lap_at = time.monotonic()
        progress = Progress(
            step=state.step,
            steps=recipe.steps,
            loss=loss,
            loss_terms=loss_terms,
            learning_rate=learning_rate,
            psnr_y_db=psnr_y_db,
            seconds=state.seconds,
            steps_per_second=self._steps_per_second,
            images_per_second=self._steps_per_second * recipe.data.batch_size,
            waiting_share=self._waiting_share,
        )
        if self._is_written:
            self._add_row(progress)
        return progress

    def picture(self, pixels: npt.NDArray[np.uint8], step: int) -> None:
        """Show a sample sheet, (H, W, 3), in TensorBoard."""
        self._show(lambda board: board.add_image("samples", pixels, step, dataformats="HWC"))

    def close(self) -> None:
        """Write what TensorBoard has not yet; its own writer would drop that at the end."""
        board, self._board = self._board, None
        if board is not None:
            with suppress(OSError):
                board.close()

    def _start_file(self, step: int) -> None:
        try:
            if step and self._path.exists():
                self._drop_rows_after(step)
                return
            with self._path.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerow(self._columns)
        except OSError as error:
            raise _not_written(self._path, error) from error

    def _drop_rows_after(self, step: int) -> None:
        with self._path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        # A crash may have cut the last row; a changed loss has other columns.
        whole = (dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header))
        kept = [row for row in whole if int(row["step"]) <= step]
        # A kill while the file is written again must not cost the rows so far.
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
        replace_file(self._path, text.getvalue().encode("utf-8"))

    def _add_row(self, progress: Progress) -> None:
        judged = progress.psnr_y_db
        row = (
            progress.step,
            repr(progress.loss),
            f"{progress.learning_rate:.4e}",
            "" if judged is None else f"{judged:.4f}",
            f"{progress.seconds:.0f}",
            f"{progress.images_per_second:.2f}",
            self._precision,
            *map(repr, progress.loss_terms.values()),
        )
        try:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                csv.writer(file).writerow(row)
        except OSError as error:
            raise _not_written(self._path, error) from error
        for name in ("loss", "learning_rate", "images_per_second", "waiting_share", "psnr_y_db"):
            self._show_number(name, getattr(progress, name), progress.step)
        for name, value in progress.loss_terms.items():
            self._show_number(_term_column(name), value, progress.step)

    def _show_number(self, name: str, value: float | None, step: int) -> None:
        if value is not None:
            self._show(lambda board: board.add_scalar(name, value, step))

    def _show(self, add: "Callable[[SummaryWriter], None]") -> None:
        if self._board is None:
            return
        try:
            add(self._board)
        except OSError as error:
            raise _not_written(self._path.with_name(BOARD_FOLDER), error) from error


def _term_column(name: str) -> str:
    return f"loss_{name}"


def _tensorboard(folder: Path, step: int) -> "SummaryWriter | None":
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        _log.info("TensorBoard is not installed (pip install tensorboard); log.csv has it all")
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)


def _not_written(path: Path, error: OSError) -> TrainingError:
    return TrainingError(
        f"{path} cannot be written: {error.strerror}. Make room or give permission, then go on "
        "with --resume."
    )
