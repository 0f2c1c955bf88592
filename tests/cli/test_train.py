"""``escsr train``: what it says and with which status it ends."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from escsr.cli.train import train_command
from escsr.errors import MissingExtraError
from escsr.images.files import read_image
from escsr.images.writer import write_image
from escsr.weights.header import read_header
from tests.training.pictures import picture, spoil, write_every_kind, write_pictures
from tests.training.processes import TRAIN, finish, start, wait_for_rows, write_recipe
from tests.training.runs import checkpoints_of, log_of

from .conftest import Escsr

Train = Callable[..., Result]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The smallest recipe as a file."""
    return write_recipe(tmp_path / "smallest.toml")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of six pictures of mixed sizes."""
    return write_pictures(tmp_path / "photographs")


@pytest.fixture
def train(escsr: Escsr, recipe: Path, tmp_path: Path) -> Train:
    """Run ``escsr train`` with the smallest recipe, two steps, on the CPU."""

    def run(*arguments: str | Path) -> Result:
        fixed = ("--out", tmp_path / "run", "--device", "cpu", "--set", "steps=2")
        return escsr("train", recipe, *fixed, *arguments)

    return run


def test_training_tells_each_row_and_where_the_weights_are(
    train: Train, photographs: Path, tmp_path: Path
) -> None:
    """Lines on stderr where it is no terminal; the result on stdout."""
    result = train("--data", photographs, "--test", photographs)
    assert result.exit_code == 0, result.output
    weights = tmp_path / "run" / "smallest.safetensors"
    assert result.stdout.startswith(f"Weights: {weights}  (photographs PSNR-Y dB ")
    rows = [line for line in result.stderr.splitlines() if line.startswith("step ")]
    assert [row.split("  ")[0] for row in rows] == ["step 1/2", "step 2/2"]
    assert "images/s" in rows[0]
    assert "waiting for data" in rows[0]
    assert rows[1].endswith(" dB (best)")
    assert "\x1b" not in result.output
    assert "\r" not in result.output


def test_the_precision_that_is_used_is_told_and_recorded(
    train: Train, photographs: Path, tmp_path: Path
) -> None:
    """With "auto" first of all on stderr, with the reason; then in the log and in the weights."""
    result = train("--data", photographs, "--set", "precision=auto")
    assert result.exit_code == 0, result.output
    said = re.match(r"Computing in (\w+) on cpu: .*(?:bfloat16|BF16).*\.\n", result.stderr)
    assert said is not None, result.stderr
    used = said[1]
    assert log_of(tmp_path / "run", "precision") == [(used,), (used,)]
    header = read_header(tmp_path / "run" / "smallest.safetensors")
    assert json.loads(header.provenance.recipe)["precision"] == used


def test_the_help_names_the_options(escsr: Escsr) -> None:
    """And how to train on many GPUs."""
    result = escsr("train", "--help")
    assert result.exit_code == 0
    for option in ("--data", "--out", "--test", "--from", "--set", "--resume", "--dry-run"):
        assert option in result.output
    assert "torchrun" in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give a recipe"),
        (("RECIPE",), "--data"),
        (("RECIPE", "--data", ".", "--set", "steps"), "'steps' is not KEY=VALUE"),
        (("RECIPE", "--data", ".", "--cache", "much"), "much"),
        (("RECIPE", "--data", ".", "--device", "gpu"), "'gpu'; allowed are auto, cuda, mps, cpu"),
        (("RECIPE", "--data", ".", "--nothing"), "No such option"),
    ],
)
def test_a_wrong_use_ends_with_status_2(
    escsr: Escsr, recipe: Path, arguments: tuple[str, ...], told: str
) -> None:
    """And says what is wrong."""
    given = [str(recipe) if item == "RECIPE" else item for item in arguments]
    result = escsr("train", *given)
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output


def test_training_without_its_extra_says_what_to_install(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, which is no traceback."""
    monkeypatch.delitem(sys.modules, "escsr.training.run", raising=False)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    result = train("--data", ".")
    assert result.exit_code == 1
    assert result.stderr == "Error: Training needs lightning_fabric: pip install 'escsr[train]'\n"


@pytest.mark.parametrize("schema", [False, True])
def test_recipes_without_pydantic_say_what_to_install(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, schema: bool
) -> None:
    """To train and to print the schema; called directly, since newer typer needs pydantic too."""
    monkeypatch.delitem(sys.modules, "escsr.training.recipe_file", raising=False)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(MissingExtraError, match=r"needs pydantic: pip install 'escsr\[train\]'"):
        train_command(recipe, data=".", schema=schema)


def test_a_recipe_that_is_named_in_a_message_exists(escsr: Escsr) -> None:
    """What is proposed where none is given."""
    output = " ".join(escsr("train").output.split())
    proposed = output.split("such as ")[1].split(".toml")[0] + ".toml"
    assert (Path(__file__).parents[2] / proposed).exists()


