"""The training loop: batches in, averaged weights out, a state on disk to go on from."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from escsr.errors import TrainingError
from escsr.evaluation.protocol import TestPair, evaluate_officially, mean_quality
from escsr.model.network import ESC
from escsr.training.batches import Batch, BatchSource, PhotographBatch, StepBatch
from escsr.training.data import Prefetcher
from escsr.training.degraded_batches import open_degraded_batches
from escsr.training.launching import with_precision
from escsr.training.logs import Progress, RunLog
from escsr.training.optimisation import learning_rate_at
from escsr.training.perceptual import PerceptualLoss
from escsr.training.pictures import SampleSheet
from escsr.training.recipe import Recipe
from escsr.training.state import CheckpointFolder, TrainingState
from escsr.training.step import TrainingStep

CHECKPOINT_FOLDER = "checkpoints"
_AGREEMENT_SECONDS = 1.0
"""From one agreement of many processes to the next: after a signal training stops that late."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopHooks:
    """What a caller may listen to, and how it asks to stop."""

    on_note: Callable[[str], None] = lambda _: None
    """Before anything else, with a sentence on the precision that is used, and why."""
    on_loaded: Callable[[int, int], None] = lambda _done, _total: None
    """While images are decoded before the start, with how many are done and how many there are."""
    on_start: Callable[[int, int], None] = lambda _step, _steps: None
    """Before the first step, with the steps done and the steps in all."""
    on_progress: Callable[[Progress], None] = lambda _: None
    """After each row of the log."""
    on_step: Callable[[int], None] = lambda _: None
    """After each step, with the number of steps done."""
    on_best: Callable[[nn.Module, float], None] = lambda _network, _psnr_y_db: None
    """After a validation better than all before, with the averaged network and its PSNR-Y in dB."""
    should_stop: Callable[[], bool] = lambda: False
    """Asked after each step; when true on any process, the state is saved and the loop ends: at
    once where a process trains alone, else within about a second, after the same step on all."""


