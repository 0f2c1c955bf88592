"""Where a run computes: what is asked for and is not there is refused."""

import pytest
import torch

from escsr.errors import ConfigurationError
from escsr.training.launching import launch
from escsr.training.recipe import Recipe
from tests.training.runs import changed


def test_a_run_alone_is_one_process_on_the_device(recipe: Recipe) -> None:
    """No torchrun: no environment variables, no processes."""
    fabric = launch(recipe, device="cpu")
    assert (fabric.world_size, fabric.global_rank) == (1, 0)
    assert fabric.device == torch.device("cpu")


def test_float16_on_a_cpu_is_refused(recipe: Recipe) -> None:
    """With what to take instead."""
    with pytest.raises(ConfigurationError, match='needs a GPU; on a CPU use "bfloat16"'):
        launch(changed(recipe, precision="float16"), device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(recipe: Recipe) -> None:
    """Rather than a run of days on the CPU."""
    with pytest.raises(ConfigurationError, match="no cuda device; use --device cpu"):
        launch(recipe, device="cuda")


def test_more_processes_than_gpus_are_refused(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With how many there are."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigurationError, match=r"has 2 cuda devices .* use --processes 2"):
        launch(recipe, device="cuda", processes=3)


def test_a_device_that_does_not_exist_is_told_with_those_that_do(recipe: Recipe) -> None:
    """A slip of the pen."""
    with pytest.raises(ConfigurationError, match="'gpu'; allowed are auto, cuda, mps, cpu"):
        launch(recipe, device="gpu")
