"""Runs of the GAN recipe: twenty steps, stopped and resumed, and spoilt."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from escsr.cli.training_view import TrainingView
from escsr.errors import MissingExtraError, TrainingError
from escsr.training.logs import Progress
from escsr.training.recipe import Recipe
from escsr.training.recipe_file import check_recipe
from escsr.training.run import Run, rehearse_recipe, train_recipe
from escsr.training.state import TrainingState
from tests.training.adversarial.runs import GAN_RECIPE, adversary_of, train
from tests.training.runs import changed, checkpoints_of, log_of, start_state
from tests.training.runs import train as train_classic

LOSSES = ("l1", "perceptual", "gan", "discriminator_real", "discriminator_fake")
COLUMNS = ("step", "loss", *(f"loss_{name}" for name in LOSSES))

RECIPE_FILE = """
name = "smallest-gan"
model = "esc-tiny"
scale = 2
steps = 4
seed = 3
[data]
batch_size = 4
patch_pixels = 8
[loss]
l1 = 1.0
perceptual = 1.0
gan = 0.1
[optimizer]
kind = "adam"
learning_rate = 1e-4
[schedule]
kind = "constant"
[perceptual]
weights = "random"
layers = { conv1_2 = 1.0 }
[config]
dim = 16
pdim = 4
num_blocks = 1
num_conv_layers = 1
window_size = 8
large_kernel_size = 5
[gan]
channels = 4
[watch]
log_every_steps = 1
"""


@pytest.fixture
def recipe() -> Recipe:
    """The smallest GAN's: six steps of two pairs."""
    return check_recipe(GAN_RECIPE, origin="the tests")


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """A small one as a file, of four steps."""
    path = tmp_path / "smallest-gan.toml"
    path.write_text(RECIPE_FILE)
    return path


def parts_of(state: TrainingState) -> dict[str, nn.Module]:
    """All networks of a state."""
    return {
        "network": state.network,
        "average": state.averaged_network,
        "discriminator": adversary_of(state).discriminator,
    }


def assert_same_state(one: TrainingState, other: TrainingState) -> None:
    """Bit for bit: networks, singular vectors, and the moments of both optimisers."""
    for name, network in parts_of(one).items():
        tensors = parts_of(other)[name].state_dict()
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, tensors[key]), f"{name}.{key}"
    moments = [adversary_of(state).optimizer.state_dict()["state"] for state in (one, other)]
    assert moments[0].keys() == moments[1].keys()
    for number, content in moments[0].items():
        for key, tensor in content.items():
            assert torch.equal(tensor, moments[1][number][key]), f"{number}.{key}"


