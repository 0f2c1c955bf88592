"""Folders of images as people have them: every kind, some broken, some gone while training."""

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from escsr.errors import TrainingError
from escsr.images.files import read_image
from escsr.images.writer import write_image
from escsr.training.batches import BatchSource
from escsr.training.photographs import Photographs
from tests.training.data_sets import open_data
from tests.training.pictures import picture, spoil, write_every_kind, write_pictures

NOTHING_KEPT, ALL_KEPT = 0, 10**9


def opened(folder: Path, **changes: Any) -> BatchSource:
    """Batches of four 24-pixel pairs, x2."""
    settings: dict[str, Any] = {"scale": 2, "patch_pixels": 24, "batch_size": 4, "seed": 1}
    return open_data(folder, **(settings | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six whole pictures of mixed sizes."""
    return write_pictures(tmp_path / "pictures")


@pytest.mark.parametrize("cache_bytes", [NOTHING_KEPT, ALL_KEPT])
def test_images_of_every_kind_are_trained_on(tmp_path: Path, cache_bytes: int) -> None:
    """8 and 16 bits, grey, transparent, JPEG to AVIF, in sub-folders."""
    source = opened(write_every_kind(tmp_path / "kinds"), cache_bytes=cache_bytes, batch_size=30)
    assert source.image_count == 7
    hr_batch = source.batch(0).tensors[1]
    is_grey = (hr_batch[:, :1] == hr_batch[:, 1:]).flatten(1).all(dim=1)
    assert 0 < is_grey.sum() < 30


def test_16_bit_pixels_are_rounded_to_8(tmp_path: Path) -> None:
    """What is trained on is the 8-bit version of the picture, nothing darker."""
    deep, shallow = tmp_path / "deep", tmp_path / "shallow"
    for place, bit_depth in ((deep, 16), (shallow, 8)):
        place.mkdir()
        write_image(place / "a.png", picture(1, bit_depth=bit_depth))
    difference = opened(deep).batch(0).tensors[1] - opened(shallow).batch(0).tensors[1]
    assert difference.abs().max() < 1.01 / 255  # the 8-bit writer truncated, 16 bits are rounded


@pytest.mark.parametrize("cache_bytes", [NOTHING_KEPT, ALL_KEPT])
def test_what_cannot_be_used_is_named_counted_and_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture, cache_bytes: int
) -> None:
    """One bad file does not end a run of days."""
    spoil(folder)
    with caplog.at_level(logging.INFO, logger="escsr"):
        source = opened(folder, cache_bytes=cache_bytes)
        for step in range(20):
            source.batch(step)
    assert source.image_count == 6
    for name in ("text.png", "empty.jpg", "half.png", "tiny.png is only 90x20 pixels"):
        assert name in caplog.text
    assert "3 of 10 images are left out" in caplog.text
    assert caplog.text.count("half.png") == 1


def test_when_a_broken_image_is_found_changes_no_batch(folder: Path) -> None:
    """At the start, with all in memory, or in the middle: another is drawn by the same rule."""
    spoil(folder)
    early, late = opened(folder, cache_bytes=ALL_KEPT), opened(folder, cache_bytes=NOTHING_KEPT)
    for step in range(20):
        assert torch.equal(early.batch(step).tensors[1], late.batch(step).tensors[1])
        if step == 10:
            late = opened(folder, cache_bytes=NOTHING_KEPT)


def test_a_picture_is_chosen_in_proportion_to_its_area(tmp_path: Path) -> None:
    """All pixels are seen alike: three times the area, three times the patches."""
    for name, width, value in (("a.png", 60, 0), ("b.png", 180, 255)):
        write_image(tmp_path / name, np.full((60, width, 3), value, np.uint8))
    source = opened(tmp_path, batch_size=500)
    counts = Counter(source.batch(0).tensors[1][:, 0, 0, 0].tolist())
    assert counts[1.0] == pytest.approx(375, abs=30)  # 3 standard deviations of the binomial


def test_the_choice_is_numpy_s_own(folder: Path) -> None:
    """Runs that began when numpy chose go on with the same images: the streams are the same."""
    source = opened(folder)
    assert isinstance(source, Photographs)
    sizes = [read_image(path).pixels.shape for path in sorted(folder.iterdir())]
    areas = np.array([(height // 2) * (width // 2) for height, width, _ in sizes], np.float64)
    for step in range(50):
        expected = np.random.default_rng(step).choice(6, size=9, p=areas / areas.sum())
        assert source._choose(np.random.default_rng(step), 9) == expected.tolist()


def test_runs_begun_with_earlier_versions_go_on_with_the_same_patches(tmp_path: Path) -> None:
    """Batch 41 of seed 3, as version 0.1 made it: image, row and column of each upper corner."""
    for name, number, height, width in (("a.png", 1, 60, 90), ("b.png", 2, 70, 50)):
        rows, columns = np.mgrid[0:height, 0:width].astype(np.uint8)
        numbered = np.stack((np.full_like(rows, number), rows, columns), axis=2)
        write_image(tmp_path / name, numbered)
    hr_batch = opened(tmp_path, patch_pixels=12, batch_size=6, seed=3).batch(41).tensors[1]
    left, right = ((hr_batch[:, :, 0, at] * 255).round().int().tolist() for at in (0, -1))
    assert left == [[1, 35, 34], [2, 8, 39], [2, 47, 37], [1, 34, 48], [1, 47, 18], [1, 8, 73]]
    assert right == [[1, 12, 34], [2, 8, 16], [2, 47, 14], [1, 34, 71], [1, 24, 18], [1, 8, 50]]


def test_all_images_are_decoded_at_the_start_where_they_fit(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With progress; after that the files are not needed."""
    seen: list[tuple[int, int]] = []
    with caplog.at_level(logging.INFO, logger="escsr"):
        source = opened(folder, cache_bytes=ALL_KEPT, on_loaded=lambda *done: seen.append(done))
    assert seen == [(done, 6) for done in range(1, 7)]
    assert "6 images in memory" in caplog.text
    for path in folder.iterdir():
        path.unlink()
    source.batch(0)


def test_nothing_is_decoded_at_the_start_where_they_do_not_fit(folder: Path) -> None:
    """A folder of any size opens at the speed of its headers."""
    opened(folder, cache_bytes=1000, on_loaded=lambda *_: pytest.fail("decoded at the start"))


@pytest.mark.parametrize("change", ["gone", "other content", "truncated"])
def test_an_image_lost_while_training_stops_it_with_its_name(folder: Path, change: str) -> None:
    """Another image instead would be another run, and nobody would know."""
    source = opened(folder, cache_bytes=NOTHING_KEPT, image_limit=1)
    source.batch(0)
    path = folder / "a-00.png"
    if change == "gone":
        path.unlink()
    elif change == "other content":
        write_image(path, picture(99), overwrite=True)
        os.utime(path, ns=(1, 1))
    else:
        path.write_bytes(path.read_bytes()[:2000])
    what = "is gone" if change == "gone" else "has changed"
    with pytest.raises(TrainingError, match=f"a-00.png {what} since training began.*--resume"):
        source.batch(1)


def test_an_image_put_back_lets_the_run_go_on(folder: Path) -> None:
    """As the message says: the same batch as if nothing had happened."""
    source = opened(folder, cache_bytes=NOTHING_KEPT, image_limit=1)
    expected = source.batch(1).tensors[1]
    aside = folder / "a-00.png"
    aside.rename(folder / "aside")
    with pytest.raises(TrainingError):
        source.batch(1)
    (folder / "aside").rename(aside)
    assert torch.equal(source.batch(1).tensors[1], expected)


@pytest.mark.parametrize("cache_bytes", [NOTHING_KEPT, ALL_KEPT])
def test_a_folder_of_nothing_but_broken_images_is_an_error(
    tmp_path: Path, cache_bytes: int
) -> None:
    """With what was needed and where to look."""
    spoil(tmp_path)
    with pytest.raises(TrainingError, match=r"None of the .* at least 48 pixels"):
        opened(tmp_path, cache_bytes=cache_bytes).batch(0)


def test_images_smaller_than_a_patch_say_how_large_they_must_be(folder: Path) -> None:
    """Mixed sizes are fine as long as one is large enough."""
    assert opened(folder, patch_pixels=35).image_count == 2  # those of 70 and more rows
    with pytest.raises(TrainingError, match=r"patch_pixels 100 x scale 2\).*smaller patch_pixels"):
        opened(folder, patch_pixels=100)
