"""What the tables of a recipe are made of."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class RecipeSection(BaseModel):
    """A table of the recipe; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _decays(betas: tuple[float, float]) -> tuple[float, float]:
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError("both betas must be at least 0 and below 1")
    return betas


Decays = Annotated[tuple[float, float], AfterValidator(_decays)]
"""Of an optimiser's running averages, of the gradient and of its square."""
