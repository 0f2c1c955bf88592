"""``escsr inspect`` on a folder: every class of the family, and files that are something else."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from escsr.family.configuration import WITH_OWN_WIDTH, ESCConfig
from escsr.weights import Provenance, save_reference_weights, save_weights
from escsr.weights.official import to_reference
from tests.family_networks import FAMILY, family_network

from .conftest import Escsr, MakePicture

FOREIGN = ("another.pth", "empty.pth", "notes.pth", "photo.png", "truncated.safetensors")


def without_meaning(config: ESCConfig) -> set[str]:
    """Fields of parts that a network lacks, so that their defaults stand."""
    fields: set[str] = set()
    if config.upsampler != "lte":
        fields |= {"texture_dim", "texture_mlp_dim", "texture_mlp_layers"}
    if config.upsampler not in WITH_OWN_WIDTH:
        fields |= {"upsampler_dim"}
    if config.upsampler != "dysample":
        fields |= {"dysample_groups"}
    if config.position_bias != "implicit":
        fields |= {"position_rank", "position_hidden_dim", "position_frequencies"}
    return fields


@pytest.fixture
def folder(tmp_path: Path, make_picture: MakePicture) -> Path:
    """Each class as the reference stores it (.pth and .safetensors) and as we do; and the rest."""
    folder = make_picture("weights/photo.png").parent
    provenance = Provenance(licence="CC0-1.0", training_data="none: random", date="2025-01-01")
    for name, config in FAMILY.items():
        network = family_network(name)
        save_reference_weights(folder / f"{name}.pth", network)
        save_weights(folder / f"{name}.ours.safetensors", network, provenance=provenance)
        state = {
            key: t.contiguous() for key, t in to_reference(network.state_dict(), config).items()
        }
        safetensors.torch.save_file(state, folder / f"{name}.theirs.safetensors")
    (folder / "empty.pth").touch()
    (folder / "notes.pth").write_text("these are no weights")
    torch.save(torch.nn.Linear(3, 4).state_dict(), folder / "another.pth")
    whole = (folder / "esc-x2.ours.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / ".hidden").write_text("left out")
    return folder


def test_every_class_is_recognised_and_every_other_file_named(escsr: Escsr, folder: Path) -> None:
    """Five files are no ESC; all others are what they were written as."""
    result = escsr("inspect", folder, "--json")
    assert result.exit_code == 1
    entries = {Path(entry["path"]).name: entry for entry in json.loads(result.stdout)}
    assert {name for name, entry in entries.items() if "error" in entry} == set(FOREIGN)
    assert len(entries) == 3 * len(FAMILY) + len(FOREIGN)
    for name, config in FAMILY.items():
        for ending in (".pth", ".ours.safetensors", ".theirs.safetensors"):
            found = entries[name + ending]["config"]
            assumed = set(entries[name + ending]["assumed"])
            wrong = {
                field: (found[field], value)
                for field, value in config.to_dict().items()
                if found[field] != value and field not in assumed
            }
            assert not set(wrong) - without_meaning(config), (name + ending, wrong)
            assert found["scale"] == config.scale


def test_what_no_tensor_tells_is_called_assumed(escsr: Escsr, folder: Path) -> None:
    """ESC-RIB's window; in a file of ours its header tells it."""
    theirs = escsr("inspect", folder / "esc-rib-x2.pth").stdout
    assert "64 (assumed; no tensor tells it)" in theirs
    ours = escsr("inspect", folder / "esc-rib-x2.ours.safetensors").stdout
    assert "assumed" not in ours
    assert "implicit, rank 4, 3 frequencies, gated attention" in ours
    assert "any size; x4" in escsr("inspect", folder / "esc-lte-x4.pth").stdout
    restorer = escsr("inspect", folder / "esc-real-m-pixelshuffle-x1.pth").stdout
    assert "x1 (restores at the same size)" in restorer
    assert "pixelshuffle, 8 channels" in restorer
    assert "4: 4x4 pixels become channels first" in restorer


def test_a_folder_says_how_many_files_can_be_used(escsr: Escsr, folder: Path) -> None:
    """The others are named with what is wrong; an empty folder is an error of its own."""
    result = escsr("inspect", folder)
    assert result.exit_code == 1
    assert f"{3 * len(FAMILY)} of {3 * len(FAMILY) + 5} files can be used." in result.stderr
    assert all(str(folder / name) in result.stderr for name in FOREIGN)
    (folder / "nothing").mkdir()
    empty = escsr("inspect", folder / "nothing")
    assert empty.exit_code == 1
    assert "holds no files" in empty.stderr
