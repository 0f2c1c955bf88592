"""Photographs become batches that depend on the seed, the step and the rank alone."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from escsr.training.batches import PairBatch, PhotographBatch
from escsr.training.degradation import sharpen
from escsr.training.degraded_batches import DegradedBatches, open_degraded_batches
from escsr.training.pictures import degradation_picture
from escsr.training.recipe import Recipe
from escsr.training.recipe_file import check_recipe
from tests.training.degradation.test_second_order import NOTHING
from tests.training.images import psnr_db, smooth_images
from tests.training.runs import RECIPE

MILD = {"first": NOTHING, "second": NOTHING, "final_sinc_chance": 0}


def recipe_with(**degradation: object) -> Recipe:
    """Patches of 8 LR pixels x2 out of photographs of 48."""
    values = {"degraded_pixels": 48, "pool_pairs": 6, **degradation}
    data = {"degradation": "second-order", "batch_size": 2, "patch_pixels": 8}
    return check_recipe(RECIPE | {"data": data, "degradation": values}, origin="the tests")


def photographs_of(step: int) -> Tensor:
    """Two photographs that no other step has."""
    return smooth_images(2, side=48).roll((step, 3 * step), dims=(-2, -1))


SOURCE = SimpleNamespace(batch=lambda step, **_: PhotographBatch(photographs_of(step)))
"""Stands for a training set."""


def batches_of(recipe: Recipe, *, rank: int = 0) -> DegradedBatches:
    """Of a process of its own."""
    return DegradedBatches(recipe, SOURCE, device=torch.device("cpu"), rank=rank)  # pyright: ignore[reportArgumentType]


def batch_of(batches: DegradedBatches, step: int) -> PairBatch:
    """As a training loop asks for it."""
    return batches.batch(step, PhotographBatch(photographs_of(step)))


def test_lr_real_and_target_show_the_same_patch() -> None:
    """Through cropping and the pool: LR enlarged is the real patch, the target its sharpening."""
    recipe = recipe_with(**MILD, usm_weight=0.1)
    batches = batches_of(recipe)
    for step in range(8):
        batch = batch_of(batches, step)
        assert batch.lr_image.shape == (2, 3, 8, 8)
        assert batch.real.shape == batch.target.shape == (2, 3, 16, 16)
        for image in range(2):
            enlarged = F.interpolate(batch.lr_image, scale_factor=2, mode="bilinear")
            figures = [psnr_db(enlarged[image], real) for real in batch.real]
            assert figures[image] > 22
            assert max(figures) == figures[image]
        torch.testing.assert_close(batch.target, sharpen(batch.real, weight=0.1))


def test_a_batch_is_laid_out_as_the_network_wants_it() -> None:
    """channels_last."""
    batch = batch_of(batches_of(recipe_with()), 0)
    for images in (batch.lr_image, batch.target, batch.real):
        assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("step", [1, 3, 9])
def test_whoever_begins_at_a_step_gets_what_a_run_would_have_there(step: int) -> None:
    """The pool is made again, bit by bit: so a run goes on exactly."""
    recipe = recipe_with()
    going_on = batches_of(recipe)
    for earlier in range(step):
        batch_of(going_on, earlier)
    again = batches_of(recipe)
    for later in range(step, step + 4):
        expected, came = batch_of(going_on, later), batch_of(again, later)
        assert torch.equal(came.lr_image, expected.lr_image)
        assert torch.equal(came.real, expected.real)
        assert torch.equal(came.target, expected.target)


def test_ranks_degrade_the_same_photographs_differently() -> None:
    """Each process draws for itself."""
    recipe = recipe_with()
    first, second = (batch_of(batches_of(recipe, rank=rank), 0) for rank in (0, 1))
    assert not torch.equal(first.lr_image, second.lr_image)


def test_on_a_mac_its_cpu_degrades() -> None:
    """MPS lacks what noise and resizing need; the fabric of a Mac is stood for by its device."""
    fabric = SimpleNamespace(device=torch.device("mps"), global_rank=0, world_size=1)
    batches = open_degraded_batches(recipe_with(), SOURCE, fabric)  # pyright: ignore[reportArgumentType]
    assert batches is not None
    assert batch_of(batches, 0).lr_image.device == torch.device("cpu")


def test_a_preview_shows_each_photograph_in_every_column() -> None:
    """Two rows of 48 pixels, seven columns, a line of titles, and gaps of 6."""
    picture = degradation_picture(recipe_with(), photographs_of(0))
    assert picture.shape == (24 + 2 * (48 + 6), 6 + 7 * (48 + 6), 3)
    assert picture[:24].min() < 100  # there are words
    hr_pixels = (photographs_of(0)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    assert (picture[24 : 24 + 48, 6 : 6 + 48] == hr_pixels).all()
