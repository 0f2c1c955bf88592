"""Every recipe that we ship runs, says where its weights come from, and fits the schema."""

import json
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from escsr.training.recipe_file import read_recipe, recipe_schema
from escsr.training.run import Run, rehearse_recipe

FOLDER = Path(__file__).parents[2] / "recipes"
BASES = sorted((FOLDER / "base").glob("*.toml"))
RECIPES = sorted(path for path in FOLDER.rglob("*.toml") if path not in BASES)

in_each_recipe = pytest.mark.parametrize(
    "path", RECIPES, ids=lambda path: path.relative_to(FOLDER).with_suffix("").as_posix()
)


def one_of_each_kind() -> list[Path]:
    """Of recipes that differ in no more than names, scale and numbers of the schedule, one.

    It is another one of x2, x3 and x4 from kind to kind.
    """
    kinds: dict[str, list[Path]] = {}
    differing = {"name", "starts_from", "scale", "seed", "steps", "schedule", "watch"}
    for path in RECIPES:
        recipe = read_recipe(path)
        same = recipe.model_dump(exclude={*differing, "optimizer", "data"})
        same["data"] = recipe.data.model_dump(exclude={"batch_size"})
        same["optimizer"] = recipe.optimizer.model_dump(exclude={"learning_rate"})
        kinds.setdefault(repr((same, recipe.schedule.kind)), []).append(path)
    return [paths[number % len(paths)] for number, paths in enumerate(kinds.values())]


@pytest.mark.parametrize(
    "path",
    one_of_each_kind(),
    ids=lambda path: path.relative_to(FOLDER).with_suffix("").as_posix(),
)
def test_the_dry_run_of_a_recipe_passes(path: Path) -> None:
    """Its network, data, loss, optimiser, schedule, precision and validation, on little."""
    result = rehearse_recipe(Run(recipe_path=path, data=None, device="cpu"))
    assert result.quality["photographs PSNR-Y dB"] > 5


@in_each_recipe
def test_a_recipe_fits_the_published_schema(path: Path) -> None:
    """An editor that knows the schema finds nothing wrong."""
    schema = json.loads((FOLDER / "recipe.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(tomllib.loads(path.read_text(encoding="utf-8")))


@in_each_recipe
def test_a_recipe_names_the_schema_where_it_is(path: Path) -> None:
    """Editors read it from the first line, relative to the file."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    schema = path.parent / first.removeprefix("#:schema ")
    assert schema.resolve() == (FOLDER / "recipe.schema.json").resolve()


@in_each_recipe
def test_what_a_recipe_starts_from_is_a_recipe_or_in_the_box(path: Path) -> None:
    """Whoever wants to repeat it finds the one before."""
    before = read_recipe(path).starts_from
    assert before is None or before in {read_recipe(other).name for other in RECIPES}


def test_the_names_of_recipes_differ() -> None:
    """A name is the folder of a run and the file of its weights."""
    names = [read_recipe(path).name for path in RECIPES]
    assert len(names) == len(set(names))


def test_the_published_schema_is_that_of_the_code() -> None:
    """Written by ``escsr train --schema > recipes/recipe.schema.json``."""
    assert (FOLDER / "recipe.schema.json").read_text() == recipe_schema()


def test_the_schema_refuses_what_the_code_refuses() -> None:
    """An unknown key, and a value out of range."""
    validator = Draft202012Validator(json.loads(recipe_schema()))
    assert validator.is_valid({"steps": 1})
    assert not validator.is_valid({"step": 1})
    assert not validator.is_valid({"steps": 0})


@pytest.mark.parametrize("base", BASES, ids=lambda path: path.stem)
def test_a_base_is_built_on(base: Path) -> None:
    """By a recipe or by another base; else it would only be clutter."""
    others = [path for path in (*RECIPES, *BASES) if path != base]
    values = [(path, tomllib.loads(path.read_text(encoding="utf-8"))) for path in others]
    assert base in [(path.parent / value.get("base", "")).resolve() for path, value in values]
