"""Tar shards: every image once per epoch, in an order that the seed alone decides."""

import io
import logging
import sys
import tarfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset

from escsr.errors import MissingExtraError, TrainingError
from escsr.images.writer import write_image
from escsr.training import shards as shards_module
from escsr.training.batches import BatchSource
from escsr.training.shards import count_shard, read_shard
from tests.training.data_sets import open_data, write_shards
from tests.training.pictures import picture, spoil, write_every_kind, write_pictures

IMAGES = 10


def opened(data: Any, **changes: Any) -> BatchSource:
    """Batches of four 8-pixel pairs, x2, as they lie."""
    settings: dict[str, Any] = {"scale": 2, "patch_pixels": 8, "batch_size": 4, "seed": 1}
    return open_data(data, **(settings | changes))


@pytest.fixture
def coloured(tmp_path: Path) -> Path:
    """Ten pictures, each of one grey value, in shards of 4, 4 and 2: patches tell their image."""
    for number in range(IMAGES):
        write_image(tmp_path / f"{number}.png", np.full((20, 24, 3), 10 * number, np.uint8))
    images = [tmp_path / f"{number}.png" for number in range(IMAGES)]
    write_shards(images, tmp_path / "shards", images_per_shard=4)
    return tmp_path / "shards"


def images_of(source: BatchSource, steps: range) -> list[int]:
    """Which picture each patch was cut from."""
    values = torch.cat([source.batch(step).tensors[1][:, 0, 0, 0] for step in steps])
    return (values * 25.5).round().int().tolist()


def pack(path: Path, members: dict[str, bytes]) -> None:
    """Write a tar file by hand."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_shards_hold_the_files_as_they_were(tmp_path: Path) -> None:
    """Packed, counted and read again: the same bytes, so many to a shard, the rest in the last."""
    paths = sorted(write_pictures(tmp_path / "pictures", 5).iterdir())
    write_shards(paths, tmp_path / "shards", images_per_shard=2)
    counted = [count_shard(path) for path in sorted((tmp_path / "shards").iterdir())]
    assert [shard.image_count for shard in counted] == [2, 2, 1]
    data = [image.data for shard in counted for image in read_shard(shard)]
    assert data == [path.read_bytes() for path in paths]


# webdataset leaves closing its files to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_webdataset_itself_reads_our_shards(coloured: Path) -> None:
    """They are its format: key and suffix, nothing of our own."""
    data = webdataset.WebDataset(str(coloured / "shard-000000.tar"), shardshuffle=False)
    assert [sample["__key__"] for sample in data] == [f"{n:08d}" for n in range(4)]


def test_a_limit_passes_over_images_that_cannot_be_used(tmp_path: Path) -> None:
    """For a rehearsal: a shard whose first images are damaged or too small; none at all is told."""
    members = {f"0{n}.png": b"no image" for n in range(3)}
    for number, side in ((10, 9), (11, 20), (12, 20)):
        write_image(tmp_path / f"{number}.png", np.full((side, 24, 3), 10 * number, np.uint8))
        members[f"{number}.png"] = (tmp_path / f"{number}.png").read_bytes()
    pack(tmp_path / "a.tar", members)
    source = opened(tmp_path / "a.tar", image_limit=2)
    assert source.image_count == 2
    assert set(images_of(source, range(2))) == {11, 12}
    source.close()
    pack(tmp_path / "b.tar", {"0.png": b"no image"})
    with pytest.raises(TrainingError, match=r"None of the images .* can be used"):
        opened(tmp_path / "b.tar", image_limit=2)


def test_every_image_is_seen_once_per_epoch(coloured: Path) -> None:
    """Ten images, batches of four: five batches are two epochs."""
    source = opened(coloured)
    seen = images_of(source, range(5))
    source.close()
    assert sorted(seen[:IMAGES]) == sorted(seen[IMAGES:]) == list(range(IMAGES))
    assert seen[:IMAGES] != seen[IMAGES:]


def test_a_shard_is_gone_through_before_the_next(coloured: Path) -> None:
    """What is read at once is used at once; shards and their images come in random order."""
    source = opened(coloured)
    seen = images_of(source, range(5))[:IMAGES]
    source.close()
    shards = [number // 4 for number in seen]
    assert sum(one != other for one, other in pairwise(shards)) == 2
    assert seen != sorted(seen)


def test_resuming_reads_only_the_shard_of_its_step(
    coloured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 1,000,000 comes as fast as step 0, and is the same batch as without a stop."""
    read: list[str] = []

    def reading(shard: Any) -> Any:
        read.append(shard.path.name)
        return read_shard(shard)

    monkeypatch.setattr(shards_module, "read_shard", reading)
    source = opened(coloured, batch_size=2)
    for step in (10**6, 10**6 + 1):
        source.batch(step)
    assert len(read) <= 2
    again = opened(coloured, batch_size=2, cache_bytes=0)
    assert torch.equal(source.batch(10**6 + 1).tensors[1], again.batch(10**6 + 1).tensors[1])
    source.close()
    again.close()


