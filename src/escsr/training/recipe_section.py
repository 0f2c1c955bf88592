"""What the tables of a recipe are made of."""

from pydantic import BaseModel, ConfigDict


class RecipeSection(BaseModel):
    """A table of the recipe; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
