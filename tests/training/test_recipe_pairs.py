"""The pairs of a recipe are those that its ``[data]`` says."""

from pathlib import Path

import torch

from escsr.training.data.pairs import open_pairs
from escsr.training.recipe import Recipe
from escsr.training.recipe_pairs import open_recipe_pairs
from tests.training.data.pictures import write_pictures
from tests.training.runs import changed


def test_every_value_of_the_data_table_reaches_the_pairs(recipe: Recipe, tmp_path: Path) -> None:
    """Scale and seed, too: the batch is that of a source opened by hand."""
    folder = write_pictures(tmp_path / "photographs")
    data = {
        "batch_size": 3,
        "patch_pixels": 9,
        "degradation": "matlab-after-crop",
        "augmentation": "none",
        "share": 0.5,
    }
    of_recipe = open_recipe_pairs(changed(recipe, scale=3, seed=5, data=data), folder)
    by_hand = open_pairs(
        folder,
        scale=3,
        patch_pixels=9,
        batch_size=3,
        seed=5,
        degradation="matlab-after-crop",
        augmentation="none",
        share=0.5,
    )
    assert of_recipe.image_count == by_hand.image_count == 3
    for of_one, of_other in zip(of_recipe.batch(2), by_hand.batch(2), strict=True):
        assert torch.equal(of_one, of_other)
