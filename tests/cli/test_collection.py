"""What the arguments of a command mean: files, folders, globs."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escsr.cli.inputs import InputFile, collect_inputs, is_collection, path_identity

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has other pipes and permissions")

SUFFIXES = frozenset({".jpg", ".png"})


def make_files(folder: Path, *names: str) -> None:
    """Make empty files; what is in them does not matter to the collection."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names_found(*texts: str | Path, recursive: bool = False) -> list[str]:
    """The names behind some arguments."""
    found = collect_inputs([str(text) for text in texts], suffixes=SUFFIXES, recursive=recursive)
    return [file.path.name for file in found.files]


def test_a_folder_gives_its_images_in_order_and_nothing_else(tmp_path: Path) -> None:
    """Other files, hidden files and folders below it are not taken; case does not matter."""
    make_files(tmp_path, "b.jpg", "a.PNG", "notes.txt", "._a.jpg", "below/c.jpg")
    assert names_found(tmp_path) == ["a.PNG", "b.jpg"]


def test_recursion_remembers_the_folders_below(tmp_path: Path) -> None:
    """The structure below a named folder is known, so that the output can repeat it."""
    make_files(tmp_path, "a.jpg", "x/b.jpg", "x/y/c.jpg", ".hidden/d.jpg")
    files = collect_inputs([str(tmp_path)], suffixes=SUFFIXES, recursive=True).files
    assert [(f.subfolder.as_posix(), f.path.name) for f in files] == [
        (".", "a.jpg"),
        ("x", "b.jpg"),
        ("x/y", "c.jpg"),
    ]


def test_recursion_leaves_the_output_folder_out(tmp_path: Path) -> None:
    """An output folder within the input folder does not become input of the next run."""
    make_files(tmp_path, "a.jpg", "big/a.jpg", "more/b.jpg")
    for text in (str(tmp_path), f"{tmp_path}/**/*.jpg", f"{tmp_path}/*/*.jpg"):
        found = collect_inputs(
            [text], suffixes=SUFFIXES, recursive=True, excluded_folder=tmp_path / "big"
        )
        assert [f.path.name for f in found.files][-2:] == ["a.jpg", "b.jpg"][-len(found.files) :]
    # Whoever searches the output folder itself means it.
    inside = collect_inputs(
        [f"{tmp_path}/big/*.jpg"], suffixes=SUFFIXES, excluded_folder=tmp_path / "big"
    )
    assert [f.path.name for f in inside.files] == ["a.jpg"]


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


def test_links_that_lead_upwards_are_not_followed(tmp_path: Path) -> None:
    """Two of them would give 2**40 ways to one file; both are told of, by folder and by pattern."""
    make_files(tmp_path, "in/a.jpg", "in/x/b.jpg")
    for name in ("one", "two"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "in", target_is_directory=True)
    for text in (f"{tmp_path}/in", f"{tmp_path}/in/**/*.jpg", f"{tmp_path}/in/**"):
        found = collect_inputs([text], suffixes=SUFFIXES, recursive=True)
        assert [file.path.name for file in found.files] == ["a.jpg", "b.jpg"]
        assert [entry.path.name for entry in found.left_out] == ["one", "two"]


def test_a_pattern_below_a_folder_with_brackets(tmp_path: Path) -> None:
    """The folder is taken by its very name, hidden files and folders are not taken."""
    make_files(tmp_path, "[2024] trip/a.jpg", "[2024] trip/.b.jpg", "[2024] trip/.c/d.jpg")
    for pattern in ("*.jpg", "**/*.jpg", "**/**/*.jpg", "**", "?.jpg", "[a-z].jpg"):
        found = collect_inputs([f"{tmp_path}/[2024] trip/{pattern}"], suffixes=SUFFIXES)
        assert [(f.path.name, str(f.subfolder)) for f in found.files] == [("a.jpg", ".")], pattern


def test_unicode_names_are_found_by_name_folder_and_glob(tmp_path: Path) -> None:
    """Names in any script are names like any other."""
    make_files(tmp_path, "写真 é😀.jpg")
    for argument in (tmp_path, tmp_path / "写真 é😀.jpg", tmp_path / "写*.jpg"):
        assert names_found(argument) == ["写真 é😀.jpg"]


