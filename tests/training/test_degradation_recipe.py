"""Settings of the degradation are the paper's, and wrong ones are named."""

from typing import Any

import numpy as np
import pytest

from escsr.errors import RecipeError
from escsr.training.degradation import draw_factor
from escsr.training.recipe import DegradationRecipe
from escsr.training.recipe_file import check_recipe
from tests.training.runs import RECIPE

DATA = {"degradation": "second-order", "patch_pixels": 8, "batch_size": 2}


def refusal(**values: Any) -> str:
    """What is said of these values of ``[degradation]``."""
    with pytest.raises(RecipeError) as caught:
        check_recipe(RECIPE | {"data": DATA, "degradation": values}, origin="x.toml")
    return str(caught.value)


def test_the_defaults_are_the_papers() -> None:
    """Where the two stages differ; ESC-Real's settings are Real-ESRGAN's."""
    chosen = DegradationRecipe()
    first, second = chosen.first, chosen.second
    assert (chosen.degraded_pixels, chosen.pool_pairs, chosen.kernel_pixels) == (400, 180, (7, 21))
    assert (first.blur_chance, second.blur_chance) == (1, 0.8)
    assert (first.sigma, second.sigma) == ((0.2, 3), (0.2, 1.5))
    assert (first.resize_chances, second.resize_chances) == ((0.2, 0.7, 0.1), (0.3, 0.4, 0.3))
    assert (first.resize_range, second.resize_range) == ((0.15, 1.5), (0.3, 1.2))
    assert (first.noise_sigma, second.noise_sigma) == ((1, 30), (1, 25))
    assert (first.poisson_scale, second.poisson_scale) == ((0.05, 3), (0.05, 2.5))
    assert first.jpeg_quality == second.jpeg_quality == (30, 95)
    for stage in (first, second):
        assert stage.sinc_chance == 0.1
        assert (stage.generalised_beta, stage.plateau_beta) == ((0.5, 4), (1, 2))
        assert (stage.gaussian_chance, stage.grey_chance) == (0.5, 0.4)
    assert (chosen.usm_weight, chosen.usm_threshold, chosen.final_sinc_chance) == (0.5, 10, 0.8)
    assert first.kernel_chances == second.kernel_chances == (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)


def test_chances_that_are_rounded_sum_to_1() -> None:
    """So that they can be drawn by: three sevenths of a digit are no third."""
    data = {"data": DATA, "degradation": {"first": {"resize_chances": [0.3333333] * 3}}}
    stage = check_recipe(RECIPE | data, origin="x.toml").degradation.first
    assert stage.resize_chances == pytest.approx([1 / 3] * 3, rel=1e-12)
    assert 0 < draw_factor(np.random.default_rng(0), stage) <= 1.5


@pytest.mark.parametrize(
    ("values", "key", "reason"),
    [
        ({"pool_pairs": -1}, "degradation.pool_pairs = -1", "greater than or equal to 0"),
        ({"kernel_pixels": [6, 21]}, "degradation.kernel_pixels", "must be odd"),
        ({"kernel_pixels": [21, 7]}, "degradation.kernel_pixels", "must not be larger"),
        ({"kernel_pixels": [7, 99]}, "degradation.kernel_pixels.1 = 99", "equal to 51"),
        ({"first": {"sigma": [0, 3]}}, "degradation.first.sigma.0 = 0", "greater than 0"),
        ({"first": {"sigma": [3, 1]}}, "degradation.first.sigma", "must not be larger"),
        ({"second": {"blur_chance": 2}}, "degradation.second.blur_chance = 2", "equal to 1"),
        ({"second": {"resize_range": [0.5, 0.9]}}, "resize_range.1 = 0.9", "equal to 1"),
        ({"second": {"resize_chances": [1, 1, 1]}}, "resize_chances", "sum to 1, not 3"),
        ({"first": {"jpeg_quality": [0, 95]}}, "jpeg_quality.0 = 0", "equal to 1"),
        ({"first": {"generalised_beta": [2, 4]}}, "generalised_beta.0 = 2", "equal to 1"),
    ],
)
def test_a_wrong_setting_is_told_with_its_key_and_what_is_allowed(
    values: dict[str, Any], key: str, reason: str
) -> None:
    """Down to the stage."""
    message = refusal(**values)
    assert key in message
    assert reason in message


def test_an_unknown_key_of_a_stage_is_told_with_the_keys_of_a_stage() -> None:
    """And with the one that is near."""
    message = refusal(first={"sigmas": [1, 2]})
    assert "degradation.first.sigmas: unknown key (did you mean sigma?)" in message
    assert "jpeg_quality" in message
    assert "pool_pairs" not in message


def test_patches_fit_into_what_is_degraded() -> None:
    """Which is a multiple of the scale, so that LR and HR patches lie upon each other."""
    assert "degraded_pixels is 31; it must be a multiple of scale 2" in refusal(degraded_pixels=31)
    with pytest.raises(RecipeError, match=r"at least data.patch_pixels x scale = 128"):
        data = DATA | {"patch_pixels": 64}
        values = {"data": data, "degradation": {"degraded_pixels": 100}}
        check_recipe(RECIPE | values, origin="x.toml")


def test_settings_that_nothing_uses_are_refused() -> None:
    """[degradation] without data.degradation = "second-order" would be an accident."""
    with pytest.raises(RecipeError, match=r"used by data.degradation = .second-order. alone"):
        check_recipe(RECIPE | {"degradation": {"pool_pairs": 8}}, origin="x.toml")