class TrainingLoop:
    """One run of a recipe.

    Args:
        recipe: what to do.
        source: makes the batch of each step.
        out: folder of the run; gets ``checkpoints/``, ``log.csv``, ``tensorboard/``, ``samples/``.
        fabric: launched; its first process alone writes.
        state: weights to start from; moved to the fabric's device.
        validation_pairs: judged with the averaged weights.
        data_workers: threads that make batches ahead.
        resume: go on from the newest checkpoint. The steps that follow are those that an
            uninterrupted run would have made, bit for bit on a CPU.
        hooks: what to call.
        perceptual: needed where ``loss.perceptual`` has a weight.
    Raises:
        TrainingError: the folder cannot be made, holds a run that is not resumed, or has none.
    """

    def __init__(
        self,
        recipe: Recipe,
        source: BatchSource,
        out: Path,
        *,
        fabric: Fabric,
        state: TrainingState,
        validation_pairs: Sequence[TestPair] = (),
        data_workers: int = 1,
        resume: bool = False,
        hooks: LoopHooks | None = None,
        perceptual: PerceptualLoss | None = None,
    ) -> None:
        recipe, _ = with_precision(recipe, device=fabric.device.type)
        self._recipe, self._fabric, self._state = recipe, fabric, state
        self._source, self._pairs = source, validation_pairs
        self._hooks = hooks or LoopHooks()
        self._data_workers = data_workers
        self._checkpoints = CheckpointFolder(out / CHECKPOINT_FOLDER)
        self._require_folder(out, resume=resume)
        self._step = TrainingStep(recipe, state, fabric, perceptual=perceptual)
        self._degraded = open_degraded_batches(recipe, source, fabric)
        if resume:
            self._checkpoints.read_newest(state, recipe)
            self._drop_losses_of_other_terms()
        self._log = RunLog(
            out,
            state,
            precision=recipe.precision,
            is_written=fabric.is_global_zero,
            loss_names=self._step.loss_names,
        )
        self._samples = SampleSheet(out, validation_pairs, scale=recipe.scale)
        self._recent: list[Tensor] = []
        self._saved_at = time.monotonic()
        self._is_asked_to_stop = False
        self._agreed_step, self._agreed_at = state.step, time.monotonic()
        self._steps_between_agreements = 1

    def run(self) -> bool:
        """Train to the recipe's end, or until asked to stop.

        Returns:
            Whether the end was reached.
        Raises:
            TrainingError: the loss is not finite (the checkpoint before stays), the data is gone
                (a single process saves its state first), or the disk is full.
        """
        try:
            return self._run()
        finally:
            self._log.close()

    def _run(self) -> bool:
        self._hooks.on_start(self._state.step, self._recipe.steps)
        batches = Prefetcher(
            self._source,
            first_step=self._state.step,
            last_step=self._recipe.steps,
            rank=self._fabric.global_rank,
            world_size=self._fabric.world_size,
            workers=self._data_workers,
            pin_memory=self._fabric.device.type == "cuda",
        )
        with closing(batches):
            is_stopped = False
            while self._state.step < self._recipe.steps and not is_stopped:
                self._advance(batches)
                is_stopped, is_checkpoint_due = self._agree()
                if is_checkpoint_due and not is_stopped:
                    self._save()
        self._save()
        return self._state.step >= self._recipe.steps

    def _advance(self, batches: Prefetcher) -> None:
        try:
            batch = next(batches)
        except TrainingError:
            # Other processes are in the midst of a step: nothing can be agreed on with them.
            if self._fabric.world_size == 1:
                self._save()
            raise
        self._recent.append(self._step(self._for_step(batch)))
        step, watch = self._state.step, self._recipe.watch
        is_last = step == self._recipe.steps
        is_judged = bool(self._pairs) and (step % watch.validate_every_steps == 0 or is_last)
        if step % watch.log_every_steps == 0 or is_judged or is_last:
            self._write_row(is_judged=is_judged, waited_seconds=batches.waited_seconds)
        self._hooks.on_step(step)

    def _for_step(self, batch: Batch) -> StepBatch:
        if isinstance(batch, PhotographBatch):
            assert self._degraded is not None, "the recipe has another kind of training data"
            return self._degraded.batch(self._state.step, batch)
        return batch

    def _write_row(self, *, is_judged: bool, waited_seconds: float) -> None:
        self._collect_losses()
        losses, terms = self._state.losses, self._state.loss_terms
        loss = sum(losses) / len(losses)
        means = [sum(column) / len(column) for column in zip(*terms, strict=True)]
        losses.clear()
        terms.clear()
        self._log.lap(self._state.step, waited_seconds)
        psnr_y_db = self._validate() if is_judged else None
        progress = self._log.write(
            self._state,
            loss=loss,
            loss_terms=dict(zip(self._step.loss_names, means, strict=True)),
            learning_rate=learning_rate_at(self._recipe, self._state.step - 1),
            recipe=self._recipe,
            psnr_y_db=psnr_y_db,
        )
        self._hooks.on_progress(progress)

    def _collect_losses(self) -> None:
        """Bring the losses of recent steps from the devices, and stop if one is not finite."""
        if not self._recent:
            return
        values = torch.stack(self._recent)
        self._recent.clear()
        if self._fabric.world_size > 1:
            values = self._fabric.all_reduce(values.double())  # MPS, always alone, has no double
            assert isinstance(values, Tensor)
        rows: list[list[float]] = values.tolist()
        self._state.losses += [row[0] for row in rows]
        self._state.loss_terms += [row[1:] for row in rows]
        first = self._state.step - len(rows) + 1
        for step, row in enumerate(rows, start=first):
            if not all(map(math.isfinite, row)):
                raise _not_finite("loss is", step, self._recipe)

    def _drop_losses_of_other_terms(self) -> None:
        """Begin the next row of the log anew where ``[loss]`` was changed before resuming."""
        state = self._state
        if any(len(row) != len(self._step.loss_names) for row in state.loss_terms):
            state.losses.clear()
            state.loss_terms.clear()

    def _validate(self) -> float | None:
        """Judge the averaged weights on the first process; PSNR-Y in dB, on that process alone."""
        psnr_y_db = None
        if self._fabric.is_global_zero:
            network = self._state.averaged_network
            assert isinstance(network, ESC)
            psnr_y_db, _ = mean_quality(evaluate_officially(network, self._pairs))
            self._log.picture(self._samples.write(network, self._state.step), self._state.step)
            if self._state.best_psnr_y_db is None or psnr_y_db > self._state.best_psnr_y_db:
                self._state.best_psnr_y_db = psnr_y_db
                self._hooks.on_best(network, psnr_y_db)
        self._fabric.barrier()
        return psnr_y_db

    def _save(self) -> None:
        self._collect_losses()
        # The loss of a step is that of the weights before it: these may be lost already. They are
        # the same on every process.
        if not self._state.is_finite():
            raise _not_finite("weights are", self._state.step, self._recipe)
        if self._fabric.is_global_zero:
            self._log.count_time(self._state)
            self._checkpoints.write(self._state, self._recipe)
        self._saved_at = time.monotonic()
        self._fabric.barrier()

    def _agree(self) -> tuple[bool, bool]:
        """Whether to stop, and whether to save: the same on every process, or one would wait.

        To ask the others is to wait for them, so it is done about once a second: all of them count
        the same number of steps from one time to the next.
        """
        watch = self._recipe.watch
        is_late = time.monotonic() - self._saved_at > watch.checkpoint_every_seconds
        answers = (self._hooks.should_stop(), is_late and self._fabric.is_global_zero)
        if self._fabric.world_size == 1:
            return answers
        self._is_asked_to_stop |= answers[0]
        steps = self._state.step - self._agreed_step
        if steps < self._steps_between_agreements and self._state.step < self._recipe.steps:
            return False, False
        step_seconds = (time.monotonic() - self._agreed_at) / steps
        given = torch.tensor(
            (self._is_asked_to_stop, answers[1], step_seconds), dtype=torch.float32
        )
        # The largest of all is the same number on each, whatever the order of a sum.
        largest = self._fabric.all_reduce(given, reduce_op="max")
        assert isinstance(largest, Tensor)
        is_asked, is_due, step_seconds = largest.tolist()
        self._steps_between_agreements = max(1, int(_AGREEMENT_SECONDS / max(step_seconds, 1e-6)))
        self._agreed_step, self._agreed_at = self._state.step, time.monotonic()
        return is_asked > 0, is_due > 0

    def _require_folder(self, out: Path, *, resume: bool) -> None:
        if not resume and self._checkpoints.newest_first():
            raise TrainingError(
                f"{out} already holds a run. Go on with it (--resume), or choose another folder."
            )
        try:
            out.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise TrainingError(f"{out} is a file, not a folder; choose another --out.") from error
        except OSError as error:
            raise TrainingError(
                f"The folder {out} cannot be made: {error.strerror}. Choose another."
            ) from error


def _not_finite(what: str, step: int, recipe: Recipe) -> TrainingError:
    tables = ("optimizer", "gan") if recipe.loss.gan else ("optimizer",)
    rates, norms = (
        " or ".join(f"{table}.{key}" for table in tables)
        for key in ("learning_rate", "clip_norm = 1")
    )
    return TrainingError(
        f"The {what} not finite at step {step}. The last checkpoint is untouched; go on from it "
        f"(--resume) with a lower {rates}, with {norms}, or with "
        'precision = "float32" (--set KEY=VALUE).'
    )
