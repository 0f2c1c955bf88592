"""The loop: a resumed run is the same run, and what cannot go on ends with its state saved."""

import math
from pathlib import Path

import pytest
import torch

from escsr.errors import TrainingError
from escsr.evaluation import find_test_pairs
from escsr.training.recipe import Recipe
from escsr.training.state import CheckpointFolder, TrainingState
from tests.training.runs import (
    changed,
    checkpoints_of,
    log_of,
    open_source,
    start_state,
    train,
)


def assert_same_state(one: TrainingState, other: TrainingState) -> None:
    """Bit for bit."""
    for name in ("network", "averaged_network"):
        tensors = getattr(other, name).state_dict()
        for key, tensor in getattr(one, name).state_dict().items():
            assert torch.equal(tensor, tensors[key]), f"{name}.{key}"


@pytest.mark.parametrize("every", [1, 4])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    recipe: Recipe, photographs: Path, tmp_path: Path, every: int
) -> None:
    """Bit for bit: weights, averages, and every row of the log but its clock.

    With a row every 4 steps the stop after 3 falls between rows: losses not yet written are kept.
    """
    logged = changed(recipe, watch={"log_every_steps": every})
    whole = train(logged, photographs, tmp_path / "whole")
    train(logged, photographs, tmp_path / "parts", stop_after=3)
    parts = train(logged, photographs, tmp_path / "parts", resume=True)
    assert_same_state(whole, parts)
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "parts")


