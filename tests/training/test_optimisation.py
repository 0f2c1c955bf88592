"""The learning rate of each step, worked by hand."""

import pytest

from escsr.training.optimisation import learning_rate_at
from escsr.training.recipe import OptimizerRecipe, Recipe, ScheduleRecipe


def scheduled(recipe: Recipe, schedule: ScheduleRecipe, *, steps: int, highest: float) -> Recipe:
    """A recipe with this schedule."""
    optimizer = OptimizerRecipe(learning_rate=highest)
    update = {"schedule": schedule, "steps": steps, "optimizer": optimizer}
    return recipe.model_copy(update=update)


@pytest.fixture
def papers(recipe: Recipe) -> Recipe:
    """The paper's: 5e-4, 20,000 steps of warm-up, halved five times in 500,000."""
    schedule = ScheduleRecipe(
        kind="halving",
        warmup_steps=20_000,
        halve_at=(250_000, 400_000, 450_000, 475_000, 490_000),
    )
    return scheduled(recipe, schedule, steps=500_000, highest=5e-4)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 5e-4 / 20_000),
        (9_999, 2.5e-4),
        (19_999, 5e-4),
        (20_000, 5e-4),
        (249_999, 5e-4),
        (250_000, 2.5e-4),
        (400_000, 1.25e-4),
        (450_000, 6.25e-5),
        (475_000, 3.125e-5),
        (489_999, 3.125e-5),
        (490_000, 1.5625e-5),
        (499_999, 1.5625e-5),
    ],
)
def test_the_papers_schedule_warms_up_and_halves(
    papers: Recipe, step: int, expected: float
) -> None:
    """A linear rise, then half at each of five steps: powers of two of 5e-4."""
    assert learning_rate_at(papers, step) == pytest.approx(expected, rel=1e-12)


def test_the_real_world_schedule_falls_to_two_fifths(recipe: Recipe) -> None:
    """ESC-Real: 5e-4 without a warm-up, 2e-4 from step 100,000 on."""
    schedule = ScheduleRecipe(kind="halving", halve_at=(100_000,), halving_factor=0.4)
    chosen = scheduled(recipe, schedule, steps=1_000_000, highest=5e-4)
    rates = [learning_rate_at(chosen, step) for step in (0, 99_999, 100_000, 999_999)]
    assert rates == pytest.approx([5e-4, 5e-4, 2e-4, 2e-4], rel=1e-12)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.1),
        (9, 1.0),
        (10, 1.0),
        # A quarter of the way: 0.2 + 0.4 (1 + cos 45 degrees).
        (35, 0.882842712474619),
        (60, 0.6),
        (110, 0.2),
    ],
)
def test_the_cosine_falls_from_the_warm_up_to_its_end(
    recipe: Recipe, step: int, expected: float
) -> None:
    """110 steps, 10 of them warm-up, from 1 to 0.2; the middle is their mean."""
    schedule = ScheduleRecipe(kind="cosine", warmup_steps=10, final_learning_rate=0.2)
    chosen = scheduled(recipe, schedule, steps=110, highest=1.0)
    assert learning_rate_at(chosen, step) == pytest.approx(expected, rel=1e-12)


def test_the_cosine_of_a_run_that_is_all_warm_up_has_an_end(recipe: Recipe) -> None:
    """As many steps of warm-up as steps: nothing is divided by 0."""
    schedule = ScheduleRecipe(kind="cosine", warmup_steps=5)
    chosen = scheduled(recipe, schedule, steps=5, highest=1.0)
    assert [learning_rate_at(chosen, step) for step in (4, 5)] == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(("step", "expected"), [(0, 0.5), (1, 1.0), (2, 1.0), (10**6, 1.0)])
def test_a_constant_rate_stays_after_its_warm_up(
    recipe: Recipe, step: int, expected: float
) -> None:
    """Two steps of warm-up to 1."""
    schedule = ScheduleRecipe(kind="constant", warmup_steps=2)
    chosen = scheduled(recipe, schedule, steps=10, highest=1.0)
    assert learning_rate_at(chosen, step) == expected
