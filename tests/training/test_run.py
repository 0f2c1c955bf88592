"""A whole run by the command: photographs in, a file of weights out."""

import tomllib
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from escsr.cli.app import app
from escsr.weights import load_model, read_header
from tests.training.conftest import RECIPE


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    """The smallest recipe as a file."""
    path = tmp_path / "smallest.toml"
    path.write_text("\n".join(f"{key} = {value!r}" for key, value in RECIPE.items()))
    assert tomllib.loads(path.read_text()) == RECIPE
    return path


def test_train_writes_weights_that_load_and_say_where_they_are_from(
    recipe_path: Path, photographs: Path, tmp_path: Path
) -> None:
    """The file holds licence, data, recipe and the figures measured at the end."""
    out = tmp_path / "run"
    arguments = ["train", str(recipe_path), "--data", str(photographs), "--out", str(out)]
    result = CliRunner().invoke(app, [*arguments, "--test", str(photographs), "--set", "steps=2"])
    assert result.exit_code == 0, result.output
    weights = out / "smallest.safetensors"
    provenance = read_header(weights).provenance
    assert (provenance.licence, provenance.variant) == ("CC0-1.0", "esc-tiny")
    assert provenance.recipe == recipe_path.read_text()
    assert provenance.quality["photographs PSNR-Y dB"] > 10
    assert load_model(weights).scale == 2


def test_weights_of_another_scale_start_a_run(
    recipe_path: Path, photographs: Path, tmp_path: Path
) -> None:
    """x3 begins with the x2 network, its last convolution converted."""
    common = ["train", str(recipe_path), "--data", str(photographs), "--set", "steps=1"]
    first = CliRunner().invoke(app, [*common, "--out", str(tmp_path / "x2")])
    assert first.exit_code == 0, first.output
    begin = ["--from", str(tmp_path / "x2" / "smallest.safetensors"), "--set", "scale=3"]
    second = CliRunner().invoke(app, [*common, "--out", str(tmp_path / "x3"), *begin])
    assert second.exit_code == 0, second.output
    x2, x3 = (load_model(tmp_path / run / "smallest.safetensors") for run in ("x2", "x3"))
    assert x3.scale == 3
    # One step at a warm-up learning rate of 5e-4 moves a weight by at most about that much.
    torch.testing.assert_close(x2.shallow.weight, x3.shallow.weight, rtol=0, atol=5e-3)


def test_a_wrong_recipe_is_a_clear_error(recipe_path: Path, photographs: Path) -> None:
    """No traceback; the key is named."""
    arguments = ["train", str(recipe_path), "--data", str(photographs), "--set", "stepz=2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    assert "stepz: unknown key" in result.output


def test_set_needs_a_key_and_a_value(recipe_path: Path, photographs: Path) -> None:
    """A usage error, exit status 2."""
    arguments = ["train", str(recipe_path), "--data", str(photographs), "--set", "steps"]
    assert CliRunner().invoke(app, arguments).exit_code == 2
