"""``escsr inspect``."""

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from escsr.cli.inspect import inspect_command
from escsr.model import ESC, ESCConfig
from escsr.weights import Provenance, save_weights
from golden_files import read_golden

app = typer.Typer()
app.command()(inspect_command)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A small network of ours; its licence has the look of rich's markup."""
    path = tmp_path / "ours [x2].safetensors"
    network = ESC(ESCConfig(scale=2, dim=8, pdim=2, num_blocks=1, window_size=4, num_heads=1))
    save_weights(
        path,
        network,
        provenance=Provenance(
            licence="[MIT]",
            training_data="two photographs",
            date="2025-11-20",
            quality={"Set5 PSNR-Y dB": 31.25},
        ),
    )
    return path


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """A reference checkpoint."""
    path = tmp_path / "reference.pth"
    torch.save({"params": read_golden("esc_tiny_x2").reference_state}, path)
    return path


def test_it_says_what_a_file_is(ours: Path, reference: Path) -> None:
    """Several files, one after the other; text in a file is shown as it is."""
    result = CliRunner().invoke(app, [str(ours), str(reference)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for words in ("[x2]", "[MIT]", "two photographs", "Set5 PSNR-Y dB 31.25", "custom ESC"):
        assert words in result.output
    assert "not stated in the file; the official ESC checkpoints are MIT" in result.output


def test_json_is_for_programs(ours: Path, reference: Path, tmp_path: Path) -> None:
    """A list with one entry for each file, errors among them."""
    missing = tmp_path / "missing.pth"
    result = CliRunner().invoke(app, ["--json", str(ours), str(missing), str(reference)])
    assert result.exit_code == 1
    entries = {entry["path"]: entry for entry in json.loads(result.stdout)}
    assert entries[str(ours)]["licence"] == "[MIT]"
    assert entries[str(reference)]["config"]["dim"] == 32
    assert "does not exist" in entries[str(missing)]["error"]


def test_a_header_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    """Escape sequences and signs that turn the text are shown as escapes; so is JSON's text."""
    path = tmp_path / "red.safetensors"
    said = "\x1b[31mRED\x1b]0;pwn\x07\x9b2J\u202egnp.exe\nLicence MIT \u00e9"
    save_weights(
        path,
        ESC(ESCConfig(scale=2, dim=8, pdim=2, num_blocks=1, window_size=4, num_heads=1)),
        provenance=Provenance(
            licence=said,
            training_data=said,
            date="2025-11-20",
            recipe_name=said,
            source=said,
            quality={said: 31.25},
        ),
    )
    result = CliRunner().invoke(app, [str(path)], env={"COLUMNS": "300"})
    assert result.exit_code == 0
    shown = r"\x1b[31mRED\x1b]0;pwn\x07\x9b2J\u202egnp.exe\nLicence MIT \u00e9".replace(
        r"\u00e9", "\u00e9"
    )
    assert result.output.count(shown) == 5
    for sign in "\x1b\x07\x9b\u202e":
        assert sign not in result.output
    result = CliRunner().invoke(app, [str(path), "--json"])
    assert result.output.isascii()
    assert json.loads(result.output)[0]["licence"] == said


def test_it_says_which_weights_of_a_file_were_taken(tmp_path: Path) -> None:
    """An average before raw ones; and which were left aside."""
    path = tmp_path / "both.ckpt"
    state = read_golden("esc_tiny_x2").reference_state
    torch.save({"params": state, "ema": {f"module.{name}": t for name, t in state.items()}}, path)
    result = CliRunner().invoke(app, [str(path)], env={"COLUMNS": "200"})
    assert "ema.module, an average of training steps (EMA); left aside: params" in result.output
    result = CliRunner().invoke(app, [str(path), "--json"])
    entry = json.loads(result.output)[0]
    assert (entry["state_dict"], entry["is_averaged"]) == ("ema.module", True)
    assert entry["other_state_dicts"] == ["params"]


def test_a_bad_file_does_not_hide_the_good_ones(ours: Path, tmp_path: Path) -> None:
    """Exit status 1, the error on standard error, the rest on standard output."""
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"not weights")
    result = CliRunner().invoke(app, [str(bad), str(ours)], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "two photographs" in result.stdout
    assert f"Error: {bad} is neither" in result.stderr


def test_no_file_is_a_usage_error() -> None:
    """Exit status 2."""
    assert CliRunner().invoke(app, []).exit_code == 2


def test_a_name_in_the_box_is_as_good_as_a_path() -> None:
    """Beside a name that is none, which is told with the nearest."""
    result = CliRunner().invoke(app, ["esc-tiny-x2", "esc-tyny", "--json"])
    assert result.exit_code == 1
    found, missing = json.loads(result.stdout)
    assert (found["variant"], found["scale"]) == ("esc-tiny", 2)
    assert "Did you mean esc-tiny" in missing["error"]
