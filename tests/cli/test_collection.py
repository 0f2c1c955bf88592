"""What the arguments of a command mean: files, folders, globs."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escsr.cli.collection import InputFile, collect_inputs, is_collection, path_identity

SUFFIXES = frozenset({".jpg", ".png"})


def make_files(folder: Path, *names: str) -> None:
    """Make empty files; what is in them does not matter to the collection."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names_found(*texts: str | Path, recursive: bool = False) -> list[str]:
    """The names behind some arguments."""
    files, _ = collect_inputs([str(text) for text in texts], suffixes=SUFFIXES, recursive=recursive)
    return [file.path.name for file in files]


def test_a_folder_gives_its_images_in_order_and_nothing_else(tmp_path: Path) -> None:
    """Other files, hidden files and folders below it are not taken; case does not matter."""
    make_files(tmp_path, "b.jpg", "a.PNG", "notes.txt", "._a.jpg", "below/c.jpg")
    assert names_found(tmp_path) == ["a.PNG", "b.jpg"]


def test_recursion_remembers_the_folders_below(tmp_path: Path) -> None:
    """The structure below a named folder is known, so that the output can repeat it."""
    make_files(tmp_path, "a.jpg", "x/b.jpg", "x/y/c.jpg", ".hidden/d.jpg")
    files, _ = collect_inputs([str(tmp_path)], suffixes=SUFFIXES, recursive=True)
    assert [(f.subfolder.as_posix(), f.path.name) for f in files] == [
        (".", "a.jpg"),
        ("x", "b.jpg"),
        ("x/y", "c.jpg"),
    ]


def test_recursion_leaves_the_output_folder_out(tmp_path: Path) -> None:
    """An output folder within the input folder does not become input of the next run."""
    make_files(tmp_path, "a.jpg", "big/a.jpg", "more/b.jpg")
    files, _ = collect_inputs(
        [str(tmp_path)], suffixes=SUFFIXES, recursive=True, excluded_folder=tmp_path / "big"
    )
    assert [f.path.name for f in files] == ["a.jpg", "b.jpg"]


def test_globs_are_opened_where_the_shell_did_not(tmp_path: Path) -> None:
    """A pattern gives the images that it matches; ** goes down."""
    make_files(tmp_path, "a1.jpg", "a2.jpg", "b.jpg", "a.txt", "x/a3.jpg")
    assert names_found(tmp_path / "a*") == ["a1.jpg", "a2.jpg"]
    assert names_found(f"{tmp_path}/**/a?.jpg") == ["a1.jpg", "a2.jpg", "a3.jpg"]


def test_a_file_of_that_very_name_wins_over_the_glob(tmp_path: Path) -> None:
    """``scan[1].jpg`` is the file of that name, not scan1.jpg, which the pattern matches."""
    make_files(tmp_path, "scan[1].jpg", "scan1.jpg")
    assert names_found(tmp_path / "scan[1].jpg") == ["scan[1].jpg"]


def test_a_folder_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    """Folders too are taken by their very name."""
    make_files(tmp_path, "[2024] trip/a.jpg")
    assert names_found(tmp_path / "[2024] trip") == ["a.jpg"]


def test_a_named_file_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    """Whoever names a file means it; whether it is an image is found out on reading."""
    make_files(tmp_path, "photo.dat")
    assert names_found(tmp_path / "photo.dat") == ["photo.dat"]


def test_unicode_names_are_found_by_name_folder_and_glob(tmp_path: Path) -> None:
    """Names in any script are names like any other."""
    make_files(tmp_path, "写真 é😀.jpg")
    for argument in (tmp_path, tmp_path / "写真 é😀.jpg", tmp_path / "写*.jpg"):
        assert names_found(argument) == ["写真 é😀.jpg"]


def test_a_file_that_is_meant_twice_is_taken_once(tmp_path: Path) -> None:
    """By name, by another spelling, by its folder and by a link: one file; naming it counts."""
    make_files(tmp_path, "a.jpg", "x/b.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    files, _ = collect_inputs(
        [str(tmp_path), f"{tmp_path}/x/../a.jpg", f"{tmp_path}/a*.jpg"], suffixes=SUFFIXES
    )
    assert [(path_identity(f.path), f.is_named) for f in files] == [
        (path_identity(tmp_path / "a.jpg"), True)
    ]


def test_what_leads_to_no_image_is_told_with_its_reason(tmp_path: Path) -> None:
    """A missing file, an empty folder, a pattern without a match, and the empty word."""
    make_files(tmp_path, "notes.txt")
    texts = [f"{tmp_path}/gone.jpg", str(tmp_path), f"{tmp_path}/*.png", "", "x" * 5000]
    files, missing = collect_inputs(texts, suffixes=SUFFIXES)
    assert files == []
    assert [m.text for m in missing] == texts
    said = ["no such file", "no image in this folder", "matches this pattern", "no such", "no such"]
    assert all(word in m.reason for word, m in zip(said, missing, strict=True))


def test_the_tilde_is_opened_where_the_shell_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--input=~/a.jpg`` is not opened by the shell; a file named ``~`` would win."""
    make_files(tmp_path, "a.jpg")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert names_found("~/a.jpg") == ["a.jpg"]


def test_only_one_named_file_is_no_collection(tmp_path: Path) -> None:
    """A folder is a collection even with one file; so are two arguments."""
    make_files(tmp_path, "a.jpg")
    one = [InputFile(path=tmp_path / "a.jpg")]
    assert not is_collection([str(tmp_path / "a.jpg")], one)
    assert not is_collection([str(tmp_path / "*.jpg")], one)
    assert is_collection([str(tmp_path)], one)
    assert is_collection([str(tmp_path / "a.jpg"), "gone.jpg"], one)


NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=30
).filter(lambda name: not name.startswith(("~", ".")))


@given(stem=NAMES)
def test_any_file_is_found_by_its_name(stem: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No name is special: brackets, stars, spaces, quotes, line breaks, any script."""
    folder = tmp_path_factory.mktemp("any")
    path = folder / f"{stem}.jpg"
    path.touch()
    files, missing = collect_inputs([str(path)], suffixes=SUFFIXES)
    assert [f.path for f in files] == [path]
    assert not missing
    assert [f.path for f in collect_inputs([str(folder)], suffixes=SUFFIXES)[0]] == [path]


def test_a_name_that_is_no_text_is_found(tmp_path: Path) -> None:
    """File names of Unix are bytes; those that are not UTF-8 survive."""
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    try:
        Path(os.fsdecode(raw)).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert names_found(tmp_path) == [os.fsdecode(b"caf\xe9.jpg")]