def test_twenty_steps_of_the_gan_recipe_move_both_networks(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """Every loss is finite, every weight has moved, and the log's terms sum to the loss.

    The layers of VGG19 and the rates are the paper's.
    """
    papers = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
    long = changed(
        recipe,
        steps=20,
        perceptual={"layers": papers},
        optimizer={"learning_rate": 1e-4},
        gan={"channels": 16, "learning_rate": 1e-4},
        data={"batch_size": 1},
        watch={"log_every_steps": 4},
    )
    state = train(long, photographs, tmp_path / "run")
    before = parts_of(start_state(long))
    for name, network in parts_of(state).items():
        start_weights = before[name].state_dict()
        for key, weight in network.named_parameters():
            assert torch.isfinite(weight).all()
            assert not torch.equal(weight, start_weights[key]), f"{name}.{key}"
    rows = [[float(value) for value in row] for row in log_of(tmp_path / "run", *COLUMNS)]
    assert [row[0] for row in rows] == [4, 8, 12, 16, 20]
    for _, loss, *terms in rows:
        assert all(map(math.isfinite, terms))
        assert loss == pytest.approx(sum(terms[:3]), rel=1e-5)
    assert rows[-1][1] < rows[0][1]


@pytest.mark.parametrize("every", [1, 4])
def test_a_stopped_and_resumed_gan_equals_an_uninterrupted_one(
    recipe: Recipe, photographs: Path, tmp_path: Path, every: int
) -> None:
    """Bit for bit, and every row of the log: the discriminator goes on as if never stopped."""
    logged = changed(recipe, watch={"log_every_steps": every})
    whole = train(logged, photographs, tmp_path / "whole")
    train(logged, photographs, tmp_path / "parts", stop_after=3)
    parts = train(logged, photographs, tmp_path / "parts", resume=True)
    assert_same_state(whole, parts)
    assert log_of(tmp_path / "whole", *COLUMNS) == log_of(tmp_path / "parts", *COLUMNS)


def test_a_gan_is_not_resumed_from_a_state_without_discriminator(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """One of the first stage: the message names the recipe, not a tensor."""
    loss = recipe.loss.model_copy(update={"perceptual": 0.0, "gan": 0.0})
    classic = recipe.model_copy(update={"loss": loss})
    train_classic(classic, photographs, tmp_path / "run", stop_after=2)
    with pytest.raises(TrainingError, match="does not fit the recipe smallest-gan"):
        train(recipe, photographs, tmp_path / "run", resume=True)


def test_a_discriminator_that_is_not_finite_ends_the_run(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """Its weights are spoilt in the second step; the state before stays; rates are named."""
    state = start_state(recipe)
    spoilt = next(adversary_of(state).discriminator.parameters())
    spoilt.register_hook(lambda gradient: gradient * math.nan if state.step == 1 else gradient)
    often = changed(recipe, watch={"checkpoint_every_seconds": 1e-9})
    with pytest.raises(TrainingError) as caught:
        train(often, photographs, tmp_path / "run", state=state)
    message = str(caught.value)
    assert "not finite at step 2" in message
    assert "lower optimizer.learning_rate or gan.learning_rate" in message
    assert "optimizer.clip_norm = 1 or gan.clip_norm = 1" in message
    assert checkpoints_of(tmp_path / "run") == ["step-00000001.pt"]


def test_a_loss_of_the_discriminator_that_is_not_finite_ends_the_run(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """Though the network's own loss was still well in that step."""
    state = start_state(recipe)
    spoilt = next(adversary_of(state).discriminator.parameters())
    spoilt.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(TrainingError, match=r"The loss is not finite at step 2\."):
        train(recipe, photographs, tmp_path / "run", state=state)


def test_tensorboard_shows_every_term(recipe: Recipe, photographs: Path, tmp_path: Path) -> None:
    """Under the names of the log's columns."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is an extra"
    )
    train(recipe, photographs, tmp_path / "run", stop_after=2)
    board = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    for column in COLUMNS[1:]:
        values = [event.value for event in board.Scalars(column)]
        assert values == pytest.approx([float(row[0]) for row in log_of(tmp_path / "run", column)])


def test_the_terms_stand_behind_the_figures_of_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    """At the end, where a narrow terminal cuts the least of it."""
    progress = Progress(
        step=10,
        steps=20,
        loss=0.625,
        loss_terms={"l1": 0.5, "gan": 0.125, "discriminator_real": 0.75},
        learning_rate=1e-4,
        psnr_y_db=None,
        seconds=1.0,
        steps_per_second=10.0,
        images_per_second=20.0,
        waiting_share=0.0,
    )
    TrainingView(is_shown=True).row(progress)
    line = capsys.readouterr().err
    assert "loss 0.62500  20.0 images/s" in line
    assert "waiting for data  l1 0.5000  gan 0.1250  discriminator_real 0.7500  " in line


def test_a_dry_run_needs_no_weights_of_vgg19(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It says what a real run needs; the real run says so before its first step."""
    monkeypatch.setitem(__import__("sys").modules, "torchvision.models", None)
    run = Run(recipe_path=recipe_file, data=None, device="cpu")
    changes = {"perceptual.weights": "imagenet"}
    assert rehearse_recipe(run, changes=changes).quality
    assert "a real run needs the weights of VGG19" in caplog.text


def test_missing_weights_of_vgg19_end_a_run_before_it_begins(
    recipe_file: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do, and nothing left behind."""
    monkeypatch.setitem(__import__("sys").modules, "torchvision.models", None)
    run = Run(recipe_path=recipe_file, data=photographs, out=tmp_path / "run", device="cpu")
    with pytest.raises(MissingExtraError, match=r"escsr\[perceptual\].*--perceptual-weights FILE"):
        train_recipe(run, changes={"perceptual.weights": "imagenet"})
    assert not (tmp_path / "run").exists()
