"""The optimisers of training, and the learning rate of each step."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import nn

from escsr.training.recipe import GanRecipe, OptimizerKind, OptimizerRecipe, Recipe

_KINDS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def start_optimizer(
    parameters: Iterable[nn.Parameter],
    section: OptimizerRecipe | GanRecipe,
    *,
    kind: OptimizerKind = "adam",
    weight_decay: float = 0.0,
    precision: str,
) -> torch.optim.Optimizer:
    """An optimiser before its first step, fused if it can be: all weights at once.

    Args:
        parameters: to train.
        section: gives learning rate, betas and whether gradients are clipped.
        kind: of optimiser.
        weight_decay: with "adam", added to the gradient.
        precision: the recipe's.
    """
    return _KINDS[kind](
        parameters,
        lr=section.learning_rate,
        betas=section.betas,
        weight_decay=weight_decay,
        # A fused optimiser scales float16's gradients back itself, too late to clip them.
        fused=section.clip_norm is None or precision != "float16",
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """For the next step, of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def take_step(
    fabric: Fabric, module: _FabricModule, optimizer: _FabricOptimizer, *, clip_norm: float | None
) -> None:
    """Shrink the gradients of a module to a norm, if one is given, and let its optimiser step."""
    if clip_norm is not None:
        # float16's scaler skips a step whose gradient is not finite; else the loop reports it.
        fabric.clip_gradients(module, optimizer, max_norm=clip_norm, error_if_nonfinite=False)
    optimizer.step()


def fill_optimizer(optimizer: torch.optim.Optimizer, content: dict[str, Any]) -> None:
    """Take the moments of a state over; the settings stay the recipe's, which may have changed.

    Raises:
        ValueError, KeyError: the state is of another optimiser.
    """
    settings = optimizer.state_dict()["param_groups"]
    pairs = zip(content["param_groups"], settings, strict=True)
    groups = [{**before, **now, "params": before["params"]} for before, now in pairs]
    optimizer.load_state_dict({**content, "param_groups": groups})


def learning_rate_at(recipe: Recipe, step: int) -> float:
    """The learning rate of a step, the first of which is 0.

    A linear warm-up, then what ``schedule.kind`` says. "halving" is the paper's: warm-up over the
    first 20,000 steps, halved at 250, 400, 450, 475 and 490 thousand.

    Source: ESC, arXiv:2503.06671, section 4.1.
    """
    schedule, highest = recipe.schedule, recipe.optimizer.learning_rate
    if step < schedule.warmup_steps:
        return highest * (step + 1) / schedule.warmup_steps
    if schedule.kind == "constant":
        return highest
    if schedule.kind == "halving":
        passed = sum(step >= milestone for milestone in schedule.halve_at)
        return highest * schedule.halving_factor**passed
    share = (step - schedule.warmup_steps) / max(1, recipe.steps - schedule.warmup_steps)
    swing = (highest - schedule.final_learning_rate) / 2
    return schedule.final_learning_rate + swing * (1 + math.cos(math.pi * share))
