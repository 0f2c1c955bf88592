"""Queries for training at any scale: repeatable, of one place, and made as named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from escsr.errors import TrainingError
from escsr.training.arbitrary_scale import QUERY_VALUES, QuerySource, draw_queries
from escsr.training.batches import BatchSource, QueryBatch
from escsr.training.data import open_training_data
from escsr.training.recipe import Recipe
from escsr.training.recipe_file import check_recipe
from tests.training.data_sets import data_recipe, write_shards
from tests.training.pictures import picture, write_pictures
from tests.training.runs import RECIPE, changed

KINDS = ["folder", "shards"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same six pictures in a folder, and in three shards of two."""
    folder = write_pictures(tmp_path_factory.mktemp("pictures"))
    shards = tmp_path_factory.mktemp("shards")
    write_shards(sorted(folder.iterdir()), shards, images_per_shard=2)
    return {"folder": folder, "shards": shards}


@pytest.fixture
def recipe() -> Recipe:
    """Patches of 8 LR pixels at x1 to x4, 20 queries each."""
    data = {"batch_size": 4, "patch_pixels": 8, "degradation": "pillow-any-scale"}
    values = RECIPE | {"model": "esc-lte", "scale": 4, "data": data | {"query_pixels": 20}}
    return check_recipe(values, origin="the tests")


def opened(recipe: Recipe, data: Path, **changes: Any) -> BatchSource:
    """The recipe's source of queries."""
    return open_training_data(changed(recipe, **changes), data, cache_bytes=1 << 20)


@given(seed=st.integers(0, 2**32), patch=st.integers(4, 12), queries=st.integers(1, 200))
def test_queries_name_the_pixels_of_the_crop_that_lr_was_made_of(
    seed: int, patch: int, queries: int
) -> None:
    """Each place, by its coordinates and cell, leads back to the colour; LR is Pillow's."""
    settings = data_recipe(patch_pixels=patch, scale=4, query_pixels=queries)
    side = 4 * patch
    photograph = picture(seed % 50, height=side, width=side)
    lr_patch, drawn = draw_queries(photograph, np.random.default_rng(seed), settings)
    assert lr_patch.shape == (patch, patch, 3) and lr_patch.dtype == np.uint8
    assert drawn.shape == (min(queries, patch**2), QUERY_VALUES) and drawn.dtype == np.float32
    crop_side = round(2 / float(drawn[0, 2]))
    assert patch <= crop_side <= side
    assert (drawn[:, 2:4] == np.float32(2 / crop_side)).all()
    pixels = ((drawn[:, :2].astype(np.float64) + 1) * crop_side - 1) / 2
    rows, columns = np.rint(pixels).astype(int).T
    assert np.abs(pixels - np.rint(pixels)).max() < 1e-4  # float32 coordinates
    assert len(set(zip(rows, columns, strict=True))) == len(drawn)
    crop = _the_crop_of(photograph, lr_patch, crop_side)
    assert (np.rint(drawn[:, 4:] * 255) == crop[rows, columns]).all()


def _the_crop_of(photograph: np.ndarray, lr_patch: np.ndarray, side: int) -> np.ndarray:
    """The only crop of that side that Pillow shrinks to the patch."""
    places = range(photograph.shape[0] - side + 1)
    for top in places:
        for left in places:
            crop = np.ascontiguousarray(photograph[top : top + side, left : left + side])
            size = lr_patch.shape[:2]
            shrunk = np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.BICUBIC))
            if np.array_equal(shrunk, lr_patch):
                return crop
    raise AssertionError("no crop of the photograph makes this patch")


def test_scales_are_drawn_evenly_between_one_and_the_largest() -> None:
    """A thousand draws: both ends occur, and each quarter of the range takes a quarter."""
    settings = data_recipe(patch_pixels=16, scale=4, query_pixels=1)
    photograph = picture(0, height=64, width=64)
    generator = np.random.default_rng(0)
    sides = [2 / float(draw_queries(photograph, generator, settings)[1][0, 2]) for _ in range(1000)]
    counts, _ = np.histogram(sides, bins=4, range=(16, 64))
    assert min(sides) < 17 and max(sides) > 63
    assert (np.abs(counts - 250) < 50).all()  # 3.6 standard deviations of a binomial count


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_what_the_network_takes(
    recipe: Recipe, sets: dict[str, Path], kind: str
) -> None:
    """Patches in [0, 1], places in (-1, 1), targets normalised to [-1, 1]."""
    source = opened(recipe, sets[kind])
    batch = source.batch(0)
    source.close()
    assert isinstance(batch, QueryBatch)
    assert batch.lr_image.shape == (4, 3, 8, 8)
    assert batch.lr_image.is_contiguous(memory_format=torch.channels_last)
    assert 0 <= batch.lr_image.min() and batch.lr_image.max() <= 1
    assert batch.coordinates.shape == (4, 20, 2) and batch.coordinates.abs().max() < 1
    assert batch.cell.shape == (4, 2)
    assert batch.target.shape == (4, 20, 3)
    assert -1 <= batch.target.min() < 0 < batch.target.max() <= 1
    assert len(batch.cell[:, 0].unique()) == 4  # each photograph has a scale of its own


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_depends_on_seed_and_step_alone(
    recipe: Recipe, sets: dict[str, Path], kind: str
) -> None:
    """A source opened anew at a step gives what one that came there step by step gives."""
    first, again = opened(recipe, sets[kind]), opened(recipe, sets[kind])
    other = opened(recipe, sets[kind], seed=6)
    for step in range(3):
        first.batch(step)
    for ours, theirs in zip(first.batch(3).tensors, again.batch(3).tensors, strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(first.batch(3).tensors[1], first.batch(4).tensors[1])
    assert not torch.equal(first.batch(3).tensors[1], other.batch(3).tensors[1])
    for source in (first, again, other):
        source.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_shares_of_all_ranks_are_the_whole_batch(
    recipe: Recipe, sets: dict[str, Path], kind: str
) -> None:
    """Two processes see together what one would see."""
    source = opened(recipe, sets[kind])
    shares = [source.batch(2, rank=rank, world_size=2).tensors for rank in range(2)]
    for whole, parts in zip(source.batch(2).tensors, zip(*shares, strict=True), strict=True):
        assert torch.equal(torch.cat(parts), whole)
    with pytest.raises(TrainingError, match="3 processes"):
        source.batch(0, world_size=3)
    source.close()


def test_parts_of_a_batch_are_the_batch(recipe: Recipe, sets: dict[str, Path]) -> None:
    """For micro-batches: everything is cut alike."""
    source = opened(recipe, sets["folder"])
    assert isinstance(source, QuerySource) and source.image_count == 6
    batch = source.batch(0).to(torch.device("cpu"))
    source.close()
    parts = list(batch.parts(2))
    for name in ("lr_image", "coordinates", "cell", "target", "real"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
