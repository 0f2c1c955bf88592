"""What a run starts with: random weights, those of the recipe before, or those that are given."""

from pathlib import Path
from typing import Any

import pytest
import torch

from escsr.errors import CheckpointError, TrainingError
from escsr.model.network import ESC
from escsr.training.initial_weights import located, start_from
from escsr.training.recipe import Recipe
from escsr.training.state import CheckpointFolder
from escsr.weights import Provenance, load_model, save_weights
from tests.training.runs import changed, start_state


def started(recipe: Recipe, out: Path, **options: Any) -> ESC:
    """The network that a run in ``out`` starts with."""
    chosen = {"weights": None, "is_optional": False} | options
    network = ESC(recipe.network_config())
    start_from(network, recipe, chosen["weights"], out=out, is_optional=chosen["is_optional"])
    return network


def save(path: Path, recipe: Recipe) -> ESC:
    """A file of weights of the recipe's network, which is returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(99)
    network = ESC(recipe.network_config())
    provenance = Provenance(licence="MIT", training_data="none", date="2025-01-01")
    save_weights(path, network, provenance=provenance)
    return network


def assert_same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    """Every tensor, bit for bit."""
    tensors = other.state_dict()
    for key, tensor in one.state_dict().items():
        assert torch.equal(tensor, tensors[key]), key


def test_random_weights_come_from_the_seed(recipe: Recipe, tmp_path: Path) -> None:
    """The same twice."""
    networks = []
    for _ in range(2):
        torch.manual_seed(recipe.seed)
        networks.append(started(recipe, tmp_path / "run"))
    assert_same(*networks)


def test_weights_that_are_given_are_taken(recipe: Recipe, tmp_path: Path) -> None:
    """Before those that the recipe names."""
    given = save(tmp_path / "given.safetensors", recipe)
    named = changed(recipe, starts_from="esc-tiny-x2")
    assert_same(given, started(named, tmp_path / "run", weights=tmp_path / "given.safetensors"))


def test_what_a_recipe_starts_from_is_found_in_the_run_beside(
    recipe: Recipe, tmp_path: Path
) -> None:
    """runs/before/before.safetensors, for the run runs/smallest."""
    before = save(tmp_path / "before" / "before.safetensors", recipe)
    assert_same(before, started(changed(recipe, starts_from="before"), tmp_path / "smallest"))


def test_what_a_recipe_starts_from_is_found_in_the_box(recipe: Recipe, tmp_path: Path) -> None:
    """The trained weights that come with the package."""
    tiny = changed(recipe, config={}, starts_from="esc-tiny-x2")
    assert_same(load_model("esc-tiny", scale=2), started(tiny, tmp_path / "run"))


def test_what_is_nowhere_is_told_with_where_it_was_looked_for(
    recipe: Recipe, tmp_path: Path
) -> None:
    """And with what to do."""
    missing = changed(recipe, starts_from="nothing")
    with pytest.raises(TrainingError) as caught:
        started(missing, tmp_path / "run")
    assert "neither included nor at" in str(caught.value)
    assert str(tmp_path / "nothing" / "nothing.safetensors") in str(caught.value)
    assert "Train nothing first, or give weights with --from" in str(caught.value)


def test_a_dry_run_needs_no_weights_to_start_from(recipe: Recipe, tmp_path: Path) -> None:
    """Nor does a run that resumes: its state holds them."""
    missing = changed(recipe, starts_from="nothing")
    assert started(missing, tmp_path / "run", is_optional=True).scale == 2


def test_weights_of_another_scale_get_their_last_convolution_converted(
    recipe: Recipe, tmp_path: Path
) -> None:
    """x3 begins with the x2 network: all else is as it was."""
    given = save(tmp_path / "x2.safetensors", recipe)
    network = started(
        changed(recipe, scale=3), tmp_path / "run", weights=tmp_path / "x2.safetensors"
    )
    assert network.scale == 3
    assert torch.equal(network.shallow.weight, given.shallow.weight)


def test_weights_of_another_network_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    """Both are named."""
    save(tmp_path / "other.safetensors", changed(recipe, config={**recipe.config, "pdim": 8}))
    with pytest.raises(TrainingError, match=r"holds another network .* Choose weights of esc-tiny"):
        started(recipe, tmp_path / "run", weights=tmp_path / "other.safetensors")


def test_a_state_given_as_weights_gives_its_averaged_weights(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log says so, with how the run itself would go on."""
    state = start_state(recipe)
    with torch.no_grad():
        next(state.averaged_network.parameters()).fill_(0.5)
    path = CheckpointFolder(tmp_path).write(state, recipe)
    assert_same(state.averaged_network, started(recipe, tmp_path / "run", weights=path))
    assert "is the state of a run: its averaged weights are taken" in caplog.text
    assert "use --resume" in caplog.text


def test_a_state_of_another_scale_is_converted_too(recipe: Recipe, tmp_path: Path) -> None:
    """As a file of weights would be."""
    path = CheckpointFolder(tmp_path).write(start_state(recipe), recipe)
    assert started(changed(recipe, scale=4), tmp_path / "run", weights=path).scale == 4


def test_a_state_of_another_network_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    """In one line."""
    path = CheckpointFolder(tmp_path).write(start_state(recipe), recipe)
    other = changed(recipe, config={**recipe.config, "dim": 32})
    with pytest.raises(CheckpointError, match="is the state of another network") as caught:
        started(other, tmp_path / "run", weights=path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_neither_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    """By its name."""
    (tmp_path / "rubbish.pt").write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match=r"rubbish\.pt"):
        started(recipe, tmp_path / "run", weights=tmp_path / "rubbish.pt")


def test_names_in_the_box_give_the_scale_that_is_trained_if_it_is_there() -> None:
    """Else the box's own default; a name with a scale is that scale."""
    assert located("esc-tiny", scale=3).name == "esc-tiny-x3.safetensors"
    assert located("esc-tiny", scale=7).name == "esc-tiny-x4.safetensors"
    assert located("esc-tiny-x2", scale=4).name == "esc-tiny-x2.safetensors"


def test_weights_that_are_not_there_are_told_before_anything_starts(tmp_path: Path) -> None:
    """With what may be given instead."""
    with pytest.raises(
        CheckpointError, match=r"does not exist; give the path .* weights that are included"
    ):
        located(tmp_path / "none.safetensors", scale=2)