def test_a_run_goes_on_with_a_changed_loss_in_the_midst_of_a_row(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """What was collected of other terms is left out; the row is the mean of the new loss alone."""
    out = tmp_path / "run"
    seldom = changed(recipe, watch={"log_every_steps": 4})
    train(seldom, photographs, out, stop_after=2)
    state = train(changed(seldom, loss={"fft": 0.05}), photographs, out, resume=True)
    assert state.step == 6
    for loss, l1, fft in log_of(out, "loss", "loss_l1", "loss_fft"):
        assert float(loss) == pytest.approx(float(l1) + float(fft), rel=1e-5)
    assert [step for (step,) in log_of(out, "step")] == ["4", "6"]


def test_a_finished_run_that_is_resumed_stays_as_it_is(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """No step more, and the log as it was."""
    done = train(recipe, photographs, tmp_path / "run")
    before = log_of(tmp_path / "run")
    again = train(recipe, photographs, tmp_path / "run", resume=True)
    assert again.step == 6
    assert_same_state(done, again)
    assert log_of(tmp_path / "run") == before


def test_rows_after_the_states_step_are_dropped_on_resume(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """A killed run has logged more than it has saved; its last row may be cut."""
    out = tmp_path / "run"
    whole = train(recipe, photographs, tmp_path / "whole")
    train(recipe, photographs, out, stop_after=2)
    with (out / "log.csv").open("a") as log:
        log.write("3,0.5,1e-3,,1,2\r\n4,0.5,1e-3,,1,2\r\n5,0.")
    assert_same_state(whole, train(recipe, photographs, out, resume=True))
    assert log_of(out) == log_of(tmp_path / "whole")


def test_a_run_is_judged_as_often_as_its_recipe_says(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """Between the logged steps too: every 4 steps and at the end."""
    often = changed(recipe, watch={"log_every_steps": 5, "validate_every_steps": 4})
    pairs = find_test_pairs(photographs, scale=2)[:1]
    state = train(often, photographs, tmp_path / "run", validation_pairs=pairs)
    figures = {row[0]: row[1] for row in log_of(tmp_path / "run", "step", "psnr_y_db")}
    assert list(figures) == ["4", "5", "6"]
    assert figures["5"] == ""
    best = max(float(figures[step]) for step in ("4", "6"))
    assert state.best_psnr_y_db == pytest.approx(best, abs=5e-5)


def test_a_row_holds_the_mean_of_the_losses_since_the_row_before(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """Of three steps each."""
    train(recipe, photographs, tmp_path / "each")
    train(changed(recipe, watch={"log_every_steps": 3}), photographs, tmp_path / "third")
    each = [float(loss) for (loss,) in log_of(tmp_path / "each", "loss")]
    third = [float(loss) for (loss,) in log_of(tmp_path / "third", "loss")]
    assert third == [sum(each[:3]) / 3, sum(each[3:]) / 3]


def test_a_run_is_not_started_over_another(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """Days of training are not overwritten by a forgotten --resume."""
    train(recipe, photographs, tmp_path / "run", stop_after=1)
    before = log_of(tmp_path / "run")
    with pytest.raises(TrainingError, match=r"already holds a run. Go on with it \(--resume\)"):
        train(recipe, photographs, tmp_path / "run")
    assert log_of(tmp_path / "run") == before


def test_a_folder_that_cannot_be_made_is_an_error(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """A file stands there."""
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            TrainingError, match=r"is a file, not a folder|cannot be made: .* Choose"
        ):
            train(recipe, photographs, out)


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_loss_that_is_not_finite_ends_the_run(
    recipe: Recipe, photographs: Path, tmp_path: Path, clip_norm: float | None
) -> None:
    """With the step and what to do; the state before is whole, and a lower rate goes on from it."""
    recipe = changed(recipe, optimizer={"clip_norm": clip_norm})
    out = tmp_path / "run"
    train(recipe, photographs, out, stop_after=3)
    before = (out / "checkpoints" / "step-00000003.pt").read_bytes()
    wild = changed(recipe, steps=50, optimizer={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"loss is not finite .* lower optimizer.learning_rate"):
        train(wild, photographs, out, resume=True)
    assert checkpoints_of(out) == ["step-00000003.pt"]
    assert (out / "checkpoints" / "step-00000003.pt").read_bytes() == before
    state = train(changed(recipe, steps=50), photographs, out, resume=True, stop_after=5)
    assert math.isfinite(float(log_of(out, "loss")[-1][0]))
    assert state.step == 5


def test_weights_that_are_not_finite_are_never_saved(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """The loss of a step is that of the weights before it, and can look well to the end.

    A gradient that is no number spoils the weights in the last step of the session.
    """
    state = start_state(recipe)
    spoilt = next(state.network.parameters())
    spoilt.register_hook(lambda gradient: gradient * math.nan if state.step == 2 else gradient)
    often = changed(recipe, watch={"checkpoint_every_seconds": 1e-9})
    with pytest.raises(TrainingError, match=r"weights are not finite at step 3"):
        train(often, photographs, tmp_path / "run", state=state, stop_after=3)
    assert checkpoints_of(tmp_path / "run") == ["step-00000001.pt", "step-00000002.pt"]
    read = start_state(recipe)
    CheckpointFolder(tmp_path / "run" / "checkpoints").read_newest(read, recipe)
    assert all(torch.isfinite(parameter).all() for parameter in read.network.parameters())


def test_a_data_file_that_vanishes_ends_the_run_with_its_state_saved(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """Put back, the run goes on exactly; nothing is lost but time."""
    long = changed(recipe, steps=30)
    whole = train(long, photographs, tmp_path / "whole")
    out = tmp_path / "run"
    hidden = tmp_path / "hidden"
    source = open_source(long, photographs, cache_bytes=0)
    photographs.rename(hidden)
    with pytest.raises(TrainingError, match=r"is gone since training began. .* --resume"):
        train(long, source, out)
    hidden.rename(photographs)
    assert len(checkpoints_of(out)) == 1
    assert_same_state(whole, train(long, photographs, out, resume=True))
    assert log_of(out) == log_of(tmp_path / "whole")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_log_that_cannot_be_written_ends_the_run(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """With what to do; the log leads to a device that is always full."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.csv").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"log.csv cannot be written: No space .* --resume"):
        train(recipe, photographs, tmp_path / "run")
