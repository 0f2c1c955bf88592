"""Photographs to degrade later: cut large, extended where they are too small, only mirrored."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from escsr.errors import TrainingError
from escsr.images.writer import write_image
from escsr.training.data.pairs import PairSource, open_pairs
from escsr.training.data.patches import ImagePair, PatchPlace, PatchSettings, cut_patches
from escsr.training.data.shard_files import write_shards
from tests.training.data.pictures import picture, write_pictures

SETTINGS = PatchSettings(
    scale=4, patch_pixels=8, degradation="second-order", augmentation="flips", degraded_pixels=64
)


@pytest.fixture(scope="module", params=["folder", "shards"])
def source(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PairSource]:
    """Pictures of 60x90 to 75x70 pixels, cut to 64x64."""
    data = write_pictures(tmp_path_factory.mktemp("pictures"))
    if request.param == "shards":
        shards = tmp_path_factory.mktemp("shards")
        write_shards(sorted(data.iterdir()), shards, images_per_shard=2)
        data = shards
    opened = open_pairs(
        data,
        scale=4,
        patch_pixels=8,
        batch_size=4,
        seed=5,
        degradation="second-order",
        augmentation="flips",
        degraded_pixels=64,
    )
    with closing(opened):
        yield opened


def test_folders_and_shards_deliver_photographs_without_lr(source: PairSource) -> None:
    """LR is empty: the device makes it. Those below 64 pixels, above a patch of 32, are used."""
    lr_batch, photographs = source.batch(0)
    assert lr_batch.shape == (4, 3, 0, 0)
    assert photographs.shape == (4, 3, 64, 64)
    assert photographs.dtype == torch.float32
    assert source.image_count == 6


def test_processes_share_the_photographs_of_a_step(source: PairSource) -> None:
    """One after the other they are the batch of one process."""
    parts = [source.batch(3, rank=rank, world_size=2)[1] for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), source.batch(3)[1])


def test_a_small_photograph_is_reflected_at_the_bottom_and_right() -> None:
    """40 x 70 pixels become 64 x 64: row 40 is row 38."""
    pixels = picture(0, height=40, width=70).astype(np.uint8)
    _, cut = cut_patches(ImagePair(pixels, None), PatchPlace(0, 3, 0, False), SETTINGS)
    assert cut.shape == (64, 64, 3)
    assert (cut[:40] == pixels[:, 3:67]).all()
    assert (cut[40] == cut[38]).all()
    assert (cut[63] == cut[15]).all()


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_photographs_smaller_than_a_patch_are_used(tmp_path: Path, kind: str) -> None:
    """Of 3 x 20 pixels, where an HR patch has 32 and an LR pixel stands for 4."""
    data = tmp_path / "small"
    data.mkdir()
    write_image(data / "small.png", picture(0, height=3, width=20))
    if kind == "shards":
        write_shards([data / "small.png"], tmp_path / "shards", images_per_shard=2)
        data = tmp_path / "shards"
    source = open_pairs(
        data,
        scale=4,
        patch_pixels=8,
        batch_size=2,
        seed=5,
        degradation="second-order",
        augmentation="none",
        degraded_pixels=64,
    )
    with closing(source):
        _, photographs = source.batch(0)
    assert source.image_count == 1
    assert photographs.shape == (2, 3, 64, 64)
    assert torch.equal(photographs[..., 0, :], photographs[..., 4, :])


def test_photographs_that_are_all_broken_are_told_without_a_size(tmp_path: Path) -> None:
    """None is needed."""
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"None of the 1 images can be read\. The log says"):
        open_pairs(
            tmp_path, scale=4, patch_pixels=8, batch_size=2, seed=5, degradation="second-order"
        )


def test_photographs_are_mirrored_but_not_turned(tmp_path: Path) -> None:
    """A picture that darkens downwards does so in every batch; some go from right to left."""
    rows, columns = np.mgrid[0:64, 0:64]
    wedge = np.stack([3 * rows, 3 * columns, 0 * rows], axis=-1).astype(np.uint8)
    write_image(tmp_path / "wedge.png", wedge)
    source = open_pairs(
        tmp_path,
        scale=4,
        patch_pixels=8,
        batch_size=16,
        seed=5,
        degradation="second-order",
        augmentation="flips",
        degraded_pixels=64,
    )
    _, photographs = source.batch(0)
    assert (photographs[:, 0].diff(dim=-2) > 0).all()
    rises = (photographs[:, 1].diff(dim=-1) > 0).all(dim=(1, 2))
    assert 2 <= int(rises.sum()) <= 14
