"""Training sets of the tests: tar shards as webdataset writes them, and sources of batches."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import webdataset

from escsr.training.batches import BatchSource
from escsr.training.data import open_training_data
from escsr.training.recipe import DegradationRecipe, Recipe
from escsr.training.recipe_file import check_recipe
from tests.training.runs import RECIPE, changed

OPTIONS = ("image_limit", "cache_bytes", "on_loaded")
"""Of ``open_training_data``; what else tests give is of the recipe."""


def data_recipe(
    *, scale: int = 2, seed: int = 0, degraded_pixels: int = 400, **data: Any
) -> Recipe:
    """A recipe of which only the data are used; unchecked, so that patches may be small."""
    recipe = check_recipe(RECIPE, origin="the tests")
    degradation = DegradationRecipe(degraded_pixels=degraded_pixels)
    return changed(recipe, scale=scale, seed=seed, data=data, degradation=dict(degradation))


def open_data(data: Any, **settings: Any) -> BatchSource:
    """Open a training set by values of ``[data]``, scale, seed, and options of opening."""
    options = {name: settings.pop(name) for name in OPTIONS if name in settings}
    return open_training_data(data_recipe(**settings), data, **options)


def write_shards(images: Iterable[Path], folder: Path, *, images_per_shard: int = 1000) -> None:
    """Pack image files, as they are, into ``folder/shard-000000.tar`` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    pattern = str(folder / "shard-%06d.tar")
    with webdataset.ShardWriter(
        pattern, maxcount=images_per_shard, maxsize=float("inf"), verbose=0
    ) as writer:
        for number, path in enumerate(images):
            writer.write({"__key__": f"{number:08d}", path.suffix[1:].lower(): path.read_bytes()})
