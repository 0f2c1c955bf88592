"""The pairs of a recipe are those that its ``[data]`` says."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from escsr.errors import MissingExtraError
from escsr.images.resize import resize_bicubic_uint8
from escsr.images.writer import write_image
from escsr.training.batches import PairBatch, QueryBatch
from escsr.training.data import open_training_data
from escsr.training.recipe import Recipe
from tests.training.pictures import write_pictures
from tests.training.runs import changed


def test_every_value_of_the_data_table_reaches_the_pairs(recipe: Recipe, tmp_path: Path) -> None:
    """Scale and seed, too: how many, how large, of which images, made and turned as it says."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(6):  # darker to the right: patches tell whether they were turned
        columns = np.mgrid[0:60, 0:80][1] * 2 + number
        write_image(folder / f"{number}.png", np.stack((columns,) * 3, 2).astype(np.uint8))
    data = {
        "batch_size": 3,
        "patch_pixels": 9,
        "degradation": "matlab-after-crop",
        "augmentation": "none",
        "share": 0.5,
    }
    source = open_training_data(changed(recipe, scale=3, seed=5, data=data), folder)
    assert source.image_count == 3
    batch = source.batch(2)
    assert isinstance(batch, PairBatch)
    assert batch.lr_image.shape == (3, 3, 9, 9) and batch.target.shape == (3, 3, 27, 27)
    assert (batch.target.diff(dim=-1) > 0).all() and (batch.target.diff(dim=-2) == 0).all()
    lr_pixels, hr_pixels = (
        (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for images in (batch.lr_image, batch.target)
    )
    for lr_patch, hr_patch in zip(lr_pixels, hr_pixels, strict=True):
        assert np.array_equal(lr_patch, resize_bicubic_uint8(hr_patch, scale=1 / 3))
    other = open_training_data(changed(recipe, scale=3, seed=6, data=data), folder)
    assert not torch.equal(other.batch(2).tensors[1], batch.target)


def test_photographs_to_degrade_have_the_side_that_the_recipe_says(
    recipe: Recipe, tmp_path: Path
) -> None:
    """``degradation.degraded_pixels``; smaller photographs are extended to it."""
    folder = write_pictures(tmp_path / "photographs")
    chosen = changed(
        recipe, data={"degradation": "second-order"}, degradation={"degraded_pixels": 72}
    )
    (photographs,) = open_training_data(chosen, folder).batch(0).tensors
    assert photographs.shape == (4, 3, 72, 72)


def test_a_batch_for_any_scale_has_as_many_queries_as_the_recipe_says(
    recipe: Recipe, tmp_path: Path
) -> None:
    """``data.query_pixels``, of crops up to ``scale`` times as large as the patch."""
    folder = write_pictures(tmp_path / "photographs")
    data = {"degradation": "pillow-any-scale", "query_pixels": 20}
    batch = open_training_data(changed(recipe, data=data), folder).batch(0)
    assert isinstance(batch, QueryBatch)
    assert batch.lr_image.shape == (4, 3, 8, 8)
    assert batch.coordinates.shape == (4, 20, 2)


def test_without_pillow_a_recipe_that_needs_it_is_refused_before_images_are_read(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    for degradation in ("pillow-after-crop", "pillow-any-scale"):
        chosen = changed(recipe, data={"degradation": degradation})
        with pytest.raises(MissingExtraError, match=r"LR made by Pillow .* 'escsr\[train\]'"):
            open_training_data(chosen, tmp_path / "is not there")
