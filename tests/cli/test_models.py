"""``escsr models``."""

import json
from pathlib import Path

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


def test_all_says_what_every_network_costs() -> None:
    """In 80 columns, one line each; the figures are the paper's where it has them."""
    result = CliRunner().invoke(app, ["--all"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line.split() for line in result.output.splitlines() if line.strip()}
    for name in VARIANTS:
        assert len(lines[name]) == 6, "one line, six columns"
    assert lines["esc"][1:] == ["967,500", "149.2", "x2-x4", "32", "pixelshuffledirect"]
    assert lines["esc-rib"][1:5] == ["1,028,568", "357.0", "x2-x4", "64"]
    assert lines["esc-lte"][3] == "any"
    assert lines["esc-real-m-conv"][3] == "x1"
    page = (Path(__file__).parents[2] / "docs" / "family.md").read_text(encoding="utf-8")
    written = {line.split()[0]: line.split() for line in page.splitlines() if line.strip()}
    assert {name: written.get(name) for name in VARIANTS} == {n: lines[n] for n in VARIANTS}


def test_all_in_json_has_every_scale() -> None:
    """Beside what the command says without it."""
    listing = json.loads(CliRunner().invoke(app, ["--all", "--json"]).stdout)
    entries = {entry["name"]: entry for entry in listing["variants"]}
    assert list(entries) == list(VARIANTS)
    costs = {entry["scale"]: entry for entry in entries["esc"]["at_scale"]}
    assert [costs[scale]["parameters"] for scale in (2, 3, 4)] == [946728, 955383, 967500]
    assert [entry["unshuffle"] for entry in entries["esc-real-m"]["at_scale"]] == [4, 2, 1, 1]
    assert all(
        entry["in_the_box"] != (name in listing["loadable"]) for name, entry in entries.items()
    )
    assert entries["esc-lte"]["any_size"]


def test_every_entry_states_a_licence() -> None:
    """And a measured quality."""
    entries = json.loads(CliRunner().invoke(app, ["--json"]).stdout)["in_the_box"]
    if not entries:
        pytest.skip("no trained weights are in the package yet")
    assert all(entry["licence"] and entry["quality"] for entry in entries)


def test_a_network_for_real_photographs_is_listed_by_its_niqe() -> None:
    """Its PSNR on clean test sets would only say that it is not made for them."""
    listing = CliRunner().invoke(app, [], env={"COLUMNS": "80"}).stdout
    (row,) = (line for line in listing.splitlines() if line.startswith("esc-tiny-real"))
    assert "RealSRSet NIQE" in row
    assert "Set5" not in row