def test_a_name_that_is_meant_twice_is_taken_once(tmp_path: Path) -> None:
    """By name, by another spelling, by its folder, by a link to that: naming it counts."""
    make_files(tmp_path, "in/a.jpg", "in/x/b.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "in", target_is_directory=True)
    texts = [f"{tmp_path}/in", f"{tmp_path}/in/x/../a.jpg", f"{tmp_path}/link/a*.jpg"]
    files = collect_inputs(texts, suffixes=SUFFIXES).files
    assert [(path_identity(f.path), f.is_named) for f in files] == [
        (path_identity(tmp_path / "in/a.jpg"), True)
    ]


def test_two_names_of_one_file_are_two_inputs(tmp_path: Path) -> None:
    """Links into a store of files, as git-annex makes them, and hard links: each has its name."""
    make_files(tmp_path, "store/blob.jpg", "in/first.jpg")
    (tmp_path / "in/cover.jpg").symlink_to(tmp_path / "store/blob.jpg")
    (tmp_path / "in/page1.jpg").symlink_to("../store/blob.jpg")
    (tmp_path / "in/same.jpg").hardlink_to(tmp_path / "in/first.jpg")
    names = ["cover.jpg", "first.jpg", "page1.jpg", "same.jpg"]
    assert names_found(tmp_path / "in") == names
    assert names_found(tmp_path / "in/*.jpg") == names


@posix_only
def test_what_is_not_read_in_a_folder_has_a_word_each(tmp_path: Path) -> None:
    """Kinds of images that are not read, pipes, links to folders; text is counted."""
    make_files(tmp_path, "in/a.jpg", "in/b.BMP", "in/c.jxl", "in/notes.txt", "in/e", "real/d.jpg")
    os.mkfifo(tmp_path / "in/pipe.jpg")
    (tmp_path / "in/more").symlink_to(tmp_path / "real", target_is_directory=True)
    found = collect_inputs([f"{tmp_path}/in"], suffixes=SUFFIXES, recursive=True)
    assert [f.path.name for f in found.files] == ["a.jpg"]
    assert {entry.path.name: entry.reason.split(",")[0] for entry in found.left_out} == {
        "b.BMP": "BMP is not read; convert it to PNG",
        "c.jxl": "JPEG XL is not read; convert it to PNG",
        "pipe.jpg": "a named pipe",
        "more": "a link to a folder",
    }
    assert not any(entry.is_failure for entry in found.left_out)
    assert found.num_other_files == 2


@posix_only
def test_a_folder_below_that_cannot_be_read_is_a_failure() -> None:
    """The images beside it are found; there may be some in it."""
    user = os.geteuid()
    # pytest's own folders are closed to the user that root becomes here
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        make_files(folder, "in/a.jpg", "in/closed/b.jpg")
        (folder / "in/closed").chmod(0)
        os.seteuid(65534 if user == 0 else user)
        try:
            found = collect_inputs([f"{folder}/in"], suffixes=SUFFIXES, recursive=True)
            by_pattern = collect_inputs([f"{folder}/in/**/*.jpg"], suffixes=SUFFIXES)
            alone = collect_inputs([f"{folder}/in/closed"], suffixes=SUFFIXES)
        finally:
            os.seteuid(user)
            (folder / "in/closed").chmod(0o755)
    for several in (found, by_pattern):
        assert [f.path.name for f in several.files] == ["a.jpg"]
        assert [(e.path.name, e.is_failure) for e in several.left_out] == [("closed", True)]
        assert "cannot be read: Permission denied" in several.left_out[0].reason
    assert "cannot be read: Permission denied" in alone.missing[0].reason


def test_what_leads_to_no_image_is_told_with_its_reason(tmp_path: Path) -> None:
    """A missing file, a folder and a pattern without images, and the empty word."""
    make_files(tmp_path, "notes.txt", "old/a.bmp", "old/b.bmp")
    texts = [f"{tmp_path}/gone.jpg", str(tmp_path), f"{tmp_path}/*.png", "", "x" * 5000]
    texts.append(f"{tmp_path}/old/*")
    found = collect_inputs(texts, suffixes=SUFFIXES)
    assert found.files == []
    assert [m.text for m in found.missing] == texts
    said = ["no such file", "no image in this folder", "matches this pattern", "no such", "no such"]
    said.append("does not read (2 BMP)")
    assert all(word in m.reason for word, m in zip(said, found.missing, strict=True))


def test_the_tilde_is_opened_where_the_shell_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--input=~/a.jpg`` is not opened by the shell; a file named ``~`` would win."""
    make_files(tmp_path, "a.jpg")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert names_found("~/a.jpg") == ["a.jpg"]


def test_only_one_named_file_is_no_collection(tmp_path: Path) -> None:
    """A folder or a pattern is a collection even with one file; so are two arguments."""
    make_files(tmp_path, "a.jpg")
    one = [InputFile(path=tmp_path / "a.jpg")]
    assert not is_collection([str(tmp_path / "a.jpg")], one)
    assert is_collection([str(tmp_path / "*.jpg")], one)
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
    found = collect_inputs([str(path)], suffixes=SUFFIXES)
    assert [f.path for f in found.files] == [path]
    assert not found.missing
    assert [f.path for f in collect_inputs([str(folder)], suffixes=SUFFIXES).files] == [path]


def test_a_name_that_is_no_text_is_found(tmp_path: Path) -> None:
    """File names of Unix are bytes; those that are not UTF-8 survive."""
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    try:
        Path(os.fsdecode(raw)).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert names_found(tmp_path) == [os.fsdecode(b"caf\xe9.jpg")]
