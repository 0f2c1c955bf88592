"""Where results go."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escsr.cli.inputs import InputFile
from escsr.cli.upscale_plan import Destination, destination_of
from escsr.errors import ConfigurationError


def rule(
    text: str | Path | None,
    *,
    is_collection: bool = False,
    name_suffix: str | None = None,
    image_suffix: str | None = None,
) -> Destination:
    """The rule that some options make."""
    return destination_of(
        None if text is None else str(text),
        is_collection=is_collection,
        name_suffix=name_suffix,
        image_suffix=image_suffix,
    )


def output_of(path: str, destination: Destination, *, subfolder: str = ".") -> str:
    """The output of one input at x4."""
    file = InputFile(path=Path(path), subfolder=Path(subfolder))
    suffix = destination.first_choice_suffix(file)
    return destination.path_for(file, size_label="x4", image_suffix=suffix).as_posix()


def test_without_output_results_go_beside_their_inputs_with_the_size() -> None:
    """The name says the factor; ``--suffix`` says it otherwise; dots in a name stay."""
    assert output_of("in/photo.jpg", rule(None)) == "in/photo_x4.jpg"
    assert output_of("in/v1.2.photo.JPG", rule(None)) == "in/v1.2.photo_x4.JPG"
    assert output_of("in/photo.jpg", rule(None, name_suffix="-big")) == "in/photo-big.jpg"


def test_an_output_folder_keeps_stems_and_folders_below(tmp_path: Path) -> None:
    """A folder that exists, ends in a slash, or is given with several inputs."""
    out = tmp_path.as_posix()
    assert output_of("in/a.jpg", rule(tmp_path)) == f"{out}/a.jpg"
    assert output_of("in/a.jpg", rule(f"{out}/new/")) == f"{out}/new/a.jpg"
    several = rule(f"{out}/new", is_collection=True)
    assert output_of("in/x/a.jpg", several, subfolder="x") == f"{out}/new/x/a.jpg"
    assert output_of("a.jpg", rule(tmp_path, name_suffix="_b")) == f"{out}/a_b.jpg"


def test_otherwise_the_output_is_a_file(tmp_path: Path) -> None:
    """Its suffix is the format."""
    assert output_of("a.jpg", rule(tmp_path / "b.png")) == (tmp_path / "b.png").as_posix()


def test_the_format_asked_for_wins_then_the_inputs_then_png() -> None:
    """GIF is read and not written."""
    assert output_of("a.jpg", rule(None, image_suffix=".webp")) == "a_x4.webp"
    assert output_of("a.gif", rule(None)) == "a_x4.png"
    assert output_of("a", rule(None)) == "a_x4.png"


def test_an_output_file_needs_a_known_suffix(tmp_path: Path) -> None:
    """The message lists the formats, and says how to name a folder."""
    for name in ("result", "result.xyz", "result.gif"):
        with pytest.raises(ConfigurationError, match=r"jpg.*png.*slash"):
            rule(tmp_path / name)


def test_a_format_and_an_output_without_its_suffix_name_the_file_to_write(tmp_path: Path) -> None:
    """The format was given, and is not asked for again."""
    with pytest.raises(ConfigurationError, match=r"name it result\.png\. .*slash"):
        rule(tmp_path / "result", image_suffix=".png")


def test_pipes_and_devices_are_no_output(tmp_path: Path) -> None:
    """Whatever their names and the format; standard output is the way to a pipe."""
    for name in ("pipe", "pipe.png"):
        os.mkfifo(tmp_path / name)
        for suffix in (None, ".png"):
            with pytest.raises(ConfigurationError, match=r"is a named pipe.*-o -"):
                rule(tmp_path / name, image_suffix=suffix)
    with pytest.raises(ConfigurationError, match=r"/dev/null is a device.*-o -"):
        rule(Path("/dev/null"), image_suffix=".png")


def test_output_and_format_may_not_contradict_each_other(tmp_path: Path) -> None:
    """``.jpeg`` and ``--format jpg`` are the same format."""
    assert rule(tmp_path / "a.jpeg", image_suffix=".jpg").file == tmp_path / "a.jpeg"
    with pytest.raises(ConfigurationError, match="contradict"):
        rule(tmp_path / "a.png", image_suffix=".jpg")


def test_no_folder_is_made_where_a_file_stands(tmp_path: Path) -> None:
    """Neither as the folder itself nor anywhere above it."""
    (tmp_path / "file").touch()
    for text, several in (("file", True), ("file/", False), ("file/below/", False)):
        with pytest.raises(ConfigurationError, match="is a file, not a folder"):
            rule(f"{tmp_path}/{text}", is_collection=several)
    with pytest.raises(ConfigurationError, match="is a file, not a folder"):
        rule(tmp_path / "file" / "a.png")


@given(stem=st.text(st.sampled_from("ab.é[ _"), min_size=1).filter(lambda s: s.strip(".")))
def test_an_output_beside_its_input_is_never_the_input(stem: str) -> None:
    """Whatever the name, the size keeps them apart."""
    name = f"in/{stem}.jpg"
    assert Path(output_of(name, rule(None))) != Path(name)
