"""The loop: it learns, it averages, and a resumed run is the same run."""

import csv
import math
from pathlib import Path

import pytest
import torch

from escsr.errors import TrainingError
from escsr.evaluation import find_test_pairs
from escsr.model.network import ESC
from escsr.model.variants import variant
from escsr.training.checkpoint import TrainingState
from escsr.training.loop import TrainingStep, learning_rate_at, pixel_loss, train
from escsr.training.pairs import PatchSampler, load_pairs
from escsr.training.recipe import Recipe


@pytest.fixture
def sampler(photographs: Path, recipe: Recipe) -> PatchSampler:
    """Patches of the recipe's size."""
    return PatchSampler(
        load_pairs(photographs, scale=2, smallest_lr_pixels=recipe.patch_pixels),
        scale=recipe.scale,
        patch_pixels=recipe.patch_pixels,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
    )


def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    sampler: PatchSampler, recipe: Recipe, tmp_path: Path
) -> None:
    """Bit for bit: the weights, and every row of the log but its clock."""
    whole = train(recipe, sampler, tmp_path / "whole")
    calls = iter(range(100))
    train(recipe, sampler, tmp_path / "parts", should_stop=lambda: next(calls) >= 3)
    parts = train(recipe, sampler, tmp_path / "parts", resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name
    logs = [
        [
            row[:1] + row[2:]
            for row in csv.reader((tmp_path / run / "log.csv").read_text().splitlines())
        ]
        for run in ("whole", "parts")
    ]
    assert logs[0] == logs[1]


def test_a_run_is_judged_as_often_as_its_recipe_says(
    photographs: Path, sampler: PatchSampler, recipe: Recipe, tmp_path: Path
) -> None:
    """Between the logged steps too: every 4 steps and at the end."""
    often = recipe.model_copy(update={"validate_every_steps": 4})
    pairs = find_test_pairs(photographs, scale=2)[:1]
    train(often, sampler, tmp_path / "run", validation_pairs=pairs)
    rows = list(csv.DictReader((tmp_path / "run/log.csv").read_text().splitlines()))
    assert [row["step"] for row in rows if row["validation_psnr_y_db"]] == ["4", "6"]


def test_a_folder_that_cannot_be_made_is_an_error(
    sampler: PatchSampler, recipe: Recipe, tmp_path: Path
) -> None:
    """A file stands there."""
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(TrainingError, match="cannot be made"):
            train(recipe, sampler, out)


def test_training_on_one_batch_lowers_its_loss(sampler: PatchSampler, recipe: Recipe) -> None:
    """Real steps on real patches learn: the loss falls by a tenth at least."""
    torch.manual_seed(0)
    state = TrainingState.start(ESC(variant("esc-tiny", scale=2)), recipe)
    step = TrainingStep(recipe.model_copy(update={"steps": 40}), state)
    batch = sampler.batch(0)
    losses = [float(step(*batch)) for _ in range(30)]
    assert losses[-1] < 0.9 * losses[0]


def test_bfloat16_steps_stay_near_float32_ones(sampler: PatchSampler, recipe: Recipe) -> None:
    """Three significant digits of bfloat16 leave the loss within a hundredth."""
    losses = {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        state = TrainingState.start(ESC(variant("esc-tiny", scale=2)), recipe)
        step = TrainingStep(recipe.model_copy(update={"precision": precision}), state)
        losses[precision] = float(step(*sampler.batch(0)))
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.01)


def test_the_average_moves_towards_the_weights(recipe: Recipe) -> None:
    """Late in a run with decay 0.9: average 1 and weight 2 become 1.1."""
    state = TrainingState.start(ESC(variant("esc-tiny", scale=2)), recipe)
    state.step = 10**6
    weight, average = state.network.shallow.weight, state.averaged_network.shallow.weight
    with torch.no_grad():
        average.fill_(1.0)
        weight.fill_(2.0)
    state.average(0.9)
    torch.testing.assert_close(average, torch.full_like(average, 1.1))


def test_the_learning_rate_rises_then_falls_as_a_cosine(recipe: Recipe) -> None:
    """Worked by hand for 100 steps, 10 of them warm-up, from 1 to 0."""
    schedule = recipe.model_copy(
        update={"steps": 110, "warmup_steps": 10, "learning_rate": 1.0, "final_learning_rate": 0.0}
    )
    assert learning_rate_at(schedule, 0) == pytest.approx(0.1)
    assert learning_rate_at(schedule, 9) == pytest.approx(1.0)
    assert learning_rate_at(schedule, 10) == pytest.approx(1.0)
    assert learning_rate_at(schedule, 60) == pytest.approx(0.5)
    assert learning_rate_at(schedule, 110) == pytest.approx(0.0, abs=1e-12)


def test_losses_by_hand() -> None:
    """L1 of a constant distance is that distance; Charbonnier is sqrt(d^2 + 1e-6)."""
    a, b = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    assert float(pixel_loss(a, b, "l1")) == pytest.approx(0.5)
    assert float(pixel_loss(a, b, "charbonnier")) == pytest.approx(math.sqrt(0.25 + 1e-6))


def test_a_run_is_not_started_over_another(
    sampler: PatchSampler, recipe: Recipe, tmp_path: Path
) -> None:
    """Days of training are not overwritten by a forgotten --resume."""
    train(recipe.model_copy(update={"steps": 1}), sampler, tmp_path / "run")
    with pytest.raises(TrainingError, match="--resume"):
        train(recipe, sampler, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run(
    sampler: PatchSampler, recipe: Recipe, tmp_path: Path
) -> None:
    """With what to do, and without overwriting the last good state."""
    wild = recipe.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0})
    with pytest.raises(TrainingError, match="lower learning_rate"):
        train(wild, sampler, tmp_path / "run")
    assert not (tmp_path / "run" / "state.pt").exists()


