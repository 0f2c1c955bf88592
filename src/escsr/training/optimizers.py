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
    is_clipped_float16: bool = False,
) -> torch.optim.Optimizer:
    """An optimiser before its first step, fused if it can be: all weights at once."""
    return _KINDS[kind](
        parameters,
        lr=learning_rate,
        betas=betas,
        weight_decay=weight_decay,
        # A fused optimiser scales float16's gradients back itself, too late to clip them.
        fused=not is_clipped_float16,
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
