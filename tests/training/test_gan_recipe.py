"""``[gan]`` and ``[perceptual]`` of a recipe are checked before anything runs."""

from typing import Any

import pytest

from escsr.errors import RecipeError
from escsr.training.recipe_file import check_recipe
from tests.training.adversarial.runs import GAN_RECIPE
from tests.training.runs import RECIPE


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"gan": {"kind": "wasserstein"}}, "gan.kind = 'wasserstein'"),
        ({"gan": {"kind": "wasserstein"}}, "'vanilla', 'lsgan' or 'hinge'"),
        ({"gan": {"learning_rate": 0}}, "gan.learning_rate = 0: must be greater than 0"),
        ({"gan": {"betas": [0.9, 1.0]}}, "both betas must be at least 0 and below 1"),
        ({"gan": {"weight": 0.1}}, "gan.weight: unknown key; allowed are kind, channels"),
        ({"loss": {"l1": 1, "gan": -1}}, "loss.gan = -1"),
        ({"perceptual": {"weights": "none"}}, "'imagenet' or 'random'"),
        ({"perceptual": {"layers": {"conv5_5": 1.0}}}, "there is no conv5_5 in VGG19; it has"),
        ({"perceptual": {"layers": {"conv5_4": 0.0}}}, "all weights are 0; give at least one"),
        ({"perceptual": {"layers": {"conv5_4": -1.0}}}, "must be greater than or equal to 0"),
        (
            {"scale": 1},
            "data.patch_pixels x scale is 8; for loss.perceptual it must be at least 16",
        ),
    ],
)
def test_a_wrong_value_of_a_gan_recipe_is_told(values: dict[str, Any], reason: str) -> None:
    """With its key and what is allowed."""
    with pytest.raises(RecipeError) as caught:
        check_recipe(GAN_RECIPE | values, origin="x.toml")
    assert reason in str(caught.value)


@pytest.mark.parametrize("table", ["gan", "perceptual"])
def test_a_table_without_its_weight_is_refused(table: str) -> None:
    """Whoever writes ``[gan]`` and forgets ``loss.gan`` would train without."""
    with pytest.raises(RecipeError, match=rf"\[{table}\] is used where loss.{table} has a weight"):
        check_recipe(RECIPE | {table: GAN_RECIPE[table]}, origin="x.toml")


def test_the_defaults_are_the_papers() -> None:
    """ESC-Real's second stage, but for the weights of the losses."""
    recipe = check_recipe(
        RECIPE | {"loss": {"l1": 1, "perceptual": 1, "gan": 0.1}}, origin="x.toml"
    )
    assert (recipe.gan.kind, recipe.gan.channels, recipe.gan.learning_rate) == ("vanilla", 64, 1e-4)
    assert recipe.gan.betas == (0.9, 0.99)
    assert recipe.perceptual.weights == "imagenet"
    layers = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
    assert recipe.perceptual.layers == layers
