"""Training ESC+LTE: the recipe's parts together, for real steps."""

from pathlib import Path
from typing import Any

import pytest
import torch

from escsr.errors import RecipeError
from escsr.model.network import ESC
from escsr.training.arbitrary_scale import QueryNetwork
from escsr.training.batches import QueryBatch
from escsr.training.data import open_training_data
from escsr.training.launching import launch
from escsr.training.recipe import Recipe
from escsr.training.recipe_file import check_recipe
from escsr.training.step import TrainingStep
from tests.training.runs import RECIPE, changed, log_of, start_state, train

VALUES: dict[str, Any] = RECIPE | {
    "model": "esc-lte",
    "scale": 4,
    "config": {
        **RECIPE["config"],
        "num_heads": 2,
        "texture_dim": 16,
        "texture_mlp_dim": 16,
        "texture_mlp_layers": 2,
    },
    "data": {
        "batch_size": 4,
        "patch_pixels": 8,
        "degradation": "pillow-any-scale",
        "query_pixels": 48,
    },
    "optimizer": {"kind": "adam", "learning_rate": 2e-3},
}
"""A small ESC+LTE on patches of 8 pixels."""


@pytest.fixture
def recipe() -> Recipe:
    """Fifty steps, each logged."""
    return check_recipe(VALUES | {"steps": 50}, origin="the tests")


def test_fifty_steps_learn_and_move_every_parameter(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """Losses stay finite and fall; body and head both move."""
    start = {
        name: weight.clone() for name, weight in start_state(recipe).network.named_parameters()
    }
    source = open_training_data(recipe, photographs, cache_bytes=1 << 20)
    state = train(recipe, source, tmp_path / "run")
    losses = [float(loss) for (loss,) in log_of(tmp_path / "run", "loss")]
    assert len(losses) == 50 and all(0 < loss < 2 for loss in losses)
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    for name, weight in state.network.named_parameters():
        assert weight.isfinite().all()
        assert not torch.equal(weight, start[name]), name


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """Weights of six steps, with a stop after three, are those of six at once."""
    short = changed(recipe, steps=6)

    def opened() -> Any:
        return open_training_data(short, photographs, cache_bytes=1 << 20)

    whole = train(short, opened(), tmp_path / "whole")
    train(short, opened(), tmp_path / "halves", stop_after=3)
    resumed = train(short, opened(), tmp_path / "halves", resume=True)
    for ours, theirs in zip(resumed.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_loss_is_of_normalised_pixels_of_the_enlarged_image(
    recipe: Recipe, photographs: Path
) -> None:
    """A step's loss is twice the mean distance, on [0, 1], at the queries' pixels."""
    source = open_training_data(recipe, photographs, cache_bytes=1 << 20)
    batch = source.batch(0)
    assert isinstance(batch, QueryBatch)
    source.close()
    state = start_state(recipe)
    network = state.network
    assert isinstance(network, ESC)
    with torch.no_grad():
        expected = 0.0
        for image, places, cell, target in zip(
            batch.lr_image, batch.coordinates, batch.cell, batch.target, strict=True
        ):
            side = round(2 / float(cell[0]))
            enlarged = network(image[None], (side, side))[0]
            rows, columns = (((places.double() + 1) * side - 1) / 2).round().long().T
            pixels = enlarged[:, rows, columns].T
            expected += float((2 * (pixels - (target + 1) / 2)).abs().mean()) / 4
    loss = TrainingStep(recipe, state, launch(recipe, device="cpu"))(batch)
    assert float(loss[0]) == pytest.approx(expected, rel=1e-4)


def test_micro_batches_make_the_step_of_the_whole_batch(recipe: Recipe, photographs: Path) -> None:
    """The same loss, but for the order of float32 sums."""
    losses = []
    for count in (1, 2):
        divided = changed(recipe, optimizer={"micro_batches": count})
        source = open_training_data(divided, photographs, cache_bytes=1 << 20)
        step = TrainingStep(divided, start_state(divided), launch(divided, device="cpu"))
        losses.append(float(step(source.batch(0))[0]))
        source.close()
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_query_network_has_no_weights_of_its_own(recipe: Recipe) -> None:
    """What is saved is the network itself."""
    network = ESC(recipe.network_config())
    ours = {id(parameter) for parameter in network.parameters()}
    assert {id(parameter) for parameter in QueryNetwork(network).parameters()} == ours


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "esc-tiny", "config": {}}, "networks that enlarge to any size"),
        ({"loss": {"l1": 1.0, "fft": 0.1}}, "loss.fft.* must be 0"),
    ],
)
def test_recipes_that_cannot_be_trained_so_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    """Another kind of network, and terms that need whole images."""
    with pytest.raises(RecipeError, match=message):
        check_recipe(VALUES | changes, origin="the tests")
