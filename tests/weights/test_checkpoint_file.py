"""Files that cannot be used, and files that must not be."""

import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from escsr.errors import CheckpointError
from escsr.weights import load_model


class CreateFile:
    """What a malicious pickle does: call a function of its choice while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Run a shell command when unpickled."""
        import os

        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, kind: str) -> None:
    """Whichever way it was written; the message says why."""
    victim, path = tmp_path / "victim", tmp_path / "free-weights.pth"
    content = {"params": {"proj.weight": CreateFile(victim)}}
    if kind == "plain":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(CheckpointError, match=r"can run (any )?code"):
        load_model(path)
    assert not victim.exists()


def test_a_refusal_names_what_the_pickle_asked_for(tmp_path: Path) -> None:
    """A whole module pickled by torch.save: harmless, but code all the same."""
    path = tmp_path / "module.pth"
    torch.save(torch.nn.Conv2d(1, 1, 1), path)
    with pytest.raises(CheckpointError, match=r"Conv2d.*save its state dict alone"):
        load_model(path)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """And a folder, and an empty file."""
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model(tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_model(tmp_path)
    empty = tmp_path / "empty.pth"
    empty.touch()
    with pytest.raises(CheckpointError, match="is empty"):
        load_model(empty)


@pytest.mark.parametrize("container", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.999])
def test_a_truncated_file_is_said_to_be_one(tmp_path: Path, container: str, kept: float) -> None:
    """Cut near the beginning, in the middle, at the very end."""
    path = tmp_path / "cut.weights"
    tensors = {"proj.weight": torch.randn(64, 3, 3, 3), "plk_filter": torch.randn(16, 16, 13, 13)}
    if container == "safetensors":
        path = path.with_suffix(".safetensors")
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=container == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(CheckpointError, match=r"is not a whole .*(copy it again)"):
        load_model(path)


@pytest.mark.parametrize(
    "content", [b"\xff\xd8\xff\xe0 a photograph", b"a letter to a friend\n", b"\x89PNG\r\n\x1a\n"]
)
def test_a_file_of_another_kind_is_said_to_be_one(tmp_path: Path, content: bytes) -> None:
    """A photograph given as weights."""
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="neither a safetensors nor a PyTorch file"):
        load_model(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2, 3], "holds a list instead of a state dict"),
        (torch.zeros(3), "holds a Tensor instead of a state dict"),
        ({}, "It holds nothing"),
        ({"epoch": 3, "model": {"a": torch.zeros(1)}}, r"Not an ESC: 1 tensors .*\(a 1\)"),
        ({"epoch": 3, "params": 3}, "It holds 'epoch', 'params'; looked for"),
        ({"params": {"a": "b"}}, "no tensors by name"),
        ({3: torch.zeros(1)}, r"Not an ESC: 1 tensors .*\(3 1\)"),
    ],
)
def test_a_checkpoint_without_a_state_dict_says_what_it_holds(
    tmp_path: Path, content: object, words: str
) -> None:
    """The keys that are there and the sections that were looked for."""
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=words):
        load_model(path)


def test_an_unreadable_file_is_said_to_be_one(tmp_path: Path) -> None:
    """No permission."""
    path = tmp_path / "secret.pth"
    path.write_bytes(b"PK")
    path.chmod(0)
    try:
        path.open("rb").close()
    except PermissionError:
        with pytest.raises(CheckpointError, match="check its permissions"):
            load_model(path)
    else:
        pytest.skip("this user may read every file")
