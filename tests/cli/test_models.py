"""``escsr models``."""

import json

import pytest
import typer
from typer.testing import CliRunner

from escsr.cli.models import models_command
from escsr.model import VARIANTS
from escsr.weights import bundled_models

app = typer.Typer()
app.command()(models_command)


def test_it_lists_the_box_and_what_can_be_loaded() -> None:
    """Every model in the box by name, and the networks that have no weights there."""
    result = CliRunner().invoke(app, [], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for model in bundled_models():
        assert model.name in result.output
        assert f"x{model.scale}" in result.output
    assert all(name in result.output for name in VARIANTS)


def test_json_is_for_programs() -> None:
    """What is in the box, with its size, cost and licence."""
    result = CliRunner().invoke(app, ["--json"])
    assert result.exit_code == 0, result.output
    listing = json.loads(result.stdout)
    names = {entry["name"] for entry in listing["in_the_box"]}
    assert names | set(listing["loadable"]) >= set(VARIANTS)
    assert not names & set(listing["loadable"])


def test_every_entry_states_a_licence() -> None:
    """And a measured quality."""
    entries = json.loads(CliRunner().invoke(app, ["--json"]).stdout)["in_the_box"]
    if not entries:
        pytest.skip("no trained weights are in the package yet")
    assert all(entry["licence"] and entry["quality"] for entry in entries)
