"""The state of a run, and its checkpoints on disk, from which a run resumes exactly."""

import copy
import io
import logging
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from escsr.errors import CheckpointError, TrainingError
from escsr.temporary_files import replace_file
from escsr.training.adversarial import Adversary
from escsr.training.optimisation import fill_optimizer, start_optimizer
from escsr.training.recipe import Recipe
from escsr.weights.arrays import as_tensor
from escsr.weights.checkpoint_file import read_values


class Stateful(Protocol):
    """Anything with a state to keep, such as the scaler of float16 gradients."""

    def state_dict(self) -> dict[str, Any]:
        """The state, as tensors and plain values."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state over."""
        ...


@dataclass(slots=True)
class TrainingState:
    """Weights, their moving average, the optimiser, and how far the run is.

    The place in the data needs no entry: a batch is a function of the seed and the step.
    """

    network: torch.nn.Module
    averaged_network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    adversary: Adversary | None = None
    """The discriminator, where the recipe has one."""
    step: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0
    """Time spent so far, over all sessions."""
    best_psnr_y_db: float | None = None
    """Of the validations so far."""
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last row of the log."""
    loss_terms: list[list[float]] = field(default_factory=list)
    """What they are the sum of, and the losses of the discriminator; in the step's order."""
    precision: Stateful | None = None
    """What half precision keeps between steps."""

    @classmethod
    def start(
        cls,
        network: torch.nn.Module,
        recipe: Recipe,
        *,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> Self:
        """The state before the first step; the network is taken over and laid out in memory."""
        network = network.to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]
        averaged = copy.deepcopy(network).eval().requires_grad_(False)
        optimizer = start_optimizer(
            network.parameters(),
            recipe.optimizer,
            kind=recipe.optimizer.kind,
            weight_decay=recipe.optimizer.weight_decay,
            precision=recipe.precision,
        )
        adversary = Adversary.start(recipe, memory_format) if recipe.loss.gan else None
        return cls(network.train(), averaged, optimizer, adversary)

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Move the averaged weights towards the current ones: a' = decay a + (1 - decay) w.

        While young the average forgets faster, so that the random start does not linger.
        """
        decay = min(decay, (1 + self.step) / (10 + self.step))
        pairs = zip(self.averaged_network.parameters(), self.network.parameters(), strict=True)
        for averaged, current in pairs:
            averaged.lerp_(current, 1 - decay)

    def is_finite(self) -> bool:
        """Whether all weights in training are finite."""
        networks = [self.network] + ([self.adversary.discriminator] if self.adversary else [])
        weights = chain.from_iterable(network.parameters() for network in networks)
        return all(bool(weight.isfinite().all()) for weight in weights)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as tensors and plain values."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "best_psnr_y_db": self.best_psnr_y_db,
            "losses": self.losses,
            "loss_terms": self.loss_terms,
            "network": self.network.state_dict(),
            "averaged_network": self.averaged_network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adversary": self.adversary.to_dict() if self.adversary else {},
            "precision": self.precision.state_dict() if self.precision else {},
            "random_state": torch.get_rng_state(),
        }

    def fill(self, content: dict[str, Any]) -> None:
        """The inverse of ``to_dict``.

        Raises:
            RuntimeError, KeyError, ValueError: as torch does where the content is of another
                network or optimiser.
        """
        self.network.load_state_dict(content["network"])
        self.averaged_network.load_state_dict(content["averaged_network"])
        fill_optimizer(self.optimizer, content["optimizer"])
        if self.adversary is not None:
            self.adversary.fill(content["adversary"])
        if self.precision is not None and content["precision"]:
            self.precision.load_state_dict(content["precision"])
        torch.set_rng_state(content["random_state"])
        self.step, self.seconds = content["step"], content["seconds"]
        self.best_psnr_y_db = content["best_psnr_y_db"]
        self.losses = list(content["losses"])
        self.loss_terms = list(content.get("loss_terms", []))  # states of 0.2 have none


_log = logging.getLogger("escsr")

_FORMAT = "escsr training state 2"
_PATTERN = "step-*.pt"


class CheckpointFolder:
    """The newest states of a run, ``step-00001000.pt``; older ones are deleted.

    A file appears whole or not at all, and the one before it stays, so that a crash or a full disk
    costs the steps since then and nothing else. Every part of a file has a checksum, which
    ``torch.save`` writes and reading verifies: a flipped bit does not become other weights.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def newest_first(self) -> list[Path]:
        """The states on disk."""
        return sorted(self._folder.glob(_PATTERN), reverse=True)

    def newest_step(self) -> int | None:
        """The step of the newest state; None where there is none."""
        return next((int(path.stem.removeprefix("step-")) for path in self.newest_first()), None)

    def write(self, state: TrainingState, recipe: Recipe) -> Path:
        """Write a state, then delete those that are no longer needed.

        Raises:
            TrainingError: it could not be written, as when the disk is full.
        """
        path = self._folder / f"step-{state.step:08d}.pt"
        content = {"format": _FORMAT, "recipe": recipe.model_dump(), **state.to_dict()}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # By way of memory: torch puts its own errors in place of those of the file system.
            state_file = io.BytesIO()
            with _checksums():
                torch.save(content, state_file)
            replace_file(path, state_file.getbuffer())
        except (OSError, RuntimeError) as error:
            raise TrainingError(
                f"The state of step {state.step} could not be written to {path}: {error}. Make "
                "room, then go on with --resume; the state before it is untouched."
            ) from error
        # Behind a damaged state of a later step, the one just written is not the first.
        others = [other for other in self.newest_first() if other != path]
        for old in others[recipe.watch.checkpoints_kept - 1 :]:
            old.unlink(missing_ok=True)
        return path

    def read_newest(self, state: TrainingState, recipe: Recipe) -> None:
        """Fill a state from the newest file that can be read.

        Raises:
            TrainingError: there is none, or it is of another network.
        """
        paths = self.newest_first()
        if not paths:
            raise TrainingError(
                f"There is nothing to resume in {self._folder}. Leave out --resume to start a run, "
                "with --from WEIGHTS to start it from a trained network."
            )
        for number, path in enumerate(paths, start=1):
            try:
                content = _load(path)
            except TrainingError as error:
                if number == len(paths):
                    raise
                _log.warning("%s The one before it is used.", error)
                continue
            _fill(state, content, path, recipe)
            return


