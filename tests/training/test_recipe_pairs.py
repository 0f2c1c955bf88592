"""The pairs of a recipe are those that its ``[data]`` says."""

import sys
from pathlib import Path

import pytest
import torch

from escsr.errors import MissingExtraError
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


def test_photographs_to_degrade_have_the_side_that_the_recipe_says(
    recipe: Recipe, tmp_path: Path
) -> None:
    """``degradation.degraded_pixels``; smaller photographs are extended to it."""
    folder = write_pictures(tmp_path / "photographs")
    chosen = changed(
        recipe, data={"degradation": "second-order"}, degradation={"degraded_pixels": 72}
    )
    _, photographs = open_recipe_pairs(chosen, folder).batch(0)
    assert photographs.shape == (4, 3, 72, 72)


def test_a_batch_for_any_scale_has_as_many_queries_as_the_recipe_says(
    recipe: Recipe, tmp_path: Path
) -> None:
    """``data.query_pixels``, of crops up to ``scale`` times as large as the patch."""
    folder = write_pictures(tmp_path / "photographs")
    data = {"degradation": "pillow-any-scale", "query_pixels": 20}
    lr_batch, queries = open_recipe_pairs(changed(recipe, data=data), folder).batch(0)
    assert lr_batch.shape == (4, 3, 8, 8)
    assert queries.shape[:2] == (4, 20)


def test_without_pillow_a_recipe_that_needs_it_is_refused_before_images_are_read(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    for degradation in ("pillow-after-crop", "pillow-any-scale"):
        chosen = changed(recipe, data={"degradation": degradation})
        with pytest.raises(MissingExtraError, match=r"LR made by Pillow .* 'escsr\[train\]'"):
            open_recipe_pairs(chosen, tmp_path / "is not there")
