"""What may name the training data: folders, files, patterns, several of them."""

import logging
from pathlib import Path

import pytest

from escsr.errors import TrainingError
from escsr.training.data import find_data_files


def touch(folder: Path, *names: str) -> list[Path]:
    """Make files; what they hold does not matter here."""
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def test_a_folder_is_searched_with_its_sub_folders_in_the_order_of_names(tmp_path: Path) -> None:
    """Only names of images count; hidden files, such as macOS' ``._a.jpg``, do not."""
    expected = touch(tmp_path, "a.JPG", "b/c.png", "z.webp")
    touch(tmp_path, "._a.jpg", "notes.txt", "b/list.tsv")
    assert find_data_files(tmp_path).photographs == expected


def test_several_folders_are_one_set(tmp_path: Path) -> None:
    """DF2K is DIV2K and Flickr2K; a file that is named twice is taken once."""
    first, second = touch(tmp_path / "DIV2K", "1.png"), touch(tmp_path / "Flickr2K", "0.png")
    named = [tmp_path / "DIV2K", str(tmp_path / "Flickr2K"), first[0]]
    assert find_data_files(named).photographs == first + second


def test_shards_are_named_by_folder_glob_or_list(tmp_path: Path) -> None:
    """All the ways that webdataset's users know."""
    shards = touch(tmp_path, "s-08.tar", "s-09.tar", "s-10.tar")
    for data in (tmp_path, f"{tmp_path}/s-*.tar", f"{tmp_path}/s-{{08..10}}.tar", shards):
        assert find_data_files(data).shards == shards
    assert find_data_files(f"{tmp_path}/s-{{08,1{{0..0}}}}.tar").shards == [shards[0], shards[2]]


def test_a_shard_missing_from_a_list_is_an_error(tmp_path: Path) -> None:
    """The sequence of samples depends on all of them."""
    touch(tmp_path, "s-0.tar", "s-2.tar")
    with pytest.raises(TrainingError, match=r"s-1\.tar does not exist"):
        find_data_files(f"{tmp_path}/s-{{0..2}}.tar")


def test_images_win_over_an_archive_beside_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A backup of the photographs is no training set; it is said, with the way to mean it."""
    images = touch(tmp_path, "a.png")
    touch(tmp_path, "backup.tar")
    with caplog.at_level(logging.WARNING, logger="escsr"):
        files = find_data_files(tmp_path)
    assert (files.photographs, files.shards) == (images, [])
    assert "1 .tar files, which are not" in caplog.text


def test_images_and_shards_together_are_an_error(tmp_path: Path) -> None:
    """They are gone through in different ways."""
    touch(tmp_path, "a/a.png", "b/s.tar")
    with pytest.raises(TrainingError, match="mixes image files"):
        find_data_files([tmp_path / "a", tmp_path / "b"])


@pytest.mark.parametrize("name", ["", "absent", "absent-*.tar", "notes.txt"])
def test_no_data_is_an_error_that_says_what_may_be_given(tmp_path: Path, name: str) -> None:
    """An empty folder, no such folder, a pattern that matches nothing, another file."""
    touch(tmp_path / "elsewhere", "notes.txt")
    folder = tmp_path / "elsewhere"
    with pytest.raises(TrainingError, match=r"image.*\.tar"):
        find_data_files(folder / name if name else folder)


def test_an_empty_list_is_an_error() -> None:
    """Nothing named is nothing found."""
    with pytest.raises(TrainingError, match="No training data"):
        find_data_files([])
