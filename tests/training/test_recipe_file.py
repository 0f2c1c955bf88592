"""Recipes as files: TOML, what they build on, what ``--set`` changes."""

from pathlib import Path

import pytest

from escsr.errors import ConfigurationError, RecipeError
from escsr.training.recipe import Recipe
from escsr.training.recipe_file import check_recipe, parse_change, read_recipe, recipe_text
from tests.training.runs import RECIPE

BASE = """
model = "esc-tiny"
scale = 2
steps = 100
[data]
batch_size = 8
patch_pixels = 48
[loss]
l1 = 1.0
"""
RECIPE_ON_BASE = """
base = "base.toml"
name = "child"
steps = 7
[data]
batch_size = 4
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a recipe and its base."""
    (tmp_path / "base.toml").write_text(BASE)
    (tmp_path / "child.toml").write_text(RECIPE_ON_BASE)
    return tmp_path


def refusal(path: Path) -> str:
    """What is said of a file."""
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    return str(caught.value)


def test_a_recipe_says_what_its_base_does_not(folder: Path) -> None:
    """Its own values win; tables are merged key by key; the rest is the base's."""
    recipe = read_recipe(folder / "child.toml")
    assert (recipe.name, recipe.model, recipe.steps) == ("child", "esc-tiny", 7)
    assert (recipe.data.batch_size, recipe.data.patch_pixels) == (4, 48)


def test_a_base_may_have_a_base_in_another_folder(folder: Path) -> None:
    """Each path is relative to the file that it stands in."""
    below = folder / "more" / "grandchild.toml"
    below.parent.mkdir()
    below.write_text('base = "../child.toml"\nname = "grandchild"\n[data]\npatch_pixels = 16\n')
    recipe = read_recipe(below)
    assert (recipe.name, recipe.steps, recipe.data.batch_size) == ("grandchild", 7, 4)
    assert recipe.data.patch_pixels == 16


def test_a_missing_base_is_told_by_its_path(folder: Path) -> None:
    """The file that cannot be read, not the one that names it alone."""
    (folder / "base.toml").unlink()
    assert "base.toml cannot be read" in refusal(folder / "child.toml")


def test_a_recipe_that_builds_on_itself_is_refused(folder: Path) -> None:
    """Through another one, too."""
    (folder / "base.toml").write_text('base = "child.toml"')
    message = refusal(folder / "child.toml")
    assert "builds on itself; remove one of the `base` keys" in message


def test_a_base_that_is_no_name_is_refused(folder: Path) -> None:
    """What came is told."""
    (folder / "child.toml").write_text("base = 3")
    assert "base = 3 is no file name" in refusal(folder / "child.toml")


def test_changes_win_over_the_file_and_reach_into_tables(folder: Path) -> None:
    """As from ``--set data.batch_size=2``; the other keys of the table stay."""
    changes = {"steps": 9, "data.batch_size": 2, "config.window_size": 8}
    recipe = read_recipe(folder / "child.toml", changes=changes)
    assert (recipe.steps, recipe.data.batch_size, recipe.data.patch_pixels) == (9, 2, 48)
    assert recipe.network_config().window_size == 8


@pytest.mark.parametrize("key", ["data.batchsize", "nothing.batch_size", "steps.more"])
def test_a_change_of_what_does_not_exist_is_refused(folder: Path, key: str) -> None:
    """By the name that was given."""
    with pytest.raises(RecipeError, match=key.split(".")[0]):
        read_recipe(folder / "child.toml", changes={key: 3})


@pytest.mark.parametrize("content", [b"steps = ", b"\x00", b"name = 'a'\nname = 'b'"])
def test_what_is_no_toml_is_told_with_the_place(tmp_path: Path, content: bytes) -> None:
    """The file, and the line or the end."""
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    message = refusal(path)
    assert "broken.toml is not valid TOML" in message
    assert "(at " in message


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    """A picture given by mistake."""
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\xff\xfe")
    assert "picture.png cannot be read: it is no text in UTF-8." in refusal(path)


def test_a_missing_file_is_told_by_its_path(tmp_path: Path) -> None:
    """Once, with the system's reason."""
    message = refusal(tmp_path / "none.toml")
    assert "none.toml cannot be read: " in message
    assert "No such file" in message
    assert message.count("none.toml") == 1


def test_the_text_of_a_recipe_makes_the_same_recipe() -> None:
    """It is written into the weights' file, from which a run can be repeated."""
    recipe = check_recipe(RECIPE, origin="the tests")
    assert Recipe.model_validate_json(recipe_text(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("steps=100", ("steps", 100)),
        ("optimizer.betas = [0.9, 0.9]", ("optimizer.betas", [0.9, 0.9])),
        ("name=other", ("name", "other")),
        ("name=a=b", ("name", "a=b")),
    ],
)
def test_a_change_is_a_key_and_a_value_of_toml_or_text(
    text: str, change: tuple[str, object]
) -> None:
    """As ``--set`` takes it."""
    assert parse_change(text) == change


def test_a_change_without_a_value_is_refused() -> None:
    """With an example."""
    with pytest.raises(ConfigurationError, match="'steps' is not KEY=VALUE, such as steps=100"):
        parse_change("steps")
