"""Some thousand damaged files of weights: each loads, or is refused by name."""

import json
import random
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tests.mutation import (
    mutated,
    no_more_than_10_seconds,
    number_of_cases,
    peak_memory_bytes,
    with_damaged_pickle,
)

from escsr.errors import CheckpointError
from escsr.model import ESC
from escsr.weights import Provenance, inspect_checkpoint, save_weights, to_reference

MOST_MEMORY_BYTES = 500_000_000


def whole_files(folder: Path, network: ESC, provenance: Provenance) -> dict[str, bytes]:
    """What is damaged: PyTorch's two containers, safetensors of others and ours."""
    state = {name: t.contiguous() for name, t in to_reference(network.state_dict()).items()}
    torch.save(
        {"params": state, "epoch": 3, "ema": {"module." + k: v for k, v in state.items()}},
        folder / "zip.pth",
    )
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, folder / "theirs.safetensors", {"format": "pt"})
    save_weights(folder / "ours.safetensors", network, provenance=provenance)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def with_damaged_header(content: bytes, chance: random.Random) -> bytes:
    """A safetensors file with another header of the right length."""
    size = int.from_bytes(content[:8], "little")
    header = mutated(content[8 : 8 + size], chance)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def damaged(name: str, content: bytes, chance: random.Random) -> bytes:
    """Anywhere in the file, or, half of the time, where its structure is."""
    if chance.random() < 0.5:
        return mutated(content, chance)
    if name == "zip.pth":
        return with_damaged_pickle(content, chance)
    if name.endswith(".safetensors"):
        return with_damaged_header(content, chance)
    return mutated(content[:6000], chance) + content[6000:]


def test_damaged_checkpoints_load_or_are_refused_by_name(
    tmp_path: Path, small_network: ESC, provenance: Provenance
) -> None:
    """No other exception, no more than 500 MB and 10 seconds, and nothing left behind."""
    (tmp_path / "whole").mkdir()
    files = whole_files(tmp_path / "whole", small_network, provenance)
    folder = tmp_path / "damaged"
    folder.mkdir()
    before = peak_memory_bytes()
    refused, cases = 0, number_of_cases(1200)
    for case in range(cases):
        chance = random.Random(case)
        name = chance.choice(list(files))
        path = folder / name
        path.write_bytes(damaged(name, files[name], chance))
        try:
            with no_more_than_10_seconds(f"case {case}, {name},"):
                inspect_checkpoint(path)
        except CheckpointError as error:
            assert str(path) in str(error), f"case {case}: {error}"
            refused += 1
        except Exception as error:
            pytest.fail(f"case {case}, {name}: {error!r}")
    assert peak_memory_bytes() - before < MOST_MEMORY_BYTES
    assert cases / 2 < refused < cases
    assert {path.name for path in folder.iterdir()} <= set(files)


def test_what_is_damaged_loads_while_it_is_whole(
    tmp_path: Path, small_network: ESC, provenance: Provenance
) -> None:
    """Else the test above would test nothing."""
    for name in whole_files(tmp_path, small_network, provenance):
        assert json.dumps(inspect_checkpoint(tmp_path / name).to_dict())
