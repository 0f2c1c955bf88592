"""Pairs of patches: aligned, made as named, reproducible, from whatever holds the images."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from escsr.errors import MissingExtraError, RecipeError, TrainingError
from escsr.images.resize import resize_bicubic_uint8
from escsr.training import patches
from escsr.training.batches import BatchSource, PairBatch
from escsr.training.patches import (
    ImagePair,
    PatchPlace,
    cut_patches,
    draw_place,
    random_share,
    to_float,
)
from escsr.training.recipe_file import check_recipe
from tests.training.data_sets import data_recipe, open_data, write_shards
from tests.training.pictures import write_pictures
from tests.training.runs import RECIPE

KINDS = ["folder", "shards"]
SETTINGS: dict[str, Any] = {"scale": 2, "patch_pixels": 12, "batch_size": 4, "seed": 5}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same six pictures in a folder, and in three shards of two."""
    folder = write_pictures(tmp_path_factory.mktemp("pictures"))
    shards = tmp_path_factory.mktemp("shards")
    write_shards(sorted(folder.iterdir()), shards, images_per_shard=2)
    return {"folder": folder, "shards": shards}


def opened(data: Path, **changes: Any) -> BatchSource:
    """A small source of pairs."""
    return open_data(data, **(SETTINGS | changes))


def patches_of(source: BatchSource, step: int) -> tuple[np.ndarray, np.ndarray]:
    """LR and HR of a step, as pixels."""
    batch = source.batch(step)
    assert isinstance(batch, PairBatch)
    return to_pixels(batch.lr_image), to_pixels(batch.target)


