"""What changes while training."""

import copy
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol, Self

import torch

from escsr.training.adversarial.adversary import Adversary
from escsr.training.optimizers import fill_optimizer, start_optimizer
from escsr.training.recipe import Recipe


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
        chosen = recipe.optimizer
        optimizer = start_optimizer(
            chosen.kind,
            network.parameters(),
            learning_rate=chosen.learning_rate,
            betas=chosen.betas,
            weight_decay=chosen.weight_decay,
            clip_norm=chosen.clip_norm,
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
