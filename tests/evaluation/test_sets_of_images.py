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


# Names that the field's collections give to HR and LR files.


@pytest.mark.parametrize(
    ("hr_name", "lr_name"),
    [
        ("HR/bird_HR.png", "LR_bicubic/X2/bird_LRBI_x2.png"),
        ("HR/bird.png", "LR_bicubic/X2/bird_LRBI_x2.png"),
        ("HR/bird_HR_x2.png", "LR_bicubic/X2/bird_LRBI_x2.png"),
        ("HR/bird.PNG", "LR_bicubic/x2/bird.png"),
        ("hr/bird.png", "lr_bicubic/x2/birdx2.PNG"),
        ("GTmod12/bird.png", "LRbicx2/bird.png"),
        ("GT/bird_gt.png", "LR/X2/bird_lr.png"),
        ("HR/bird.png", "LR/Bird_x2.png"),
        ("HR/HR_bird.png", "LR_x2/LR_bird.png"),
        ("HR/bird.png", "X2/bird-bicubic-2x.png"),
        ("image_SRF_2/bird_SRF_2_HR.png", "image_SRF_2/bird_SRF_2_LR.png"),
        ("bird_HR.png", "bird_LR.png"),
        ("bird.png", "bird_LRx2.png"),
        ("DIV2K_valid_HR/0801.png", "DIV2K_valid_LR_bicubic/X2/0801x2.png"),
        ("DIV2K_valid_HR/0801.png", "DIV2K_valid_LR_bicubic_X2/0801x2.png"),
    ],
)
def test_lr_files_are_found_under_the_names_of_the_fields_collections(
    tmp_path: Path, hr_name: str, lr_name: str
) -> None:
    """And whether the two are the same but for `x2` or not is no secret."""
    hr_path = write_waves(tmp_path / "Set" / hr_name, 24, 24)
    lr_path = write_waves(tmp_path / "Set" / lr_name, 12, 12)
    test_set = find_test_set(tmp_path / "Set", scale=2)
    (pair,) = test_set.pairs
    assert (pair.hr_path, pair.lr_path) == (hr_path, lr_path)
    assert (test_set.name, test_set.lr_source) == ("Set", "1 from files")
    is_plain = lr_path.stem in (hr_path.stem, f"{hr_path.stem}x2")
    assert bool(test_set.notes) != is_plain
    assert is_plain or f"{hr_path.name} with {lr_path.name}" in test_set.notes[0]


def test_a_hr_folder_with_a_prefix_leads_to_lr_of_the_same_prefix(tmp_path: Path) -> None:
    """Of DIV2K's two parts, the one that is given; both at once are refused by name."""
    for part in ("train", "valid"):
        write_waves(tmp_path / f"DIV2K_{part}_HR" / "0801.png", 24, 24)
        write_waves(tmp_path / f"DIV2K_{part}_LR_bicubic" / "X2" / "0801x2.png", 12, 12)
        write_waves(tmp_path / f"DIV2K_{part}_LR_unknown" / "X2" / "0801x2.png", 12, 12)
    (pair,) = find_test_pairs(tmp_path / "DIV2K_valid_HR", scale=2)
    assert pair.lr_path == tmp_path / "DIV2K_valid_LR_bicubic" / "X2" / "0801x2.png"
    with pytest.raises(ImageReadError, match="DIV2K_train_HR, DIV2K_valid_HR"):
        find_test_pairs(tmp_path, scale=2)


@pytest.mark.parametrize(
    ("lr_name", "told"),
    [
        ("LR_bicubic/X2/dog.png", ["1 of 1 HR images have no LR file", "dog.png"]),
        ("LR_bicubic/X2/birdx3.png", ["1 of 1 HR images have no LR file"]),
        ("LR_unknown/X2/birdx2.png", ["LR_unknown/X2", "not used"]),
        ("LRBD/birdx2.png", ["LRBD", "not used"]),
        ("lq/bird.png", ["lq", "not used"]),
        ("LR_unknown_4x/birdx2.png", []),
        ("HR/more/eagle.png", ["more", "not judged"]),
    ],
)
def test_files_that_are_not_used_are_told(tmp_path: Path, lr_name: str, told: list[str]) -> None:
    """LR images are made then, and the set says so beside its figures."""
    write_waves(tmp_path / "HR" / "bird.png", 24, 24)
    write_waves(tmp_path / lr_name, 12, 12)
    test_set = find_test_set(tmp_path, scale=2)
    assert test_set.lr_source == "1 made by MATLAB's bicubic rule"
    assert all(word in " ".join(test_set.notes) for word in told)