def to_pixels(batch: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [0, 1] -> (B, H, W, 3) uint8."""
    return (batch * 255).round().byte().permute(0, 2, 3, 1).numpy()


def numbered_pair(scale: int) -> ImagePair:
    """Every LR pixel has a colour of its own, and HR repeats it: a shifted cut would show."""
    rows, columns = np.mgrid[0:20, 0:30].astype(np.uint8)
    lr_pixels = np.stack((rows, columns, rows + columns), axis=2)
    return ImagePair(lr_pixels.repeat(scale, axis=0).repeat(scale, axis=1), lr_pixels)


@given(scale=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_lr_and_hr_patches_show_the_same_place_in_the_same_orientation(
    scale: int, seed: int
) -> None:
    """Cut, turned and mirrored alike: the HR patch is the LR patch enlarged."""
    settings = data_recipe(scale=scale, patch_pixels=8)
    pair = numbered_pair(scale)
    place = draw_place(np.random.default_rng(seed), 20 * scale, 30 * scale, settings)
    lr_patch, hr_patch = cut_patches(pair, place, settings)
    assert lr_patch.shape == (8, 8, 3)
    assert np.array_equal(hr_patch, lr_patch.repeat(scale, axis=0).repeat(scale, axis=1))


@pytest.mark.parametrize(
    ("augmentation", "orientations"), [("none", 1), ("flips", 2), ("flips-rotations", 8)]
)
def test_augmentation_draws_from_the_orientations_that_it_names(
    augmentation: Any, orientations: int
) -> None:
    """Nothing, left and right exchanged, or all symmetries of the square; all of them occur."""
    settings = data_recipe(scale=2, patch_pixels=8, augmentation=augmentation)
    generator = np.random.default_rng(0)
    pair = ImagePair(*(np.arange(3 * n * n).reshape(n, n, 3).astype(np.uint8) for n in (16, 8)))
    places = [draw_place(generator, 16, 16, settings) for _ in range(80)]
    seen = {cut_patches(pair, place, settings)[0].tobytes() for place in places}
    assert len(seen) == orientations


def test_flips_keep_rows_rows() -> None:
    """The sky stays above: only left and right are exchanged."""
    settings = data_recipe(scale=1, patch_pixels=8, augmentation="flips")
    places = [draw_place(np.random.default_rng(n), 8, 8, settings) for n in range(20)]
    assert {place.quarter_turns for place in places} == {0}
    mirrored, _ = cut_patches(numbered_pair(1), PatchPlace(0, 0, 0, True), settings)
    assert mirrored[0, :, 1].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_matlab_pairs_equal_the_shrunk_hr_patch_away_from_its_borders(
    sets: dict[str, Path], kind: str, scale: int
) -> None:
    """The whole image was shrunk: only where the kernel reaches over the cut do they differ.

    Not turned, since MATLAB rounds after the rows and then after the columns.
    """
    source = opened(sets[kind], scale=scale, batch_size=8, augmentation="none")
    lr_pixels, hr_pixels = patches_of(source, 0)
    source.close()
    for lr_patch, hr_patch in zip(lr_pixels, hr_pixels, strict=True):
        expected = resize_bicubic_uint8(hr_patch, scale=1 / scale)
        assert np.array_equal(lr_patch[2:-2, 2:-2], expected[2:-2, 2:-2])
        assert not np.array_equal(lr_patch, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_matlab_after_crop_is_matlab_of_the_hr_patch(sets: dict[str, Path], kind: str) -> None:
    """Exactly, borders and all, as the network gets it."""
    source = opened(sets[kind], degradation="matlab-after-crop")
    lr_pixels, hr_pixels = patches_of(source, 3)
    source.close()
    for lr_patch, hr_patch in zip(lr_pixels, hr_pixels, strict=True):
        assert np.array_equal(lr_patch, resize_bicubic_uint8(hr_patch, scale=1 / 2))


@pytest.mark.parametrize("kind", KINDS)
def test_pillow_after_crop_is_pillow_of_the_hr_patch(sets: dict[str, Path], kind: str) -> None:
    """The paper's DFLIP data: Pillow's bicubic on uint8, after crop and augmentation."""
    source = opened(sets[kind], degradation="pillow-after-crop", scale=3)
    lr_pixels, hr_pixels = patches_of(source, 3)
    source.close()
    for lr_patch, hr_patch in zip(lr_pixels, hr_pixels, strict=True):
        shrunk = Image.fromarray(hr_patch).resize((12, 12), Image.Resampling.BICUBIC)
        assert np.array_equal(lr_patch, np.asarray(shrunk))


def test_pillow_s_degradation_without_pillow_names_the_extra(
    sets: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said when the data are opened, not at the first step."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"escsr\[train\]"):
        opened(sets["folder"], degradation="pillow-after-crop")
    opened(sets["folder"]).close()


def test_patches_cut_before_shrinking_start_at_any_pixel() -> None:
    """After-crop data are richer: the grid of whole LR pixels does not bind them."""
    settings = data_recipe(scale=4, patch_pixels=4, degradation="pillow-after-crop")
    generator = np.random.default_rng(0)
    tops = {draw_place(generator, 40, 40, settings).top % 4 for _ in range(60)}
    assert tops == {0, 1, 2, 3}


@given(value=st.integers(0, 255))
def test_values_are_those_of_torch_s_division(value: int) -> None:
    """Runs that began when torch divided go on with the same numbers."""
    patch = np.full((1, 1, 3), value, np.uint8)
    expected = torch.tensor(value, dtype=torch.uint8).float().div_(255)
    assert (to_float([patch]) == expected).all()


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_what_the_network_takes(sets: dict[str, Path], kind: str) -> None:
    """float32 in [0, 1], LR beside HR, channels last in memory."""
    source = opened(sets[kind])
    batch = source.batch(0)
    source.close()
    assert isinstance(batch, PairBatch) and batch.real is batch.target
    lr_batch, hr_batch = batch.lr_image, batch.target
    assert lr_batch.shape == (4, 3, 12, 12) and hr_batch.shape == (4, 3, 24, 24)
    for images in (lr_batch, hr_batch):
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.min() >= 0 and 0.5 < images.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_depends_on_seed_and_step_alone(sets: dict[str, Path], kind: str) -> None:
    """A source opened anew at step n gives what one that came there step by step gives."""
    first, again, other = opened(sets[kind]), opened(sets[kind]), opened(sets[kind], seed=6)
    for step in range(7):
        first.batch(step)
    assert torch.equal(first.batch(7).tensors[1], again.batch(7).tensors[1])
    assert not torch.equal(first.batch(7).tensors[1], first.batch(8).tensors[1])
    assert not torch.equal(first.batch(7).tensors[1], other.batch(7).tensors[1])
    for source in (first, again, other):
        source.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("degradation", ["matlab", "matlab-after-crop"])
def test_the_cache_changes_no_batch(sets: dict[str, Path], kind: str, degradation: Any) -> None:
    """Nothing kept, some kept, all kept: the same pairs."""
    sources = [
        opened(sets[kind], cache_bytes=budget, degradation=degradation)
        for budget in (0, 50_000, 10**9)
    ]
    for step in range(5):
        batches = [source.batch(step).tensors for source in sources]
        for lr_batch, hr_batch, _ in batches[1:]:
            assert torch.equal(lr_batch, batches[0][0]) and torch.equal(hr_batch, batches[0][1])
    for source in sources:
        source.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_shares_of_all_ranks_are_the_whole_batch(
    sets: dict[str, Path], kind: str, world_size: int
) -> None:
    """Two processes see together what one would see."""
    source = opened(sets[kind])
    for step in range(3):
        shares = [
            source.batch(step, rank=rank, world_size=world_size).tensors
            for rank in range(world_size)
        ]
        whole_batch = source.batch(step).tensors
        for whole, parts in zip(whole_batch, zip(*shares, strict=True), strict=True):
            assert torch.equal(torch.cat(parts), whole)
    source.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_cannot_be_shared_evenly_is_an_error(sets: dict[str, Path], kind: str) -> None:
    """Rather than dropping or repeating pairs."""
    source = opened(sets[kind])
    with pytest.raises(TrainingError, match=r"batch of 4 pairs .* 3 processes"):
        source.batch(0, rank=0, world_size=3)
    source.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_takes_the_first_images_only(sets: dict[str, Path], kind: str) -> None:
    """For a rehearsal."""
    source = opened(sets[kind], image_limit=2)
    assert source.image_count == 2
    source.batch(0)
    source.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_the_images_is_counted_in_images(sets: dict[str, Path], kind: str) -> None:
    """A third of six is two."""
    sources = [opened(sets[kind], share=share) for share in (1 / 3, 2 / 3, 1.0)]
    assert [source.image_count for source in sources] == [2, 4, 6]
    for source in sources:
        source.batch(0)
        source.close()


@given(
    number=st.integers(1, 200),
    seed=st.integers(0, 99),
    shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_a_smaller_share_is_part_of_a_larger_one(
    number: int, seed: int, shares: tuple[float, float]
) -> None:
    """So an experiment on the amount of data adds images and exchanges none."""
    smaller, larger = (
        random_share(number, data_recipe(seed=seed, share=share)) for share in sorted(shares)
    )
    assert 1 <= len(smaller) <= len(larger) <= number
    assert set(smaller) <= set(larger)
    assert smaller == sorted(smaller)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_a_share_that_cannot_be_is_refused(share: float) -> None:
    """With what is allowed."""
    with pytest.raises(RecipeError, match=r"data\.share = .*(greater than 0|equal to 1)"):
        check_recipe(RECIPE | {"data": {"share": share}}, origin="the tests")


def test_after_crop_pairs_take_no_memory_for_lr(sets: dict[str, Path]) -> None:
    """The LR version of a whole image is made only where patches are cut from it."""
    pixels = np.zeros((20, 20, 3), np.uint8)
    after = patches.make_pair(
        pixels, data_recipe(scale=2, patch_pixels=4, degradation="matlab-after-crop")
    )
    before = patches.make_pair(pixels, data_recipe(scale=2, patch_pixels=4))
    assert (after.size_bytes, before.size_bytes) == (1200, 1500)
