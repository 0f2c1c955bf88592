"""A training run as one TOML file: everything that shapes the result, and no path."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from escsr.errors import RecipeError


class Recipe(BaseModel):
    """The hyper-parameters of one run; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    """Name of the run and of the weights that come out of it."""
    model: str
    """Name of a variant, such as ``esc-tiny``."""
    scale: int = Field(ge=1, le=8)
    """Upscaling factor per side."""
    steps: int = Field(ge=1)
    """Optimiser steps in all."""
    batch_size: int = Field(ge=1)
    """Pairs per step."""
    patch_pixels: int = Field(ge=8)
    """Side of an LR patch."""
    loss: Literal["l1", "charbonnier"] = "l1"
    """Pixel loss on RGB in [0, 1]."""
    learning_rate: float = Field(gt=0)
    """The highest learning rate, reached after the warm-up."""
    final_learning_rate: float = Field(default=1e-6, ge=0)
    """Where the cosine ends."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear rise from 0."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Of AdamW."""
    weight_decay: float = Field(default=0.0, ge=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Of the moving average of the weights, which is what is judged and shipped."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass; weights and optimiser stay in float32."""
    compile: bool = False
    """Compile the network with torch.compile: about a minute first, then faster steps."""
    seed: int = 0
    """Of the initial weights and of the choice of patches."""
    validate_every_steps: int = Field(default=1000, ge=1)
    licence: str = "not stated"
    """Of the weights that come out; written into their file."""
    training_data: str = "not stated"
    """What the weights are trained on, under which licences; written into their file."""
    checkpoint_every_seconds: float = Field(default=180, gt=0)


def read_recipe(path: Path, *, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: a TOML file.
        overrides: keys to replace, as from ``--set key=value``.
    Raises:
        RecipeError: not readable, not TOML, an unknown key, or a value that is not allowed; the
            message names each key and what is allowed.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"The recipe {path} is not valid TOML: {error}") from error
    return check_recipe(values | (overrides or {}), origin=str(path))


def check_recipe(values: dict[str, Any], *, origin: str) -> Recipe:
    """Check the values of a recipe; ``origin`` is named in the message.

    Raises:
        RecipeError: an unknown key, a missing one, or a value that is not allowed.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(problem) for problem in error.errors())
        raise RecipeError(
            f"The recipe {origin} cannot be used: {problems}. "
            f"The keys are {', '.join(Recipe.model_fields)}."
        ) from error


def _describe(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if problem["type"] == "missing":
        return f"{key}: missing"
    return f"{key} = {problem['input']!r}: {problem['msg']}"
