"""Training on degraded photographs, as ``escsr train`` does it."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from escsr.training.data import open_training_data
from escsr.training.recipe import Recipe
from escsr.training.recipe_file import check_recipe, read_recipe
from escsr.training.state import TrainingState
from tests.training.adversarial.runs import adversary_of
from tests.training.adversarial.runs import train as train_against_a_discriminator
from tests.training.runs import RECIPE, changed, log_of, start_state, train

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL: dict[str, Any] = {
    "config": RECIPE["config"] | {"position_bias": "table"},
    "steps": 50,
    "data.batch_size": 2,
    "data.patch_pixels": 8,
    "degradation.degraded_pixels": 48,
    "degradation.pool_pairs": 12,
    "watch.log_every_steps": 1,
}
"""Changes of ESC-Real's recipes: less of everything."""


@pytest.fixture
def recipe() -> Recipe:
    """Nine steps of two patches, a pool that is full after three."""
    values = {
        "steps": 9,
        "data": {"degradation": "second-order", "batch_size": 2, "patch_pixels": 8},
        "degradation": {"degraded_pixels": 48, "pool_pairs": 6},
    }
    return check_recipe(RECIPE | values, origin="the tests")


def trained(
    recipe: Recipe,
    photographs: Path,
    out: Path,
    *,
    resume: bool = False,
    stop_after: int | None = None,
) -> TrainingState:
    """Train with the photographs of a folder."""
    source = open_training_data(recipe, photographs, cache_bytes=1 << 20)
    return train(recipe, source, out, resume=resume, stop_after=stop_after)


@pytest.mark.parametrize("stop_after", [2, 7])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    recipe: Recipe, photographs: Path, tmp_path: Path, stop_after: int
) -> None:
    """While the pool is filled and after: weights and log are the same, bit by bit."""
    whole = trained(recipe, photographs, tmp_path / "whole")
    trained(recipe, photographs, tmp_path / "parts", stop_after=stop_after)
    parts = trained(recipe, photographs, tmp_path / "parts", resume=True)
    assert parts.step == whole.step == 9
    weights = zip(parts.network.parameters(), whole.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


def test_a_pool_that_does_not_fit_the_batch_is_rounded_up(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """Five pairs in batches of two are six: on any number of processes a recipe trains."""
    odd = changed(recipe, degradation={"pool_pairs": 5})
    for name, chosen in (("five", odd), ("six", recipe)):
        trained(chosen, photographs, tmp_path / name)
    assert log_of(tmp_path / "five") == log_of(tmp_path / "six")


def test_the_first_stage_of_esc_real_trains(photographs: Path, tmp_path: Path) -> None:
    """Fifty steps with less of everything: losses finite, and all weights move."""
    recipe = read_recipe(RECIPES / "real" / "esc-real-stage1.toml", changes=SMALL)
    state = trained(recipe, photographs, tmp_path / "run")
    assert_all_losses_are_finite(tmp_path / "run", "loss")
    assert not unmoved(state.network, start_state(recipe).network)


def test_the_second_stage_of_esc_real_trains(photographs: Path, tmp_path: Path) -> None:
    """Fifty steps of degradation and discriminator together, VGG19 of random weights."""
    small = SMALL | {
        "starts_from": "nothing",
        "perceptual.weights": "random",
        "perceptual.layers": {"conv3_4": 0.0, "conv4_4": 0.0, "conv5_4": 0.0},
        "gan.channels": 4,
    }
    recipe = read_recipe(RECIPES / "real" / "esc-real-stage2.toml", changes=small)
    source = open_training_data(recipe, photographs, cache_bytes=1 << 20)
    state = train_against_a_discriminator(recipe, source, tmp_path / "run")
    names = ("l1", "perceptual", "gan", "discriminator_real", "discriminator_fake")
    assert_all_losses_are_finite(tmp_path / "run", "loss", *(f"loss_{name}" for name in names))
    before = start_state(recipe)
    assert not unmoved(state.network, before.network)
    assert not unmoved(adversary_of(state).discriminator, adversary_of(before).discriminator)


def assert_all_losses_are_finite(out: Path, *columns: str) -> None:
    """In each of fifty rows."""
    rows = log_of(out, *columns)
    assert len(rows) == 50
    assert all(math.isfinite(float(loss)) for row in rows for loss in row)


def unmoved(network: nn.Module, before: nn.Module) -> list[str]:
    """Names of the weights that are what they were."""
    old = dict(before.named_parameters())
    return [name for name, weight in network.named_parameters() if torch.equal(weight, old[name])]
