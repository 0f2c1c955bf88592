"""A dry run: everything that a recipe does, on as little as possible."""

from pathlib import Path

import numpy as np

from escsr.images.writer import write_image
from escsr.training.degradation.degradation_recipe import DegradationRecipe
from escsr.training.recipe import Recipe

REHEARSAL_IMAGES = 2
_STEPS = 2
_PATCH_PIXELS = 16


def rehearsed(recipe: Recipe, *, processes: int = 1) -> Recipe:
    """The recipe with two steps, each logged and judged; smaller are only batch, patch and pool.

    Args:
        recipe: the real one.
        processes: that train together; each gets at least one pair per micro-batch.
    """
    parts = processes * recipe.optimizer.micro_batches
    batch_size = recipe.data.batch_size
    if batch_size % parts == 0:  # else the step says what is wrong, as it would in the real run
        batch_size = min(batch_size, 2 * parts)
    data = {
        "batch_size": batch_size,
        "patch_pixels": min(recipe.data.patch_pixels, _PATCH_PIXELS),
        "share": 1.0,
    }
    watch = {"log_every_steps": 1, "validate_every_steps": 1, "checkpoint_every_seconds": 1e-9}
    return recipe.model_copy(
        update={
            "steps": _STEPS,
            "data": recipe.data.model_copy(update=data),
            "degradation": _rehearsed_degradation(recipe, batch_size // processes),
            "watch": recipe.watch.model_copy(update=watch),
        }
    )


def _rehearsed_degradation(recipe: Recipe, batch_size: int) -> DegradationRecipe:
    """Of what the made photographs have, with a pool that the second step draws from."""
    degradation = recipe.degradation
    if recipe.data.degradation != "second-order":
        return degradation
    side = min(degradation.degraded_pixels, 2 * _PATCH_PIXELS * recipe.scale)
    pool_pairs = min(degradation.pool_pairs, batch_size)
    return degradation.model_copy(update={"degraded_pixels": side, "pool_pairs": pool_pairs})


def make_photographs(folder: Path, *, side_pixels: int) -> None:
    """Write a few pictures to rehearse with where no data is given: waves and noise, one grey."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:side_pixels, 0:side_pixels]
    for number in range(REHEARSAL_IMAGES):
        wave = 120 + 60 * np.sin(rows / (5 + number)) * np.cos(columns / 7)
        noise = generator.normal(0, 10, (side_pixels, side_pixels, 1 if number == 0 else 3))
        pixels = (wave[..., None] + noise).clip(0, 255).astype(np.uint8)
        write_image(folder / f"{number}.png", pixels)
