"""Patches: aligned, reproducible, and made of what can be read."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from escsr.errors import TrainingError
from escsr.images.resize import resize_bicubic_uint8
from escsr.training.pairs import ImagePair, PatchSampler, load_pairs


def sampler(pairs: list[ImagePair], *, scale: int = 2, seed: int = 0) -> PatchSampler:
    """Batches of three 8-pixel patches."""
    return PatchSampler(pairs, scale=scale, patch_pixels=8, batch_size=3, seed=seed)


def numbered_pair(scale: int) -> ImagePair:
    """Every LR pixel has a colour of its own, and HR repeats it: a shifted cut would show."""
    rows, columns = np.mgrid[0:20, 0:30].astype(np.uint8)
    lr_pixels = np.stack((rows, columns, rows + columns), axis=2)
    hr_pixels = lr_pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    return ImagePair(hr_pixels, lr_pixels)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_lr_and_hr_patches_show_the_same_place_in_the_same_orientation(scale: int) -> None:
    """Cut, flipped and turned alike: the HR patch is the LR patch enlarged."""
    batches = sampler([numbered_pair(scale)], scale=scale)
    for step in range(8):
        lr_batch, hr_batch = batches.batch(step)
        enlarged = lr_batch.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        torch.testing.assert_close(hr_batch, enlarged, rtol=0, atol=0)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    """A resumed run needs no random state: step n is step n."""
    pairs = [numbered_pair(2)]
    first, again = sampler(pairs), sampler(pairs)
    for _ in range(3):
        first.batch(0)
    assert torch.equal(first.batch(7)[0], again.batch(7)[0])
    assert not torch.equal(first.batch(7)[0], first.batch(8)[0])
    assert not torch.equal(first.batch(7)[0], sampler(pairs, seed=1).batch(7)[0])


def test_all_eight_orientations_occur() -> None:
    """Flips and quarter turns: the corner pixel of a patch travels to all corners, both ways."""
    orientations = set()
    for step in range(60):
        for patch in sampler([numbered_pair(2)]).batch(step)[0]:
            row_wise = int(torch.sign(patch[0, 1, 0] - patch[0, 0, 0]))
            column_wise = int(torch.sign(patch[0, 0, 1] - patch[0, 0, 0]))
            other_row = int(torch.sign(patch[1, 1, 0] - patch[1, 0, 0]))
            other_column = int(torch.sign(patch[1, 0, 1] - patch[1, 0, 0]))
            orientations.add((row_wise, column_wise, other_row, other_column))
    assert len(orientations) == 8


def test_lr_images_are_made_by_the_matlab_rule(photographs: Path) -> None:
    """Whole images are shrunk, so that patches know their surroundings as test images do."""
    pairs = load_pairs(photographs, scale=2, smallest_lr_pixels=16)
    assert len(pairs) == 4
    for pair in pairs:
        expected = resize_bicubic_uint8(pair.hr_pixels, scale=0.5)
        assert np.array_equal(pair.lr_pixels, expected)


def test_broken_and_small_images_are_named_and_left_out(
    photographs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One bad file does not end a run of days."""
    (photographs / "broken.jpg").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING, logger="escsr"):
        pairs = load_pairs(photographs, scale=2, smallest_lr_pixels=36)
    assert len(pairs) == 2
    assert "broken.jpg" in caplog.text
    assert "a.png is only 90x70 pixels" in caplog.text


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    """Nothing to train on is said before anything else happens."""
    with pytest.raises(TrainingError, match="None of the 0 images"):
        load_pairs(tmp_path, scale=2, smallest_lr_pixels=16)
    with pytest.raises(TrainingError, match="not a folder"):
        load_pairs(tmp_path / "none", scale=2, smallest_lr_pixels=16)
