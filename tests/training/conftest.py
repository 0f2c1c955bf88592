"""Photographs of our own making, and the smallest recipe that trains."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from escsr.images.writer import write_image
from escsr.training.recipe import Recipe, check_recipe

RECIPE: dict[str, Any] = {
    "name": "smallest",
    "model": "esc-tiny",
    "scale": 2,
    "steps": 6,
    "batch_size": 2,
    "patch_pixels": 16,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "seed": 3,
    "licence": "CC0-1.0",
    "training_data": "noise made by the tests",
}


@pytest.fixture
def recipe() -> Recipe:
    """Six steps of esc-tiny x2 on patches of 16 pixels."""
    return check_recipe(RECIPE, origin="the tests")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of four pictures: smooth waves with noise, one of them grey, one in a sub-folder."""
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number, name in enumerate(("a.png", "b.jpg", "c.webp", "more/grey.png")):
        rows, columns = np.mgrid[0 : 70 + number, 0:90]
        wave = 120 + 60 * np.sin(rows / 7 + number) * np.cos(columns / 5)
        channels = 1 if "grey" in name else 3
        pixels = wave[..., None] + generator.normal(0, 12, (*wave.shape, channels))
        write_image(folder / name, pixels.clip(0, 255).astype(np.uint8))
    return folder
