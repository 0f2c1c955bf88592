"""The states of a run on disk: whole or not there, the newest few, and read with care."""

import errno
import os
import random
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import escsr
from escsr.errors import TrainingError
from escsr.temporary_files import PendingFile
from escsr.training.recipe import Recipe
from escsr.training.state import CheckpointFolder, TrainingState
from tests.mutation import (
    mutated,
    no_more_than_10_seconds,
    number_of_cases,
    with_damaged_pickle,
)
from tests.training.runs import changed, checkpoints_of, log_of, start_state, train


@pytest.fixture
def stopped(recipe: Recipe, photographs: Path, tmp_path: Path) -> Path:
    """A run of the smallest recipe, stopped after 3 of 6 steps, with a state of each step."""
    often = changed(recipe, watch={"checkpoint_every_seconds": 1e-9, "checkpoints_kept": 3})
    train(often, photographs, tmp_path / "run", stop_after=3)
    return tmp_path / "run"


def state_at(recipe: Recipe, step: int) -> TrainingState:
    """A state that says it is so far."""
    state = start_state(recipe)
    state.step = step
    return state


def test_only_the_newest_states_stay(recipe: Recipe, tmp_path: Path) -> None:
    """As many as the recipe says; 2 unless it does."""
    folder = CheckpointFolder(tmp_path / "checkpoints")
    for step in (1, 2, 30, 400):
        folder.write(state_at(recipe, step), recipe)
    assert checkpoints_of(tmp_path) == ["step-00000030.pt", "step-00000400.pt"]
    folder.write(state_at(recipe, 500), changed(recipe, watch={"checkpoints_kept": 1}))
    assert checkpoints_of(tmp_path) == ["step-00000500.pt"]


def test_a_state_comes_back_as_it_was(recipe: Recipe, photographs: Path, tmp_path: Path) -> None:
    """Weights, average, both moments of Adam, step, best figure and random numbers."""
    trained = train(recipe, photographs, tmp_path / "run")
    trained.best_psnr_y_db = 31.5
    trained.losses = [0.25, 0.5]
    CheckpointFolder(tmp_path / "again").write(trained, recipe)
    expected_noise = torch.rand(3)

    read = start_state(recipe)
    # Adam's moments are laid out by the first step; the state must fill an optimiser without.
    CheckpointFolder(tmp_path / "again").read_newest(read, recipe)
    assert torch.equal(torch.rand(3), expected_noise)
    assert (read.step, read.best_psnr_y_db, read.losses) == (6, 31.5, [0.25, 0.5])
    for name in ("network", "averaged_network"):
        before, after = getattr(trained, name).state_dict(), getattr(read, name).state_dict()
        assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    moments = [state.optimizer.state_dict()["state"] for state in (trained, read)]
    for parameter, before in moments[0].items():
        for key in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(moments[1][parameter][key], before[key])


