"""Photographs to degrade later: cut large, extended where they are too small, only mirrored."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from escsr.errors import TrainingError
from escsr.images.writer import write_image
from escsr.training.batches import BatchSource, PhotographBatch
from escsr.training.patches import ImagePair, PatchPlace, cut_patches
from tests.training.data_sets import data_recipe, open_data, write_shards
from tests.training.pictures import picture, write_pictures

SETTINGS: dict[str, Any] = {
    "scale": 4,
    "patch_pixels": 8,
    "batch_size": 4,
    "seed": 5,
    "degradation": "second-order",
    "augmentation": "flips",
    "degraded_pixels": 64,
}


def photographs_of(source: BatchSource, step: int = 0, **share: int) -> Tensor:
    """Those of a step: a batch that holds nothing else."""
    batch = source.batch(step, **share)
    assert isinstance(batch, PhotographBatch)
    return batch.photographs


@pytest.fixture(scope="module", params=["folder", "shards"])
def source(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BatchSource]:
    """Pictures of 60x90 to 75x70 pixels, cut to 64x64."""
    data = write_pictures(tmp_path_factory.mktemp("pictures"))
    if request.param == "shards":
        shards = tmp_path_factory.mktemp("shards")
        write_shards(sorted(data.iterdir()), shards, images_per_shard=2)
        data = shards
    with closing(open_data(data, **SETTINGS)) as opened:
        yield opened


def test_folders_and_shards_deliver_photographs_without_lr(source: BatchSource) -> None:
    """The device makes LR. Those below 64 pixels, above a patch of 32, are used."""
    photographs = photographs_of(source)
    assert photographs.shape == (4, 3, 64, 64)
    assert photographs.dtype == torch.float32
    assert source.image_count == 6


def test_processes_share_the_photographs_of_a_step(source: BatchSource) -> None:
    """One after the other they are the batch of one process."""
    parts = [photographs_of(source, 3, rank=rank, world_size=2) for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), photographs_of(source, 3))


def test_a_small_photograph_is_reflected_at_the_bottom_and_right() -> None:
    """40 x 70 pixels become 64 x 64: row 40 is row 38."""
    pixels = picture(0, height=40, width=70).astype(np.uint8)
    recipe = data_recipe(**SETTINGS)
    lr_patch, cut = cut_patches(ImagePair(pixels, None), PatchPlace(0, 3, 0, False), recipe)
    assert lr_patch is None
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
    changes = {"batch_size": 2, "augmentation": "none"}
    with closing(open_data(data, **(SETTINGS | changes))) as source:
        photographs = photographs_of(source)
    assert source.image_count == 1
    assert photographs.shape == (2, 3, 64, 64)
    assert torch.equal(photographs[..., 0, :], photographs[..., 4, :])


def test_photographs_that_are_all_broken_are_told_without_a_size(tmp_path: Path) -> None:
    """None is needed."""
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"None of the 1 images can be read\. The log says"):
        open_data(tmp_path, **SETTINGS)


def test_photographs_are_mirrored_but_not_turned(tmp_path: Path) -> None:
    """A picture that darkens downwards does so in every batch; some go from right to left."""
    rows, columns = np.mgrid[0:64, 0:64]
    wedge = np.stack([3 * rows, 3 * columns, 0 * rows], axis=-1).astype(np.uint8)
    write_image(tmp_path / "wedge.png", wedge)
    photographs = photographs_of(open_data(tmp_path, **(SETTINGS | {"batch_size": 16})))
    assert (photographs[:, 0].diff(dim=-2) > 0).all()
    rises = (photographs[:, 1].diff(dim=-1) > 0).all(dim=(1, 2))
    assert 2 <= int(rises.sum()) <= 14
