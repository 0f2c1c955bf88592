"""Typed batches: each kind of training has its own, and what is one tensor stays one."""

from pathlib import Path

import pytest
import torch

from escsr.training.batches import PairBatch, PhotographBatch, QueryBatch
from escsr.training.recipe import Degradation
from tests.training.data_sets import open_data

TYPES = {"pairs": PairBatch, "photographs": PhotographBatch, "queries": QueryBatch}


@pytest.mark.parametrize(
    ("degradation", "kind"),
    [
        ("matlab", "pairs"),
        ("matlab-after-crop", "pairs"),
        ("pillow-after-crop", "pairs"),
        ("pillow-any-scale", "queries"),
        ("second-order", "photographs"),
    ],
)
def test_every_degradation_has_the_batches_of_its_kind(
    photographs: Path, degradation: Degradation, kind: str
) -> None:
    """As many images of each tensor as the batch has."""
    batch = open_data(photographs, degradation=degradation, patch_pixels=8, batch_size=3).batch(0)
    assert type(batch) is TYPES[kind]
    assert {len(tensor) for tensor in batch.tensors} == {3}


def test_target_and_real_stay_one_tensor_on_a_device() -> None:
    """Copied once and not twice; of real-world training, where they differ, both are copied."""
    lr_batch, hr_batch = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 8, 8)
    moved = PairBatch.of_patches(lr_batch, hr_batch).to(torch.device("meta"))
    assert moved.real is moved.target and moved.target.device.type == "meta"
    sharpened = PairBatch(lr_batch, hr_batch.sqrt(), hr_batch).to(torch.device("cpu"))
    assert torch.equal(sharpened.target, hr_batch.sqrt()) and torch.equal(sharpened.real, hr_batch)


def test_parts_of_a_batch_are_the_batch() -> None:
    """In their order, all tensors cut alike."""
    batch = PairBatch(*(torch.rand(6, 3, side, side) for side in (4, 8, 8)))
    parts = list(batch.parts(3))
    assert [len(part.lr_image) for part in parts] == [2, 2, 2]
    columns = zip(*(part.tensors for part in parts), strict=True)
    for whole, pieces in zip(batch.tensors, columns, strict=True):
        assert torch.equal(torch.cat(pieces), whole)
