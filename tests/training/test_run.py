"""A whole run: photographs in, a file of weights out that says where it is from."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from escsr.errors import TrainingError
from escsr.training.loop import LoopHooks
from escsr.training.recipe import Recipe
from escsr.training.recipe_file import read_recipe
from escsr.training.run import Run, rehearse_recipe, rehearsed, train_recipe
from escsr.weights import load_model, read_header
from tests.training.pictures import write_pictures
from tests.training.processes import write_recipe
from tests.training.runs import log_of


@pytest.fixture
def run(photographs: Path, tmp_path: Path) -> Run:
    """Of the smallest recipe, judged with the pictures that it trains on."""
    return Run(
        recipe_path=write_recipe(tmp_path / "smallest.toml"),
        data=photographs,
        out=tmp_path / "run",
        test_sets=(photographs,),
        device="cpu",
    )


def stopping_after(steps: int) -> LoopHooks:
    """Asks to stop after so many steps of a session."""
    done: list[int] = []
    return LoopHooks(on_step=done.append, should_stop=lambda: len(done) >= steps)


def test_the_weights_say_all_about_themselves(run: Run, recipe: Recipe) -> None:
    """Licence, data, recipe and the figures that were measured at the end."""
    result = train_recipe(run)
    assert result.weights == result.out / "smallest.safetensors"
    assert result.weights is not None
    header = read_header(result.weights)
    assert header.config == recipe.network_config()
    provenance = header.provenance
    assert (provenance.licence, provenance.variant) == ("CC0-1.0", "esc-tiny")
    assert provenance.training_data == "waves made by the tests"
    assert provenance.recipe_name == "smallest"
    assert Recipe.model_validate(json.loads(provenance.recipe)) == recipe
    assert provenance.quality == result.quality
    assert set(result.quality) == {"photographs PSNR-Y dB", "photographs SSIM-Y"}
    assert load_model(result.weights).scale == 2


def test_the_best_weights_are_kept_with_their_figure(run: Run) -> None:
    """Of all validations, though the run goes on; a learning rate that is too high spoils it."""
    train_recipe(
        run,
        changes={
            "steps": 8,
            "watch.validate_every_steps": 1,
            "optimizer.learning_rate": 0.02,
            "ema_decay": 0.0,
        },
    )
    figures = [float(psnr) for (psnr,) in log_of(run.out or Path(), "psnr_y_db")]
    assert max(figures) > figures[-1]
    best = (run.out or Path()) / "best.safetensors"
    quality = read_header(best).provenance.quality
    assert quality == {"photographs PSNR-Y dB": pytest.approx(max(figures), abs=6e-4)}
    assert load_model(best).scale == 2


def test_a_stopped_run_has_no_weights_and_goes_on(run: Run) -> None:
    """What the command tells by its exit status."""
    assert train_recipe(run, hooks=stopping_after(2)).weights is None
    resumed = Run(
        recipe_path=run.recipe_path, data=run.data, out=run.out, device="cpu", resume=True
    )
    result = train_recipe(resumed)
    assert result.weights is not None
    assert result.weights.exists()
    assert len(log_of(result.out)) == 6


def test_resuming_where_only_weights_are_starts_from_them(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """The states were deleted, the weights remain: a new run starts from them and says so."""
    train_recipe(run)
    out = run.out or Path()
    for path in (out / "checkpoints").iterdir():
        path.unlink()
    again = Run(recipe_path=run.recipe_path, data=run.data, out=out, device="cpu", resume=True)
    caplog.clear()
    first_loss = float(log_of(out, "loss")[0][0])
    train_recipe(again)
    assert "holds weights but no state: a new run starts from smallest.safetensors" in caplog.text
    assert float(log_of(out, "loss")[0][0]) < first_loss


def test_resuming_an_empty_folder_is_refused(run: Run, tmp_path: Path) -> None:
    """With what to do."""
    nothing = Run(
        recipe_path=run.recipe_path,
        data=run.data,
        out=tmp_path / "nothing",
        device="cpu",
        resume=True,
    )
    with pytest.raises(TrainingError, match=r"There is nothing to resume .* Leave out --resume"):
        train_recipe(nothing)


def test_a_dry_run_leaves_nothing_behind(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the folder of the run, nor where it is started, nor in that of the recipe."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    steps: list[int] = []
    result = rehearse_recipe(run, hooks=LoopHooks(on_step=steps.append))
    assert steps == [1, 2]
    assert result.quality["photographs PSNR-Y dB"] > 5
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_refuses_a_batch_that_the_real_run_refuses(run: Run) -> None:
    """Shrinking the batch must not hide that it cannot be divided."""
    recipe = read_recipe(run.recipe_path, changes={"data.batch_size": 16})
    assert rehearsed(recipe, processes=2).data.batch_size == 4
    assert rehearsed(recipe, processes=3).data.batch_size == 16
    assert rehearsed(recipe).degradation == recipe.degradation  # of no use to it


def test_a_dry_run_beside_a_run_does_not_touch_it(run: Run) -> None:
    """A change is tried while, or after, another run is in the folder."""
    train_recipe(run, hooks=stopping_after(2))
    out = run.out or Path()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    rehearse_recipe(run)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_run_is_named_after_its_recipe_unless_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """runs/NAME below the current folder."""
    monkeypatch.chdir(tmp_path)
    here = Run(recipe_path=run.recipe_path, data=run.data, device="cpu")
    assert train_recipe(here, changes={"steps": 1}).weights == Path(
        "runs/smallest/smallest.safetensors"
    )


def test_a_recipe_goes_on_from_the_one_before_it(run: Run, tmp_path: Path) -> None:
    """``starts_from`` finds what the run beside it left: x3 from x2, as in recipes/."""
    first = train_recipe(run)
    second = Run(recipe_path=run.recipe_path, data=run.data, out=tmp_path / "x3", device="cpu")
    (tmp_path / "run").rename(tmp_path / "smallest")
    result = train_recipe(
        second, changes={"name": "x3", "scale": 3, "starts_from": "smallest", "steps": 1}
    )
    assert first.weights is not None
    assert result.weights is not None
    assert load_model(result.weights).scale == 3


def test_a_run_without_data_is_refused(run: Run) -> None:
    """Only a dry run makes pictures of its own."""
    without = Run(recipe_path=run.recipe_path, data=None, device="cpu")
    with pytest.raises(TrainingError, match="name their folder with --data"):
        train_recipe(without)


def test_a_test_set_without_images_is_refused_before_training(run: Run, tmp_path: Path) -> None:
    """Not after days."""
    (tmp_path / "empty").mkdir()
    blind = Run(
        recipe_path=run.recipe_path, data=run.data, test_sets=(tmp_path / "empty",), device="cpu"
    )
    with pytest.raises(Exception, match="empty"):
        train_recipe(blind)


def test_a_test_image_that_cannot_be_judged_is_refused_before_training(
    run: Run, tmp_path: Path
) -> None:
    """Broken or too small: told before the first step, not after the first thousand."""
    test_set = write_pictures(tmp_path / "Set2", 2)
    (test_set / "b.png").write_text("no picture")
    steps: list[int] = []
    judged = Run(
        recipe_path=run.recipe_path,
        data=run.data,
        out=tmp_path / "judged",
        test_sets=(test_set,),
        device="cpu",
    )
    with pytest.raises(Exception, match=r"b\.png"):
        train_recipe(judged, hooks=LoopHooks(on_step=steps.append))
    assert not steps


def test_resuming_a_finished_run_changes_nothing(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even where another recipe is given: no step would be made with it."""
    weights = train_recipe(run).weights
    assert weights is not None
    before = weights.read_bytes()
    again = train_recipe(replace(run, resume=True), changes={"seed": 99})
    assert (again.weights, weights.read_bytes()) == (weights, before)
    assert again.quality == read_header(weights).provenance.quality
    assert "is finished" in caplog.text


def test_weights_given_to_a_run_that_is_resumed_are_left_aside(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """The state goes before, and that is said."""
    train_recipe(run, hooks=stopping_after(2))
    resumed = replace(run, resume=True, initial_weights="esc-tiny-x2")
    assert train_recipe(resumed).weights is not None
    assert "left aside: the run goes on from its state" in caplog.text


def test_the_display_hears_of_images_and_of_the_start(run: Run) -> None:
    """Before the first step, so that it has something to show."""
    heard: list[tuple[str, int, int]] = []
    hooks = LoopHooks(
        on_loaded=lambda done, total: heard.append(("loaded", done, total)),
        on_start=lambda step, steps: heard.append(("start", step, steps)),
    )
    train_recipe(run, hooks=hooks)
    assert heard[-2:] == [("loaded", 6, 6), ("start", 0, 6)]