def test_the_batch_does_not_depend_on_what_else_was_made(coloured: Path) -> None:
    """Backwards, too: threads that make batches ahead may overtake each other."""
    source = opened(coloured)
    forwards = [source.batch(step).tensors[1] for step in range(6)]
    backwards = [source.batch(step).tensors[1] for step in reversed(range(6))]
    source.close()
    for one, other in zip(forwards, reversed(backwards), strict=True):
        assert torch.equal(one, other)


def test_images_of_every_kind_come_out_of_shards(tmp_path: Path) -> None:
    """As from a folder: 8-bit RGB."""
    folder = write_every_kind(tmp_path / "kinds")
    write_shards(sorted(p for p in folder.rglob("*") if p.is_file()), tmp_path / "shards")
    source = opened(tmp_path / "shards", batch_size=7)
    assert source.image_count == 7
    assert source.batch(0).tensors[1].shape == (7, 3, 16, 16)
    source.close()


def test_members_that_cannot_be_used_are_named_counted_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the next of their shard's order: the same one whenever it is met."""
    folder = write_pictures(tmp_path / "pictures", 4)
    spoil(folder)
    write_shards(sorted(folder.iterdir()), tmp_path / "shards")
    with caplog.at_level(logging.WARNING, logger="escsr"):
        source, again = (opened(tmp_path / "shards", patch_pixels=12) for _ in range(2))
        batches = [source.batch(step).tensors[1] for step in range(10)]
        assert torch.equal(again.batch(9).tensors[1], batches[9])
    assert source.image_count == 4
    assert "shard-000000.tar/00000004.jpg is empty" in caplog.text
    assert ".png is only 90x20 pixels; a patch needs 24 per side" in caplog.text
    assert "left out (4 so far)" in caplog.text
    source.close()
    again.close()


def test_members_that_are_no_images_do_not_count(tmp_path: Path) -> None:
    """Captions and labels lie beside the images of many sets."""
    write_image(tmp_path / "a.png", picture(0))
    image = (tmp_path / "a.png").read_bytes()
    members = {"a/0.png": image, "a/0.txt": b"a cat", "__meta__/1.png": image, "._0.png": b""}
    pack(tmp_path / "s.tar", members)
    shard = count_shard(tmp_path / "s.tar")
    assert [member.name for member in read_shard(shard)] == ["a/0.png", "__meta__/1.png"]
    assert shard.image_count == 2


def test_shards_without_images_are_an_error(tmp_path: Path) -> None:
    """Counted before the first step."""
    pack(tmp_path / "s.tar", {"a.txt": b"no picture"})
    with pytest.raises(TrainingError, match="no image in the 1 shards"):
        opened(tmp_path)


def test_a_shard_of_nothing_but_broken_images_is_an_error(tmp_path: Path) -> None:
    """It has a share in the order, and nothing to give."""
    pack(tmp_path / "s.tar", {"a.png": b"no picture", "b.png": b"none"})
    source = opened(tmp_path)
    with pytest.raises(TrainingError, match=r"No image in the shard .*s\.tar can be used"):
        source.batch(0)
    source.close()


@pytest.mark.parametrize("kind", ["truncated", "text", "compressed"])
def test_a_shard_that_is_not_whole_is_an_error_at_the_start(coloured: Path, kind: str) -> None:
    """Without it, the sequence of samples would be another."""
    path = coloured / "shard-000001.tar"
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-11_000])
    elif kind == "text":
        path.write_text("no archive" * 200)
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(coloured / "shard-000000.tar", "a.png")
    with pytest.raises(TrainingError, match=r"shard-000001\.tar cannot be read.*whole"):
        opened(coloured)


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_a_shard_lost_while_training_stops_it_with_its_name(coloured: Path, change: str) -> None:
    """The run can go on when it is back."""
    source = opened(coloured / "shard-000000.tar")
    path = coloured / "shard-000000.tar"
    path.unlink() if change == "gone" else pack(path, {"a.png": b""})
    with pytest.raises(TrainingError, match=r"shard-000000\.tar (is gone|has changed).*--resume"):
        source.batch(0)
    source.close()


def test_shards_are_counted_with_progress(coloured: Path) -> None:
    """Many shards take a while."""
    seen: list[tuple[int, int]] = []
    opened(coloured, on_loaded=lambda *done: seen.append(done)).close()
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_share_draws_from_all_shards_alike_and_each_image_once(coloured: Path) -> None:
    """Half of ten images: the same five in every epoch."""
    source = opened(coloured, share=0.5, batch_size=5)
    counts = Counter(images_of(source, range(4)))
    source.close()
    assert len(counts) == 5 and set(counts.values()) == {4}


def test_shards_without_webdataset_name_the_extra(
    coloured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders of images need no such library."""
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(MissingExtraError, match=r"escsr\[train\]"):
        opened(coloured)
