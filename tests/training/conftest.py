"""Photographs of our own making, and the smallest recipe that trains."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from escsr.training.recipe import Recipe

# Torch is imported in the fixtures: without it the tests of this folder are skipped.


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """The sums of two runs are only alike with the same number of threads."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def recipe() -> "Recipe":
    """Six steps of the smallest network x2 on patches of 8 pixels, each step logged."""
    from escsr.training.recipe_file import check_recipe
    from tests.training.runs import RECIPE

    return check_recipe(RECIPE, origin="the tests")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of six pictures of mixed sizes."""
    from tests.training.pictures import write_pictures

    return write_pictures(tmp_path / "photographs")


@pytest.fixture
def exact_fabric() -> "Iterator[Fabric]":
    """Of steps in float64, which differ by no more than 1e-9 where sums have another order.

    In float32 a sum's rounding may turn a leaky ReLU around, which moves a gradient by more than
    any rounding does; which one turns depends on the processor.
    """
    import torch
    from lightning_fabric import Fabric

    torch.set_default_dtype(torch.float64)
    yield Fabric(accelerator="cpu", devices=1, precision="64-true")
    torch.set_default_dtype(torch.float32)
