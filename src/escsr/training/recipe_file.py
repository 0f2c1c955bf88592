"""Recipes as TOML files: inheritance from a base, validation, and their JSON schema."""

import json
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from escsr.errors import ConfigurationError, RecipeError
from escsr.training.recipe import Recipe

_BASE_KEY = "base"


def read_recipe(path: Path, *, changes: Mapping[str, object] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: a TOML file. Its key ``base`` may name another recipe, relative to it, whose values
            hold where it says nothing; tables are merged key by key.
        changes: values to replace, as from ``--set``; ``data.batch_size`` reaches into a table.
    Raises:
        RecipeError: not readable, not TOML, an unknown key, or a value that is not allowed; the
            message names each key and what is allowed.
    """
    values = _read_with_base(path, before=())
    for key, value in (changes or {}).items():
        values = _merge(values, _nested(key.split("."), value))
    return check_recipe(values, origin=f"{path} with --set" if changes else str(path))


def parse_change(text: str) -> tuple[str, object]:
    """Read one of the changes to a recipe: ``steps=100`` -> ("steps", 100).

    Args:
        text: ``KEY=VALUE``; a value that is no TOML is taken as text.
    Raises:
        ConfigurationError: there is no ``=``.
    """
    key, separator, value = text.partition("=")
    if not separator:
        raise ConfigurationError(f"--set: {text!r} is not KEY=VALUE, such as steps=100.")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def check_recipe(values: Mapping[str, Any], *, origin: str) -> Recipe:
    """Check the values of a recipe; ``origin`` is named in the message.

    Raises:
        RecipeError: an unknown key, a missing one, or a value that is not allowed.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(problem) for problem in error.errors())
        raise RecipeError(f"The recipe {origin} cannot be used: {problems}.") from error


def recipe_schema() -> str:
    """The JSON schema of a recipe file, for editors; published as recipes/recipe.schema.json."""
    schema = Recipe.model_json_schema()
    schema["properties"][_BASE_KEY] = {
        "type": "string",
        "description": "Another recipe, relative to this file, that this one builds on.",
    }
    # What is required may be in the base.
    del schema["required"]
    return json.dumps(schema, indent=2) + "\n"


def recipe_text(recipe: Recipe) -> str:
    """All values of a recipe that differ from the defaults, as one JSON object."""
    return json.dumps(recipe.model_dump(mode="json", exclude_defaults=True), indent=2)


def _read_with_base(path: Path, *, before: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in before:
        raise RecipeError(f"The recipe {path} builds on itself; remove one of the `base` keys.")
    values = _read_toml(path)
    base = values.pop(_BASE_KEY, None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise RecipeError(f"The recipe {path} cannot be used: base = {base!r} is no file name.")
    inherited = _read_with_base(path.parent / base, before=(*before, path.resolve()))
    return _merge(inherited, values)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise RecipeError(f"The recipe {path} cannot be read: {reason}.") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"The recipe {path} is not valid TOML: {error}.") from error


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        inherited = merged.get(key)
        if isinstance(inherited, dict) and isinstance(value, dict):
            merged[key] = _merge(inherited, value)
        else:
            merged[key] = value
    return merged


def _nested(keys: list[str], value: object) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def _describe(problem: Any) -> str:
    place = [str(part) for part in problem["loc"]]
    key = ".".join(place)
    if problem["type"] == "extra_forbidden":
        allowed = _keys_of_table(place[:-1])
        near = get_close_matches(place[-1], allowed, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"{key}: unknown key{hint}; allowed are {', '.join(allowed)}"
    if problem["type"] == "missing":
        return f"{key}: missing"
    if problem["type"] == "model_type":
        allowed = _keys_of_table(place)
        return f"{key} = {problem['input']!r}: must be a table with the keys {', '.join(allowed)}"
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    message = re.sub(r"^(Input|String) should", "must", message)
    if not key:
        return message
    # The values of a whole table would hide what is wrong with it.
    return f"{key}: {message}" if _is_table(place) else f"{key} = {problem['input']!r}: {message}"


def _is_table(place: list[str]) -> bool:
    return _table_at(place) is not None


def _keys_of_table(place: list[str]) -> list[str]:
    table = _table_at(place)
    keys = list(table.model_fields) if table else []
    return keys if place else [_BASE_KEY, *keys]


def _table_at(place: list[str]) -> type[BaseModel] | None:
    """The table at a place, such as degradation.first; None where there is a value."""
    table: type[BaseModel] = Recipe
    for key in place:
        field = table.model_fields.get(key)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        table = annotation
    return table
