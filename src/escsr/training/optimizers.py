"""The optimisers of training: how they start, and how they are resumed."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn

OptimizerKind = Literal["adamw", "adam"]
_KINDS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def start_optimizer(
    kind: OptimizerKind,
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float = 0.0,
    clip_norm: float | None,
    precision: str,
) -> torch.optim.Optimizer:
    """An optimiser before its first step, fused if it can be: all weights at once.

    Args:
        kind: of optimiser.
        parameters: to train.
        learning_rate: at the start.
        betas: decay of the running averages of the gradient and of its square.
        weight_decay: with "adam", added to the gradient.
        clip_norm: to which gradients will be shrunk, if they are.
        precision: the recipe's.
    """
    return _KINDS[kind](
        parameters,
        lr=learning_rate,
        betas=betas,
        weight_decay=weight_decay,
        # A fused optimiser scales float16's gradients back itself, too late to clip them.
        fused=clip_norm is None or precision != "float16",
    )


def fill_optimizer(optimizer: torch.optim.Optimizer, content: dict[str, Any]) -> None:
    """Take the moments of a state over; the settings stay the recipe's, which may have changed.

    Raises:
        ValueError, KeyError: the state is of another optimiser.
    """
    settings = optimizer.state_dict()["param_groups"]
    pairs = zip(content["param_groups"], settings, strict=True)
    groups = [{**before, **now, "params": before["params"]} for before, now in pairs]
    optimizer.load_state_dict({**content, "param_groups": groups})
