"""A run that is killed at any moment and resumed is the run that was never killed."""

import random
import signal
import sys
from pathlib import Path

import pytest
import torch

from escsr.training.run import Run, train_recipe
from escsr.weights import load_model
from tests.training.processes import TRAIN, finish, start, wait_for_rows, write_recipe
from tests.training.runs import checkpoints_of, log_of

STEPS = 100


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_killed_twice_and_resumed_equals_an_uninterrupted_one(
    photographs: Path, tmp_path: Path
) -> None:
    """Bit for bit on a CPU with one thread: the log but its clocks, and the weights.

    The kills come after random numbers of steps, each between two states on disk.
    """
    recipe = write_recipe(tmp_path / "smallest.toml")
    changes = {
        "steps": STEPS,
        "watch.checkpoint_every_seconds": 0.05,
        "watch.validate_every_steps": 40,
    }
    out, whole = tmp_path / "killed", tmp_path / "whole"
    run = {"recipe_path": recipe, "data": photographs, "test_sets": (photographs,), "device": "cpu"}
    train_recipe(Run(**run, out=whole), changes=changes)

    command = [*TRAIN, recipe, "--data", photographs, "--test", photographs, "--device", "cpu"]
    for key, value in changes.items():
        command += ["--set", f"{key}={value}"]
    seeded = random.Random(7)
    resume: list[str] = []
    for first, last in ((5, STEPS // 2), (STEPS // 2 + 5, STEPS - 20)):
        killed = start(*command, "--out", out, *resume)
        wait_for_rows(out, seeded.randint(first, last), killed)
        killed.kill()
        assert finish(killed)[0] == -signal.SIGKILL
        assert any(name.endswith(".pt") for name in checkpoints_of(out))
        resume = ["--resume"]
    assert train_recipe(Run(**run, out=out, resume=True), changes=changes).weights is not None

    assert len(log_of(out)) == STEPS
    assert log_of(out) == log_of(whole)
    for name in ("smallest", "best"):
        weights = [
            load_model(folder / f"{name}.safetensors").state_dict() for folder in (whole, out)
        ]
        assert all(torch.equal(weights[1][key], tensor) for key, tensor in weights[0].items())