def test_an_unknown_key_of_set_is_told_with_the_near_one(train: Train, photographs: Path) -> None:
    """Before anything is written."""
    result = train("--data", photographs, "--set", "data.batchsize=8")
    assert result.exit_code == 1
    assert "data.batchsize: unknown key (did you mean batch_size?)" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_values_of_set_are_toml_or_text(train: Train, photographs: Path) -> None:
    """Numbers, lists, and words without quotes."""
    result = train(
        "--data", photographs, "--set", "data.batch_size=2", "--set", "optimizer.betas=[0.9, 0.9]",
        "--set", "precision=bfloat16", "--set", "name=other",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "other.safetensors" in result.stdout


def test_the_schema_is_printed_for_editors(escsr: Escsr) -> None:
    """As it is published."""
    published = Path(__file__).parents[2] / "recipes" / "recipe.schema.json"
    result = escsr("train", "--schema")
    assert result.exit_code == 0
    assert result.stdout == published.read_text()


def test_a_dry_run_needs_no_data_and_leaves_nothing(train: Train, tmp_path: Path) -> None:
    """It makes pictures of its own."""
    result = train("--dry-run")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Dry run passed")
    assert not (tmp_path / "run").exists()


def test_a_dry_run_on_ones_own_images_validates_too(train: Train, photographs: Path) -> None:
    """Without a test set it judges pictures of its own: its message speaks of a validation."""
    result = train("--dry-run", "--data", photographs)
    assert result.exit_code == 0, result.output
    assert " dB" in result.stderr
    assert "validation" in result.stdout


def test_a_dry_run_goes_on_from_damaged_images_to_whole_ones(
    train: Train, photographs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the headers are whole and all pixels are missing; what is left out is named."""
    first = sorted(photographs.iterdir())[0]
    for number in range(3):
        damaged = photographs / f"{number}-damaged{first.suffix}"
        damaged.write_bytes(first.read_bytes()[:200])
    result = train("--dry-run", "--data", photographs)
    assert result.exit_code == 0, result.output
    assert sum("-damaged" in message for message in caplog.messages) == 3


def test_broken_images_are_named_counted_and_left_out(recipe: Path, tmp_path: Path) -> None:
    """On stderr, unasked, in a process of its own; the run goes on with the others."""
    folder = write_every_kind(tmp_path / "kinds")
    spoil(folder)
    process = start(*TRAIN, recipe, "--data", folder, "--out", tmp_path / "run", "--device", "cpu")
    status, stdout, stderr = finish(process)
    assert status == 0, stderr
    assert stdout.startswith("Weights: ")
    for name in ("text.png", "empty.jpg", "half.png"):
        assert f"left out: {folder / name} is " in stderr
    assert "2 of 11 images are left out" in stderr
    assert "Traceback" not in stderr


def test_an_empty_folder_is_an_error(train: Train, tmp_path: Path) -> None:
    """With the kinds of images that can be read."""
    (tmp_path / "empty").mkdir()
    result = train("--data", tmp_path / "empty")
    assert result.exit_code == 1
    assert "Error: There is no image and no .tar file in" in result.stderr
    assert ".png" in result.stderr


def test_a_folder_that_is_not_there_is_an_error(train: Train, tmp_path: Path) -> None:
    """By its name."""
    result = train("--data", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert f"There is no training data at {tmp_path / 'nowhere'}" in result.stderr


def test_grey_images_alone_train_a_network(train: Train, tmp_path: Path) -> None:
    """They become three equal channels."""
    for number in range(3):
        write_image(tmp_path / f"grey-{number}.png", picture(number, channels=1))
    result = train("--data", tmp_path)
    assert result.exit_code == 0, result.output


def test_images_that_are_all_smaller_than_a_patch_are_an_error(
    train: Train, photographs: Path
) -> None:
    """With the size that is needed, and the key that changes it."""
    result = train("--data", photographs, "--set", "data.patch_pixels=64")
    assert result.exit_code == 1
    assert "None of the 6 images can be used" in result.stderr
    assert "at least 128 pixels per side (patch_pixels 64 x scale 2)" in result.stderr


def test_an_image_smaller_than_a_patch_is_left_out(
    train: Train, photographs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The others serve, and the log says which did not."""
    write_image(photographs / "tiny.png", picture(9, height=10, width=90))
    result = train("--data", photographs)
    assert result.exit_code == 0, result.output
    assert "tiny.png is only 90x10 pixels; a patch needs 16 per side" in caplog.text


def test_a_second_start_in_the_same_folder_is_refused(train: Train, photographs: Path) -> None:
    """With both ways on."""
    assert train("--data", photographs).exit_code == 0
    result = train("--data", photographs)
    assert result.exit_code == 1
    assert "already holds a run. Go on with it (--resume), or choose another" in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows sends signals differently")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_state_and_ends_with_its_status(
    recipe: Path, photographs: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """128 and the number of the signal, as shells have it; the message says how to go on."""
    out = tmp_path / "run"
    process = start(
        *TRAIN, recipe, "--data", photographs, "--out", out, "--device", "cpu",
        "--set", "steps=100000",
    )  # fmt: skip
    wait_for_rows(out, 3, process)
    process.send_signal(number)
    status, stdout, stderr = finish(process)
    assert status == 128 + number
    assert stdout == ""
    assert stderr.endswith(f"Stopped; the state is in {out}. Go on with --resume.\n")
    assert "Traceback" not in stderr
    assert checkpoints_of(out) == [f"step-{len(log_of(out)):08d}.pt"]


def test_a_preview_draws_what_the_degradation_does_and_trains_nothing(
    train: Train, photographs: Path, tmp_path: Path
) -> None:
    """Five rows of seven columns: HR, sharpened, and five versions of 48 pixels."""
    picture_path = tmp_path / "preview.png"
    changes = ("data.degradation=second-order", "degradation.degraded_pixels=48")
    settings = [word for change in changes for word in ("--set", change)]
    result = train("--data", photographs, "--preview", picture_path, *settings)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Preview: {picture_path}\n"
    assert read_image(picture_path).pixels.shape == (24 + 5 * 54, 6 + 7 * 54, 3)
    assert not (tmp_path / "run").exists()


def test_a_preview_of_another_degradation_is_refused(
    train: Train, photographs: Path, tmp_path: Path
) -> None:
    """There is nothing to see: MATLAB's bicubic is always the same."""
    result = train("--data", photographs, "--preview", tmp_path / "preview.png")
    assert result.exit_code == 2
    assert "data.degradation = 'matlab'; a preview shows" in " ".join(result.stderr.split())
