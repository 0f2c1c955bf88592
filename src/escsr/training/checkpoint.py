"""The whole state of a run on disk: enough to go on as if nothing had happened."""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from escsr.errors import TrainingError
from escsr.model.network import ESC
from escsr.training.recipe import Recipe

_log = logging.getLogger("escsr")

_FORMAT = "escsr training state 1"


@dataclass(slots=True)
class TrainingState:
    """What changes while training."""

    network: ESC
    averaged_network: ESC
    optimizer: torch.optim.AdamW
    step: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0
    """Time spent so far, over all sessions."""

    @classmethod
    def start(cls, network: ESC, recipe: Recipe) -> "TrainingState":
        """The state before the first step."""
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        averaged = copy.deepcopy(network).eval().requires_grad_(False)
        optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
        )
        return cls(network.train(), averaged, optimizer)

    def average(self, decay: float) -> None:
        """Move the averaged weights towards the current ones: a' = decay a + (1 - decay) w.

        While young the average forgets faster, so that the random start does not linger.
        """
        decay = min(decay, (1 + self.step) / (10 + self.step))
        pairs = zip(self.averaged_network.parameters(), self.network.parameters(), strict=True)
        for averaged, current in pairs:
            averaged.lerp_(current.detach(), 1 - decay)


def write_state(path: Path, state: TrainingState, recipe: Recipe) -> None:
    """Write atomically: a reader sees the old state or the new one, never a part."""
    content = {
        "format": _FORMAT,
        "step": state.step,
        "seconds": state.seconds,
        "recipe": recipe.model_dump(),
        "network": state.network.state_dict(),
        "averaged_network": state.averaged_network.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    temporary = path.with_suffix(".partial")
    try:
        torch.save(content, temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise TrainingError(f"The state could not be written to {path}: {error}") from error


def read_state(path: Path, state: TrainingState, recipe: Recipe) -> None:
    """Fill a state from a file.

    Raises:
        TrainingError: there is none, or it is no training state, or of another network.
    """
    if not path.exists():
        raise TrainingError(f"There is nothing to resume: {path} does not exist.")
    content = _load(path)
    if content.get("format") != _FORMAT:
        raise TrainingError(
            f"{path} is not a training state; it may be a file of weights. Start a new run from "
            "weights with --from."
        )
    try:
        state.network.load_state_dict(content["network"])
        state.averaged_network.load_state_dict(content["averaged_network"])
        state.optimizer.load_state_dict(content["optimizer"])
    except (RuntimeError, KeyError, ValueError) as error:
        # Of another network, torch names every tensor.
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"{path} does not fit the recipe {recipe.name}; resume with the recipe and the --set "
            f"that it was started with ({reason} …)."
        ) from error
    state.step, state.seconds = int(content["step"]), float(content["seconds"])
    _tell_of_changes(content.get("recipe", {}), recipe)


def _tell_of_changes(before: dict[str, Any], recipe: Recipe) -> None:
    """Warn of keys that differ from those of the run so far: allowed, but no accident."""
    for key, value in recipe.model_dump().items():
        if key in before and before[key] != value:
            _log.warning("resumed with another %s: %r instead of %r", key, value, before[key])


def _load(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # The unpickler meets damaged bytes with errors of many kinds.
    except (OSError, RuntimeError, LookupError, ValueError, EOFError, UnpicklingError) as error:
        raise TrainingError(f"{path} cannot be read as a training state: {error}") from error
    return content if isinstance(content, dict) else {}
