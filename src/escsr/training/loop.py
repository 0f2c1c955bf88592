"""The training loop: patches in, averaged weights out, a state on disk to go on from."""

import csv
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from escsr.errors import TrainingError
from escsr.evaluation.protocol import TestPair, evaluate_officially, mean_quality
from escsr.model.network import ESC
from escsr.model.variants import variant
from escsr.training.checkpoint import TrainingState, read_state, write_state
from escsr.training.pairs import PatchSampler
from escsr.training.recipe import Recipe

_log = logging.getLogger("escsr")

LOG_COLUMNS = ("step", "seconds", "loss", "learning_rate", "validation_psnr_y_db")
STATE_FILE = "state.pt"
LOG_FILE = "log.csv"
LOG_EVERY_STEPS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What a display may show after each logged step."""

    step: int
    steps: int
    loss: float
    steps_per_second: float
    validation_psnr_y_db: float | None


def train(
    recipe: Recipe,
    sampler: PatchSampler,
    out: Path,
    *,
    validation_pairs: Sequence[TestPair] = (),
    initial_weights: dict[str, Tensor] | None = None,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ESC:
    """Run a recipe to its end, or until asked to stop.

    Args:
        recipe: what to do.
        sampler: makes the batch of each step.
        out: folder of the run; gets ``state.pt`` and ``log.csv``.
        validation_pairs: judged with the averaged weights every ``validate_every_steps``.
        initial_weights: our names; None starts from random weights.
        resume: go on from ``out/state.pt``. The steps that follow are those that an uninterrupted
            run would have made.
        on_progress: called after each logged step.
        should_stop: asked after each step; when true the state is saved and the loop ends.
    Returns:
        The network with the averaged (EMA) weights, eval mode, float32.
    Raises:
        TrainingError: the loss is not finite, the folder cannot be made, or it holds a run and
            ``resume`` is False.
    """
    _make_folder(out)
    state = _resumed_state(out, recipe) if resume else _fresh_state(out, recipe, initial_weights)
    step_function = TrainingStep(recipe, state)
    log = _RunLog(out / LOG_FILE, state)
    saved_at = time.monotonic()
    while state.step < recipe.steps and not should_stop():
        loss = step_function(*sampler.batch(state.step))
        if _is_logged(state.step, recipe, judged=bool(validation_pairs)):
            psnr_db = _validate(state, recipe, validation_pairs)
            progress = log.write(state, recipe, _finite(loss, state.step), psnr_db)
            on_progress(progress)
        if time.monotonic() - saved_at > recipe.checkpoint_every_seconds:
            _finite(loss, state.step)
            write_state(out / STATE_FILE, state, recipe)
            saved_at = time.monotonic()
    write_state(out / STATE_FILE, state, recipe)
    return state.averaged_network


class TrainingStep:
    """One step: forward, loss, backward, AdamW, moving average."""

    def __init__(self, recipe: Recipe, state: TrainingState) -> None:
        self._recipe = recipe
        self._state = state
        self._network: nn.Module = torch.compile(state.network) if recipe.compile else state.network  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(self, lr_batch: Tensor, hr_batch: Tensor) -> Tensor:
        """Train on one batch and count the step; returns the loss, a scalar without gradient."""
        recipe, state = self._recipe, self._state
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate_at(recipe, state.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            sr_batch = self._network(lr_batch)
        loss = pixel_loss(sr_batch.float(), hr_batch, recipe.loss)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()
        state.average(recipe.ema_decay)
        state.step += 1
        return loss.detach()


def pixel_loss(sr_batch: Tensor, hr_batch: Tensor, kind: str) -> Tensor:
    """Mean L1 distance, or Charbonnier's smooth form of it with epsilon 1e-3."""
    if kind == "l1":
        return F.l1_loss(sr_batch, hr_batch)
    return ((sr_batch - hr_batch).square() + 1e-6).sqrt().mean()


def learning_rate_at(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine from the highest to the final learning rate."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    share = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    swing = (recipe.learning_rate - recipe.final_learning_rate) / 2
    return recipe.final_learning_rate + swing * (1 + math.cos(math.pi * share))


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"The folder {out} cannot be made: {error.strerror}. Choose another."
        ) from error


def _fresh_state(
    out: Path, recipe: Recipe, initial_weights: dict[str, Tensor] | None
) -> TrainingState:
    if (out / STATE_FILE).exists():
        raise TrainingError(
            f"{out} already holds a run. Resume it (--resume), or choose another folder."
        )
    torch.manual_seed(recipe.seed)
    # Materialised scores: with gradients into the bias, torch's fused attention falls back to a
    # slower form of the same (0.42 of the step's time in bfloat16 on two cores).
    network = ESC(variant(recipe.model, scale=recipe.scale), attention_backend="chunked")
    if initial_weights is not None:
        network.load_state_dict(initial_weights)
    return TrainingState.start(network, recipe)


def _resumed_state(out: Path, recipe: Recipe) -> TrainingState:
    network = ESC(variant(recipe.model, scale=recipe.scale), attention_backend="chunked")
    state = TrainingState.start(network, recipe)
    read_state(out / STATE_FILE, state, recipe)
    _log.info("resumed at step %d of %d", state.step, recipe.steps)
    return state


def _is_logged(step: int, recipe: Recipe, *, judged: bool) -> bool:
    is_judged = judged and step % recipe.validate_every_steps == 0
    return is_judged or step % LOG_EVERY_STEPS == 0 or step == recipe.steps


def _validate(state: TrainingState, recipe: Recipe, pairs: Sequence[TestPair]) -> float | None:
    if not pairs or (state.step % recipe.validate_every_steps and state.step != recipe.steps):
        return None
    return mean_quality(evaluate_officially(state.averaged_network, pairs))[0]


def _finite(loss: Tensor, step: int) -> float:
    value = float(loss)
    if not math.isfinite(value):
        raise TrainingError(
            f"The loss is {value} at step {step}. Resume from the last checkpoint with a lower "
            "learning_rate, or with precision = 'float32'."
        )
    return value


class _RunLog:
    """``log.csv``; on resume, rows after the state's step are dropped."""

    def __init__(self, path: Path, state: TrainingState) -> None:
        self._path = path
        self._started = time.monotonic() - state.seconds
        self._last = (time.monotonic(), state.step)
        kept: list[list[str]] = []
        if state.step and path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                kept = [row for row in list(csv.reader(file))[1:] if int(row[0]) <= state.step]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([LOG_COLUMNS, *kept])

    def write(
        self, state: TrainingState, recipe: Recipe, loss: float, psnr_db: float | None
    ) -> Progress:
        now = time.monotonic()
        state.seconds = now - self._started
        rate = (state.step - self._last[1]) / max(1e-9, now - self._last[0])
        self._last = (now, state.step)
        row = (
            state.step,
            f"{state.seconds:.0f}",
            repr(loss),
            f"{learning_rate_at(recipe, state.step - 1):.3e}",
            "" if psnr_db is None else f"{psnr_db:.4f}",
        )
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(row)
        return Progress(
            step=state.step,
            steps=recipe.steps,
            loss=loss,
            steps_per_second=rate,
            validation_psnr_y_db=psnr_db,
        )
