"""What changes of the discriminator while training."""

from dataclasses import dataclass
from typing import Any, Self

import torch

from escsr.training.adversarial.discriminator import UNetDiscriminator
from escsr.training.optimizers import fill_optimizer, start_optimizer
from escsr.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Adversary:
    """The discriminator, which has no moving average, and its optimiser."""

    discriminator: UNetDiscriminator
    optimizer: torch.optim.Optimizer

    @classmethod
    def start(cls, recipe: Recipe, memory_format: torch.memory_format) -> Self:
        """As it is before the first step, of random weights."""
        chosen = recipe.gan
        discriminator = UNetDiscriminator(chosen.channels)
        discriminator = discriminator.to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]
        optimizer = start_optimizer(
            "adam",
            discriminator.parameters(),
            learning_rate=chosen.learning_rate,
            betas=chosen.betas,
            clip_norm=chosen.clip_norm,
            precision=recipe.precision,
        )
        return cls(discriminator, optimizer)

    def to_dict(self) -> dict[str, Any]:
        """Everything, the singular vectors of the discriminator's kernels among it."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def fill(self, content: dict[str, Any]) -> None:
        """The inverse of ``to_dict``.

        Raises:
            RuntimeError, KeyError, ValueError: as torch does where the content is of another one.
        """
        self.discriminator.load_state_dict(content["discriminator"])
        fill_optimizer(self.optimizer, content["optimizer"])
