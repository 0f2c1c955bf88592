"""The learning rate of each step."""

import math

from escsr.training.recipe import Recipe


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
