"""Test sets are found without configuration, in the field's usual layouts."""

from pathlib import Path

import pytest

from escsr.errors import ImageReadError
from escsr.evaluation.test_sets import (
    HR_FOLDERS,
    find_test_pairs,
    find_test_set,
    hash_files,
    names_of_test_sets,
)

from .pictures import write_waves


@pytest.mark.parametrize("name", ["", *HR_FOLDERS])
def test_hr_images_lie_in_the_folder_or_in_one_of_the_usual_names(
    tmp_path: Path, name: str
) -> None:
    """Sorted by name; what is no image is passed by, and so are hidden files."""
    folder = tmp_path / "Set2" / name
    for stem in ("b", "a", ".hidden"):
        write_waves(folder / f"{stem}.png", 24, 24)
    (folder / "readme.txt").touch()
    (folder / "folder.png").mkdir()
    test_set = find_test_set(tmp_path / "Set2", scale=2)
    assert test_set.name == "Set2"
    assert [pair.name for pair in test_set.pairs] == ["a", "b"]
    assert test_set.lr_source == "2 made by MATLAB's bicubic rule"


@pytest.mark.parametrize("lr_folder", ["LR_bicubic/X2", "LRbicx2"])
@pytest.mark.parametrize("lr_name", ["ax2.png", "a.png", "ax2.webp", "a.tif"])
def test_lr_images_are_found_with_and_without_the_scale_in_their_name(
    tmp_path: Path, lr_folder: str, lr_name: str
) -> None:
    """And with any suffix that can be read, whatever the HR image has."""
    write_waves(tmp_path / "HR" / "a.png", 24, 24)
    lr_path = write_waves(tmp_path / lr_folder / lr_name, 12, 12)
    (pair,) = find_test_pairs(tmp_path, scale=2)
    assert pair.lr_path == lr_path
    (other_scale,) = find_test_pairs(tmp_path, scale=3)
    assert other_scale.lr_path is None


def test_the_hr_folder_itself_leads_to_the_same_test_set(tmp_path: Path) -> None:
    """`Set5/HR` is `Set5`, with its LR images and its name."""
    write_waves(tmp_path / "Set5" / "HR" / "a.png", 24, 24)
    write_waves(tmp_path / "Set5" / "LR_bicubic" / "X2" / "ax2.png", 12, 12)
    whole = find_test_set(tmp_path / "Set5", scale=2)
    inner = find_test_set(tmp_path / "Set5" / "HR", scale=2)
    assert (whole.name, whole.pairs) == (inner.name, inner.pairs)


def test_it_is_told_how_many_lr_images_are_files(tmp_path: Path) -> None:
    """A folder of LR images with a gap is no secret."""
    for stem in ("a", "b", "c"):
        write_waves(tmp_path / "HR" / f"{stem}.png", 24, 24)
    write_waves(tmp_path / "LR_bicubic" / "X2" / "ax2.png", 12, 12)
    test_set = find_test_set(tmp_path, scale=2)
    assert test_set.lr_source == "1 from files, 2 made by MATLAB's bicubic rule"


def test_images_that_differ_in_the_suffix_alone_keep_it_in_their_name(tmp_path: Path) -> None:
    """Otherwise two rows of a table would be one."""
    for name in ("a.png", "a.webp", "b.png"):
        write_waves(tmp_path / name, 24, 24)
    names = [pair.name for pair in find_test_pairs(tmp_path, scale=2)]
    assert names == ["a.png", "a.webp", "b"]


def test_sets_of_one_name_are_told_apart_by_their_parents() -> None:
    """As many parents as it takes, and only for those that need them."""
    folders = [Path(p) for p in ("/x/ours/Set5", "/x/theirs/Set5/HR", "/x/Set14", "/B100")]
    assert names_of_test_sets(folders) == ["ours/Set5", "theirs/Set5", "Set14", "B100"]
    deep = [Path("/a/v/Set5"), Path("/b/v/Set5")]
    assert names_of_test_sets(deep) == ["a/v/Set5", "b/v/Set5"]


def test_a_hash_changes_with_a_byte_and_with_a_name(tmp_path: Path) -> None:
    """And not with the folder."""
    for folder, name, content in (
        ("1", "a", b"x"),
        ("2", "a", b"x"),
        ("3", "b", b"x"),
        ("4", "a", b"y"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(content)
    hashes = [hash_files(sorted((tmp_path / folder).iterdir())) for folder in "1234"]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_a_test_set_that_is_no_folder_of_images_is_an_error(tmp_path: Path) -> None:
    """Missing, a file, and empty: each is named."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("missing", "file", "empty"):
        with pytest.raises(ImageReadError, match=name):
            find_test_pairs(tmp_path / name, scale=2)
