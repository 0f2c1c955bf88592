"""A recipe is checked before anything runs, and its errors name the key."""

from pathlib import Path

import pytest

from escsr.errors import RecipeError
from escsr.training.recipe import check_recipe, read_recipe
from tests.training.conftest import RECIPE

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_named_after_its_file(path: Path) -> None:
    """A recipe in recipes/ can be read, and says what licence its weights have."""
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert recipe.licence == "MIT"


def test_an_unknown_key_is_named_with_the_known_ones() -> None:
    """A misspelt key must not be ignored."""
    with pytest.raises(RecipeError, match=r"step: unknown key.*steps") as caught:
        check_recipe(RECIPE | {"step": 3}, origin="x.toml")
    assert "x.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("steps", 0), ("loss", "l3"), ("precision", "fp8"), ("learning_rate", -1), ("name", "a/b")],
)
def test_a_wrong_value_is_named_with_its_key(key: str, value: object) -> None:
    """The message holds the key and what came."""
    with pytest.raises(RecipeError, match=key) as caught:
        check_recipe(RECIPE | {key: value}, origin="x.toml")
    assert repr(value) in str(caught.value)


def test_a_missing_key_is_named() -> None:
    """Nothing that shapes the result is guessed."""
    with pytest.raises(RecipeError, match="batch_size: missing"):
        check_recipe({k: v for k, v in RECIPE.items() if k != "batch_size"}, origin="x.toml")


def test_overrides_replace_keys(tmp_path: Path) -> None:
    """What --set says wins over the file."""
    path = tmp_path / "r.toml"
    path.write_text("\n".join(f"{key} = {value!r}" for key, value in RECIPE.items()))
    assert read_recipe(path, overrides={"steps": 9}).steps == 9


@pytest.mark.parametrize("content", ["steps = ", "\x00"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: str) -> None:
    """The error names the file."""
    path = tmp_path / "broken.toml"
    path.write_text(content)
    with pytest.raises(RecipeError, match=r"broken\.toml"):
        read_recipe(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(RecipeError, match=r"none\.toml"):
        read_recipe(tmp_path / "none.toml")