def test_the_folder_that_says_most_is_taken_and_the_other_is_told(tmp_path: Path) -> None:
    """Bicubic by name, and of a scale; the other might be anything."""
    write_waves(tmp_path / "HR" / "bird.png", 24, 24)
    for folder in ("LR", "LR/X2", "LR_bicubic/X2", "LR_unknown/X2"):
        write_waves(tmp_path / folder / "bird.png", 12, 12)
    test_set = find_test_set(tmp_path, scale=2)
    (pair,) = test_set.pairs
    assert pair.lr_path == tmp_path / "LR_bicubic" / "X2" / "bird.png"
    (note,) = test_set.notes
    assert "not used" in note and str(tmp_path / "LR" / "X2") in note


def test_a_collection_may_have_its_sets_below_hr_and_lr(tmp_path: Path) -> None:
    """As RCAN's: HR/Set5/x2/baby_HR_x2.png and LR/LRBI/Set5/x2/baby_LRBI_x2.png."""
    write_waves(tmp_path / "HR" / "Set5" / "x2" / "baby_HR_x2.png", 24, 24)
    for kind in ("BD", "BI"):
        name = f"baby_LR{kind}_x2.png"
        write_waves(tmp_path / "LR" / f"LR{kind}" / "Set5" / "x2" / name, 12, 12)
    test_set = find_test_set(tmp_path / "HR" / "Set5" / "x2", scale=2)
    (pair,) = test_set.pairs
    assert pair.lr_path is not None and pair.lr_path.name == "baby_LRBI_x2.png"


def test_lr_files_of_other_scales_are_no_reason_for_a_note(tmp_path: Path) -> None:
    """A set with X2, X3 and X4 is judged at x6 with LR images that are made."""
    write_waves(tmp_path / "HR" / "bird.png", 24, 24)
    for scale in (2, 3, 4):
        write_waves(tmp_path / "LR_bicubic" / f"X{scale}" / f"birdx{scale}.png", 12, 12)
    assert find_test_set(tmp_path, scale=6).notes == ()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["HR/bird.png", "LR/birdx2.png", "LR/birdx2.webp"], "birdx2.png, birdx2.webp"),
        (["HR/bird.png", "LR/bird_LR.png", "LR/bird_x2.png"], "bird_LR.png, bird_x2.png"),
        (["HR/bird.png", "HR/bird_HR.png", "LR/bird_LR.png"], "bird.png, bird_HR.png"),
    ],
)
def test_names_that_leave_a_choice_are_refused(tmp_path: Path, names: list[str], told: str) -> None:
    """No figure comes of a guess."""
    for name in names:
        write_waves(tmp_path / name, 24, 24)
    with pytest.raises(ImageReadError, match=told):
        find_test_pairs(tmp_path, scale=2)


def test_results_of_others_beside_hr_and_lr_are_not_judged(tmp_path: Path) -> None:
    """As in the collection of SelfExSR; and a picture is no LR image by its name alone."""
    for end in ("HR", "LR", "bicubic", "SRCNN", "nearest"):
        write_waves(tmp_path / "image_SRF_2" / f"img_001_SRF_2_{end}.png", 24, 24)
    test_set = find_test_set(tmp_path, scale=2)
    assert [pair.hr_path.name for pair in test_set.pairs] == ["img_001_SRF_2_HR.png"]
    assert "3 images" in test_set.notes[0]
    alone = write_waves(tmp_path / "other" / "holiday-LR.png", 24, 24)
    assert [pair.hr_path for pair in find_test_pairs(alone.parent, scale=2)] == [alone]


def test_hr_images_in_folders_within_are_named_where_there_are_no_others(tmp_path: Path) -> None:
    """With what to do."""
    write_waves(tmp_path / "HR" / "sub" / "bird.png", 24, 24)
    with pytest.raises(ImageReadError, match=r"within it \(sub\); give each as a test set"):
        find_test_pairs(tmp_path, scale=2)


def test_pairs_alone_come_with_their_notes_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Training asks for pairs, and hears of LR files that are not used."""
    write_waves(tmp_path / "HR" / "bird.png", 24, 24)
    write_waves(tmp_path / "LR_bicubic" / "X2" / "dog.png", 12, 12)
    find_test_pairs(tmp_path, scale=2)
    assert "no LR file" in caplog.text
