"""Training on degraded photographs, as ``escsr train`` does it."""

import math
from pathlib import Path

import pytest
import torch

from escsr.errors import TrainingError
from escsr.training.recipe import Recipe
from escsr.training.recipe_file import check_recipe, read_recipe
from escsr.training.recipe_pairs import open_recipe_pairs
from escsr.training.state import TrainingState
from tests.training.runs import RECIPE, log_of, start_state, train

RECIPES = Path(__file__).parents[2] / "recipes"


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
    source = open_recipe_pairs(recipe, photographs, cache_bytes=1 << 20)
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


def test_a_pool_that_does_not_fit_the_batch_is_told_before_the_first_step(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """The number of processes is known only then."""
    odd = recipe.model_copy(
        update={"degradation": recipe.degradation.model_copy(update={"pool_pairs": 7})}
    )
    with pytest.raises(TrainingError, match=r"7 pairs .* multiple of 2"):
        trained(odd, photographs, tmp_path)


def test_the_recipe_of_esc_real_trains(photographs: Path, tmp_path: Path) -> None:
    """Fifty steps of stage 1, with less of everything: losses finite, and all weights move."""
    small = {
        "config": RECIPE["config"] | {"position_bias": "table"},
        "steps": 50,
        "data.batch_size": 2,
        "data.patch_pixels": 8,
        "degradation.degraded_pixels": 48,
        "degradation.pool_pairs": 12,
        "watch.log_every_steps": 1,
    }
    recipe = read_recipe(RECIPES / "real" / "esc-real-stage1.toml", changes=small)
    state = trained(recipe, photographs, tmp_path / "run")
    losses = [float(loss) for (loss,) in log_of(tmp_path / "run", "loss")]
    assert len(losses) == 50
    assert all(math.isfinite(loss) for loss in losses)
    before = dict(start_state(recipe).network.named_parameters())
    still = [
        name
        for name, weight in state.network.named_parameters()
        if torch.equal(weight, before[name])
    ]
    assert not still