@pytest.mark.parametrize("content", [b"", b"rubbish"])
def test_resuming_from_what_is_no_state_is_an_error(
    sampler: PatchSampler, recipe: Recipe, tmp_path: Path, content: bytes
) -> None:
    """The message names the file."""
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(TrainingError, match=r"state\.pt"):
        train(recipe, sampler, tmp_path, resume=True)


def test_resuming_from_weights_says_that_they_are_weights(
    sampler: PatchSampler, recipe: Recipe, tmp_path: Path
) -> None:
    """Weights given where a state is expected."""
    torch.save(ESC(variant("esc-tiny", scale=2)).state_dict(), tmp_path / "state.pt")
    with pytest.raises(TrainingError, match="weights"):
        train(recipe, sampler, tmp_path, resume=True)


def test_resuming_with_another_network_is_told_in_one_line(
    sampler: PatchSampler, recipe: Recipe, tmp_path: Path
) -> None:
    """Not tensor by tensor."""
    train(recipe, sampler, tmp_path, should_stop=lambda: True)
    other = recipe.model_copy(update={"model": "esc-light"})
    with pytest.raises(TrainingError, match="does not fit the recipe") as caught:
        train(other, sampler, tmp_path, resume=True)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


def test_resuming_nothing_is_an_error(
    sampler: PatchSampler, recipe: Recipe, tmp_path: Path
) -> None:
    """The message says that there is no state."""
    with pytest.raises(TrainingError, match="nothing to resume"):
        train(recipe, sampler, tmp_path, resume=True)


def test_resuming_with_another_recipe_names_what_changed(
    sampler: PatchSampler, recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run may be made longer, but not by accident."""
    train(recipe.model_copy(update={"steps": 1}), sampler, tmp_path)
    with caplog.at_level("WARNING", logger="escsr"):
        train(recipe.model_copy(update={"steps": 2}), sampler, tmp_path, resume=True)
    assert "another steps: 2 instead of 1" in caplog.text