@contextmanager
def _checksums() -> Generator[None]:
    """Let ``torch.save`` compute checksums, whatever it is set to."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = _with_tensors(read_values(path))
    except CheckpointError as error:
        reason = " ".join(str(error).removeprefix(f"{path} ").split())[:200]
        raise TrainingError(f"{path} cannot be read as a training state ({reason}).") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise TrainingError(
            f"{path} is not a training state of this version of escsr; a file of weights is given "
            "with --from."
        )
    return content


def _with_tensors(content: Any) -> Any:
    """Tensors in place of arrays, wherever in dictionaries, lists and tuples these are."""
    if isinstance(content, np.ndarray):
        return as_tensor(content)
    if isinstance(content, dict):
        return {key: _with_tensors(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(map(_with_tensors, content))
    return content


def _fill(state: TrainingState, content: dict[str, Any], path: Path, recipe: Recipe) -> None:
    try:
        state.fill(content)
    except Exception as error:  # of another network, or of anything
        # Of another network, torch names every tensor.
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"{path} does not fit the recipe {recipe.name}; resume with the recipe and the --set "
            f"that it was started with ({reason} …)."
        ) from error
    _warn_of_changes(content.get("recipe"), recipe)


def _warn_of_changes(before: Any, recipe: Recipe) -> None:
    """Warn of values that differ from those of the run so far: allowed, but no accident."""
    if not isinstance(before, dict):
        return
    with suppress(ValidationError):  # of a version that allowed what is an error now
        before = Recipe.model_validate(before).model_dump()  # with keys that came since
    for key, value in recipe.model_dump().items():
        if key not in before or before[key] == value or key == "watch":
            continue
        if key == "precision":
            words = "resumed in %s; the state was computed in %s: results differ by rounding alone"
            _log.warning(words, value, before[key])
        else:
            _log.warning("resumed with another %s: %r instead of %r", key, value, before[key])


def averaged_weights(path: Path) -> tuple[int, dict[str, Tensor]] | None:
    """The scale and averaged weights of a run's state, given where weights were expected.

    Returns:
        None: the file is no such state.
    """
    try:
        content = _load(path)
    except TrainingError:
        return None
    try:
        return int(content["recipe"]["scale"]), dict(content["averaged_network"])
    except (KeyError, TypeError, ValueError):
        return None