@pytest.mark.parametrize("damage", ["cut", "rubbish", "empty"])
def test_a_damaged_newest_state_costs_only_the_steps_since_the_one_before(
    stopped: Path,
    recipe: Recipe,
    photographs: Path,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    """The log says which file is damaged, and the run goes on from the one before."""
    newest = stopped / "checkpoints" / "step-00000003.pt"
    whole = newest.read_bytes()
    newest.write_bytes(
        {"cut": whole[: len(whole) // 2], "rubbish": b"x" * 99, "empty": b""}[damage]
    )
    state = train(recipe, photographs, stopped, resume=True)
    assert state.step == 6
    assert f"{newest} cannot be read as a training state" in caplog.text
    assert "The one before it is used." in caplog.text
    assert [step for (step,) in log_of(stopped, "step")] == ["1", "2", "3", "4", "5", "6"]


def flipped(content: bytes, bit: int) -> bytes:
    """The same but for one bit."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_flipped_bit_never_resumes_with_other_weights(recipe: Recipe, tmp_path: Path) -> None:
    """Wherever it is: the state is refused by name, or (between the parts) it is what it was."""
    state = state_at(recipe, 7)
    folder = CheckpointFolder(tmp_path / "checkpoints")
    path = folder.write(state, recipe)
    whole = path.read_bytes()
    positions = [8 * len(whole) * part // 150 + part % 8 for part in range(150)]
    refused, read = 0, start_state(recipe)
    for bit in positions:
        path.write_bytes(flipped(whole, bit))
        try:
            folder.read_newest(read, recipe)
        except TrainingError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        assert read.step == 7
        for name in ("network", "averaged_network"):
            before, after = getattr(state, name).state_dict(), getattr(read, name).state_dict()
            assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert refused > len(positions) / 2


def test_a_flipped_bit_in_the_newest_state_costs_only_the_steps_since_the_one_before(
    stopped: Path, recipe: Recipe, photographs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bit of a weight: the log names the file, and the run goes on from the intact one."""
    newest = stopped / "checkpoints" / "step-00000003.pt"
    whole = newest.read_bytes()
    weights = torch.load(newest, weights_only=True)["network"]["deep.bias"]
    place = whole.index(weights.numpy().tobytes())
    newest.write_bytes(flipped(whole, 8 * place + 20))
    assert train(recipe, photographs, stopped, resume=True).step == 6
    assert f"{newest} cannot be read as a training state" in caplog.text
    assert "The one before it is used." in caplog.text


def test_damaged_states_are_refused_by_name_or_resume_what_they_were(
    recipe: Recipe, tmp_path: Path
) -> None:
    """Whatever happened to the file, or to the pickle within, of which no checksum tells."""
    state, read = state_at(recipe, 7), start_state(recipe)
    folder = CheckpointFolder(tmp_path / "checkpoints")
    path = folder.write(state, recipe)
    whole = path.read_bytes()
    cases, refused = number_of_cases(300), 0
    for case in range(cases):
        chance = random.Random(case)
        damage = with_damaged_pickle if chance.random() < 0.5 else mutated
        path.write_bytes(damage(whole, chance))
        try:
            with no_more_than_10_seconds(f"case {case}"):
                folder.read_newest(read, recipe)
        except TrainingError as error:
            assert str(path) in str(error)
            refused += 1
    assert cases / 2 < refused
    assert checkpoints_of(tmp_path) == [path.name]


def test_states_without_checksums_load_and_new_ones_have_them(
    recipe: Recipe, tmp_path: Path
) -> None:
    """Of a torch that was told to write none; ours are written with them all the same."""
    folder = CheckpointFolder(tmp_path / "checkpoints")
    torch.serialization.set_crc32_options(False)
    try:
        path = folder.write(state_at(recipe, 7), recipe)
        with zipfile.ZipFile(path) as archive:
            assert all(entry.CRC for entry in archive.infolist())
        torch.save(torch.load(path, weights_only=True), path)
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(path) as archive:
        assert not any(entry.CRC for entry in archive.infolist())
    read = start_state(recipe)
    folder.read_newest(read, recipe)
    assert read.step == 7


def test_a_state_given_for_weights_gives_the_average(recipe: Recipe, tmp_path: Path) -> None:
    """Not the last step's weights."""
    state = state_at(recipe, 7)
    with torch.no_grad():
        for parameter in state.averaged_network.parameters():
            parameter.fill_(0.25)
    path = CheckpointFolder(tmp_path / "checkpoints").write(state, recipe)
    network = escsr.load_model(path)
    assert all(torch.all(parameter == 0.25) for parameter in network.parameters())


def test_if_no_state_can_be_read_the_run_ends(
    stopped: Path, recipe: Recipe, photographs: Path
) -> None:
    """It is not begun anew behind the user's back."""
    for path in (stopped / "checkpoints").iterdir():
        path.write_bytes(b"rubbish")
    with pytest.raises(TrainingError, match=r"step-00000001.pt cannot be read"):
        train(recipe, photographs, stopped, resume=True)


def test_the_state_just_written_stays_behind_a_damaged_later_one(
    recipe: Recipe, tmp_path: Path
) -> None:
    """A run that fell back to an earlier step must not delete its own states."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000200.pt").write_bytes(b"rubbish")
    once = changed(recipe, watch={"checkpoints_kept": 1})
    CheckpointFolder(tmp_path / "checkpoints").write(state_at(recipe, 150), once)
    assert checkpoints_of(tmp_path) == ["step-00000150.pt"]


def test_a_changed_optimiser_setting_holds_after_resuming(
    stopped: Path, recipe: Recipe, photographs: Path
) -> None:
    """What the warning says is what happens: the state gives the moments, the recipe the rest."""
    other = changed(recipe, optimizer={"weight_decay": 0.25, "betas": (0.8, 0.95)})
    state = train(other, photographs, stopped, resume=True)
    (group,) = state.optimizer.param_groups
    assert (group["weight_decay"], tuple(group["betas"])) == (0.25, (0.8, 0.95))


def test_what_a_killed_write_left_behind_disturbs_nothing(
    stopped: Path, recipe: Recipe, photographs: Path
) -> None:
    """A partial file is no state, and goes with the next one that is written."""
    folder = stopped / "checkpoints"
    with PendingFile(folder / "step-00000006.pt") as file:
        file.stream.write(b"half a sta")
        file.stream.flush()
        (half,) = folder.glob(".*")
        half.rename(half.with_name(half.name.replace(".partial", "0.partial")))
    assert train(recipe, photographs, stopped, resume=True).step == 6
    assert not list(folder.glob(".*"))
    assert checkpoints_of(stopped) == ["step-00000003.pt", "step-00000006.pt"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not limit the size of files")
def test_a_full_disk_ends_the_run_and_leaves_the_state_before(
    stopped: Path, recipe: Recipe, photographs: Path
) -> None:
    """With what to do; once there is room the run goes on.

    The system allows files of 10 kB, less than a state: its own error.
    """
    import resource

    before = checkpoints_of(stopped)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(TrainingError) as caught:
            train(recipe, photographs, stopped, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = str(caught.value)
    assert "The state of step 6 could not be written" in message
    assert os.strerror(errno.EFBIG) in message
    assert "Make room, then go on with --resume; the state before it is untouched" in message
    assert checkpoints_of(stopped) == before
    assert train(recipe, photographs, stopped, resume=True).step == 6


def test_resuming_another_network_is_told_in_one_line(
    stopped: Path, recipe: Recipe, photographs: Path
) -> None:
    """Not tensor by tensor."""
    other = changed(recipe, config={**recipe.config, "dim": 32})
    with pytest.raises(TrainingError, match="does not fit the recipe smallest") as caught:
        train(other, photographs, stopped, resume=True)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_resuming_with_another_recipe_names_what_changed(
    stopped: Path, recipe: Recipe, photographs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run may be made longer, but not by accident; how it is watched shapes nothing."""
    longer = changed(recipe, steps=7, watch={"log_every_steps": 2})
    assert train(longer, photographs, stopped, resume=True).step == 7
    assert "resumed with another steps: 7 instead of 6" in caplog.text
    assert "watch" not in caplog.text


def test_keys_that_came_with_a_later_version_are_no_change(
    stopped: Path, recipe: Recipe, photographs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A state of a run that knew no query_pixels, no kind of optimiser and no [gan]."""
    newest = stopped / "checkpoints" / "step-00000003.pt"
    content = torch.load(newest, weights_only=True)
    del content["recipe"]["data"]["query_pixels"], content["recipe"]["optimizer"]["kind"]
    del content["recipe"]["gan"]
    torch.save(content, newest)
    assert train(recipe, photographs, stopped, resume=True).step == 6
    assert "resumed with another" not in caplog.text


def test_a_state_whose_recipe_is_an_error_now_names_what_changed(
    stopped: Path, recipe: Recipe, photographs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its values are compared as they stand."""
    newest = stopped / "checkpoints" / "step-00000003.pt"
    content = torch.load(newest, weights_only=True)
    content["recipe"]["ema_decay"] = 1.5
    torch.save(content, newest)
    assert train(recipe, photographs, stopped, resume=True).step == 6
    assert "resumed with another ema_decay: 0.999 instead of 1.5" in caplog.text


def test_weights_in_the_place_of_a_state_are_told_apart(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """A file of tensors that somebody put there: the message says where weights belong."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(start_state(recipe).network.state_dict(), folder / "step-00000001.pt")
    with pytest.raises(TrainingError, match=r"is not a training state .* --from"):
        train(recipe, photographs, tmp_path / "run", resume=True)


def test_resuming_nothing_is_an_error(recipe: Recipe, photographs: Path, tmp_path: Path) -> None:
    """The message says that there is no state, and what to do."""
    with pytest.raises(TrainingError, match=r"nothing to resume .* Leave out --resume"):
        train(recipe, photographs, tmp_path / "run", resume=True)


def test_a_state_runs_no_code_when_it_is_read(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """A file from elsewhere may hold anything; what is no plain value is refused."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save({"format": "escsr training state 2", "call": print}, folder / "step-00000001.pt")
    with pytest.raises(TrainingError, match="cannot be read as a training state"):
        train(recipe, photographs, tmp_path / "run", resume=True)
