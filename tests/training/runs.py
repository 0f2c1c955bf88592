"""Short runs for the tests, by the parts that ``escsr train`` is made of."""

import csv
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from escsr.evaluation.protocol import TestPair
from escsr.model.network import ESC
from escsr.training.batches import BatchSource
from escsr.training.data import open_training_data
from escsr.training.launching import launch
from escsr.training.loop import LoopHooks, TrainingLoop
from escsr.training.perceptual import PerceptualLoss
from escsr.training.recipe import Recipe
from escsr.training.state import TrainingState

RECIPE: dict[str, Any] = {
    "name": "smallest",
    "model": "esc-tiny",
    "config": {
        "dim": 16,
        "pdim": 4,
        "num_blocks": 1,
        "num_conv_layers": 1,
        "window_size": 8,
        "large_kernel_size": 5,
    },
    "scale": 2,
    "steps": 6,
    "precision": "float32",
    "seed": 3,
    "data": {"batch_size": 4, "patch_pixels": 8},
    "optimizer": {"learning_rate": 1e-3},
    "schedule": {"warmup_steps": 2},
    "watch": {"log_every_steps": 1},
    "licence": "CC0-1.0",
    "training_data": "waves made by the tests",
}
"""Six steps of the smallest network x2 on patches of 8 pixels, as in a recipe's file."""

RESULT_COLUMNS = ("step", "loss", "learning_rate", "psnr_y_db")
"""Of the log: all but the clocks."""


def changed(recipe: Recipe, **values: Any) -> Recipe:
    """A recipe with other values; those of a table are given as a mapping."""
    update = {
        key: getattr(recipe, key).model_copy(update=value)
        if isinstance(value, Mapping) and key != "config"
        else value
        for key, value in values.items()
    }
    return recipe.model_copy(update=update)


def open_source(recipe: Recipe, photographs: Path, *, cache_bytes: int = 1 << 20) -> BatchSource:
    """The pairs that a recipe trains on."""
    return open_training_data(recipe, photographs, cache_bytes=cache_bytes)


def start_state(recipe: Recipe) -> TrainingState:
    """The recipe's state before the first step, of random weights."""
    torch.manual_seed(recipe.seed)
    network = ESC(recipe.network_config(), attention_backend="chunked")
    return TrainingState.start(network, recipe)


def train(
    recipe: Recipe,
    photographs: Path | BatchSource,
    out: Path,
    *,
    resume: bool = False,
    stop_after: int | None = None,
    validation_pairs: Sequence[TestPair] = (),
    state: TrainingState | None = None,
    perceptual: PerceptualLoss | None = None,
) -> TrainingState:
    """Train on a CPU, up to a step if one is given; what is left is the state."""
    state = state or start_state(recipe)
    source = open_source(recipe, photographs) if isinstance(photographs, Path) else photographs
    hooks = LoopHooks(should_stop=lambda: stop_after is not None and state.step >= stop_after)
    with closing(source):
        TrainingLoop(
            recipe,
            source,
            out,
            fabric=launch(recipe, device="cpu"),
            state=state,
            validation_pairs=validation_pairs,
            resume=resume,
            hooks=hooks,
            perceptual=perceptual,
        ).run()
    return state


def log_of(out: Path, *columns: str) -> list[tuple[str, ...]]:
    """Rows of a run's log, by default without its clocks."""
    with (out / "log.csv").open(encoding="utf-8", newline="") as file:
        return [
            tuple(row[column] for column in columns or RESULT_COLUMNS)
            for row in csv.DictReader(file)
        ]


def checkpoints_of(out: Path) -> list[str]:
    """Names of the files in a run's folder of states."""
    return sorted(path.name for path in (out / "checkpoints").iterdir())
